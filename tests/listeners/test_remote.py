"""Listeners behind an endpoint: what is asked, and what happens when it fails (design section 10)."""

from typing import Any

import pytest

from lit_rl.environments.base import Message, Reply
from lit_rl.listeners import Continuation, ListenerPool, ListenRequest, PartyListener, ScriptedListener
from lit_rl.listeners.credit import Credit
from lit_rl.listeners.execution import ExecutionRules, execute
from lit_rl.listeners.figures import execution_sums, means
from lit_rl.parties import PartyError, ScriptedParty
from lit_rl.remote import RemoteParty, RemoteSettings
from lit_rl.verification.traces import ThinkTags
from tests.listeners.worlds import lines, reply, spoken_of
from tests.remote.faulty_server import FaultyServer, completion

REQUESTS = [ListenRequest("Who is it?", f"a\nb{n}", n) for n in range(3)]


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def listener(server: FaultyServer, body: dict[str, Any] | None = None, **options: Any) -> PartyListener:
    settings = RemoteSettings(max_tokens=None, extra_body=body)
    party = RemoteParty("tiny", server.url, api_key_variable=None, attempts=2, backoff=0.0, timeout=2.0,
                        settings=settings, name="far")  # fmt: skip
    return PartyListener("far", party, **options)


def test_a_final_message_is_continued() -> None:
    """Where a server can: the opened block is the assistant's own last message."""
    server = FaultyServer(answer=lambda body: completion(f"{body['seed']} </think> Answer: B"))
    flags = {"continue_final_message": True, "add_generation_prompt": False}
    with server:
        far = listener(server, flags, continue_with="final_message", instruction="Be short.")
        said = far.continue_(REQUESTS)
    assert len({c.text for c in said}) == 3, "each key has a seed of its own"
    sent = next(body for body in server.requests if "b1" in body["messages"][-1]["content"])
    assert sent["continue_final_message"] is True and sent["add_generation_prompt"] is False
    assert sent["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Who is it?"},
        {"role": "assistant", "content": "<think>\na\nb1\n"},
    ]
    assert far.messages(ListenRequest("Q", "", 0))[-1] == Message("assistant", "<think>\n")
    assert far.figures()["calls"] == 3


def test_an_instruction_asks_to_go_on() -> None:
    """Everywhere else: one message, with the listener's own tags."""
    far = PartyListener("far", ScriptedParty(lambda request, key: request.prefix), tags=ThinkTags("[T]", "[/T]"))
    (message,) = far.messages(REQUESTS[0])
    assert message.role == "user" and message.content.startswith("Who is it?\n\n")
    assert "[/T]" in message.content and message.content.endswith("[T]\na\nb0\n")
    assert [c.text for c in far.continue_(REQUESTS)] == ["a\nb0", "a\nb1", "a\nb2"]
    hidden = PartyListener("far", ScriptedParty(lambda request, key: "Answer: B"), hidden_thinking=True)
    assert hidden.continue_(REQUESTS[:1]) == [Continuation(text="</think>\nAnswer: B")]


def test_a_reply_that_was_cut_off_says_so() -> None:
    class Cut:
        def reply(self, calls: Any) -> list[Reply]:
            return [Reply(text="hm", stop_reason="length") for _ in calls]

    assert PartyListener("cut", Cut()).continue_(REQUESTS[:1]) == [Continuation(text="hm", stop_reason="length")]


def no_b1(body: Any, number: int) -> str | None:
    return "status 500" if "b1" in body["messages"][-1]["content"] else None


def test_a_failure_stops_the_run_or_is_left_out() -> None:
    with FaultyServer(no_b1, lambda body: completion("so </think> Answer: B")) as server:
        with pytest.raises(PartyError, match="'far' .* status 500"):
            listener(server).continue_(REQUESTS)
        server.requests.clear()
        with pytest.warns(UserWarning, match="Listener 'far' leaves out a request: .*status 500"):
            said = listener(server, on_error="drop").continue_(REQUESTS)
        assert [c.stop_reason for c in said] == ["end", "failed", "end"]
        assert len(server.requests) == 4, "the two that were answered are not asked again"


def test_what_meets_every_request_stops_the_run_in_any_case() -> None:
    refusal = (401, {}, '{"error": {"message": "bad key"}}')
    with FaultyServer(lambda body, n: refusal) as server, pytest.raises(PartyError, match="bad key"):
        listener(server, on_error="drop").continue_(REQUESTS)


def test_a_dropped_request_is_counted_and_costs_nobody_a_reward() -> None:
    def no_rollout1(body: Any, number: int) -> str | None:
        return "status 503" if body["messages"][-1]["content"].rstrip().endswith("rollout1 step1") else None

    with FaultyServer(no_rollout1, lambda body: completion("so </think> Answer: B")) as server:
        pool = ListenerPool(listeners=[listener(server, on_error="drop")])
        spoken = spoken_of([reply(lines(f"rollout{i}"), "B") for i in range(3)])
        with pytest.warns(UserWarning, match="leaves out a request"):
            executions = execute(spoken, pool, ExecutionRules(), 0)
    rewards = [Credit().of(execution) for execution in executions]
    assert rewards == [2, 2, 2]
    figures = means(execution_sums(executions, rewards))
    assert figures["failed_share/far"] == pytest.approx(1 / 10) and figures["listener_match"] == 1


def test_scripts_that_raise_and_parties_that_miscount() -> None:
    def broken(question: str, prefix: str, key: int) -> str:
        raise KeyError("state")

    with pytest.raises(PartyError, match=r"Party 'script': its script raised KeyError\('state'\)"):
        ScriptedListener("script", broken).continue_(REQUESTS)

    class Short:
        def reply(self, calls: Any) -> list[Reply]:
            return []

    with pytest.raises(PartyError, match="gave 0 replies to 3 calls"):
        PartyListener("short", Short()).continue_(REQUESTS)


def test_bad_options_are_refused() -> None:
    party = ScriptedParty(lambda request, key: "")
    with pytest.raises(ValueError, match="continue_with is 'prefill'; use one of"):
        PartyListener("far", party, continue_with="prefill")
    with pytest.raises(ValueError, match="on_error is 'skip'; it must be 'stop' or 'drop'"):
        PartyListener("far", party, on_error="skip")
