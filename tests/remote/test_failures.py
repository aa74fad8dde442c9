"""What a party does when its endpoint fails: ask again, give up one episode, or stop the run; never a reply made up."""

import asyncio
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from lit_rl.parties import PartyError
from lit_rl.remote import RemoteParty
from lit_rl.remote.failures import retry_after
from lit_rl.remote.patience import Patience
from tests.remote.calls import call
from tests.remote.faulty_server import FAULTS, FaultyServer, completion

Serve = Callable[..., FaultyServer]
Make = Callable[..., RemoteParty]


def of_last_message(body: dict[str, Any]) -> str:
    return completion(body["messages"][-1]["content"])


# -- asked again -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_followed_by_an_answer(fault: str, serve: Serve, party: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(lambda body, number: fault if number == 0 else None, of_last_message)
    teacher = party(server)
    with caplog.at_level(logging.WARNING, "lit_rl.remote"):
        (reply,) = teacher.reply([call(3)])
    assert (reply.text, reply.stop_reason) == ("2 + 2 = 5", "end")
    assert server.requests[0] == server.requests[1], "another attempt asks the same"
    figures = teacher.figures()
    assert (figures["calls"], figures["retries"], figures["failures"]) == (2, 1, 0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "Party 'teacher' in episode 3" in line and "attempt 2 of 2" in line


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays(fault: str, serve: Serve, party: Make) -> None:
    server = serve(lambda body, number: fault)
    teacher = party(server, timeout=0.2)
    with pytest.raises(PartyError, match="Party 'teacher' in episode 3: .*given up after 2 attempts") as raised:
        teacher.reply([call(3)])
    assert raised.value.episode == 3 and server.url in str(raised.value) and "'tiny'" in str(raised.value)
    assert len(server.requests) == 2
    assert teacher.figures() | {"calls": 2, "retries": 1, "failures": 1} == teacher.figures()


def test_a_refused_connection(party: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FaultyServer()
    teacher = party(server)
    with pytest.raises(PartyError, match="episode 0: .*could not be reached .* given up after 2 attempts"):
        teacher.reply([call()])

    def starts_meanwhile(*_: Any) -> float:
        server.start()
        return 0.0

    monkeypatch.setattr(Patience, "pause", starts_meanwhile)
    assert teacher.reply([call()])[0].text.startswith("4 2 + 2 = 5")
    server.stop()


def test_retry_after_is_honoured(serve: Serve, party: Make) -> None:
    server = serve(lambda body, number: "status 429 with Retry-After" if number == 0 else None)
    party(server).reply([call()])
    assert server.times[1] - server.times[0] >= 0.3

    endless = serve(lambda body, number: (429, {"Retry-After": "3600"}, "{}"))
    with pytest.raises(PartyError, match=r"asks to wait 3600 s, longer than longest_wait \(60 s\)"):
        party(endless).reply([call()])
    assert len(endless.requests) == 1


def test_both_forms_of_retry_after() -> None:
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert 25 < retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) <= 30
    for past_or_none in ({"retry-after": formatdate(0)}, {"retry-after": "soon"}, {"retry-after": "nan"}, {}):
        assert retry_after(past_or_none) == 0


def test_pauses_double_and_differ_by_the_key_alone() -> None:
    patience = Patience(attempts=9, backoff=1.0, longest_wait=20.0)
    pauses = [patience.pause(7, attempt, 0.0) for attempt in range(1, 9)]
    assert pauses == [patience.pause(7, attempt, 0.0) for attempt in range(1, 9)]
    assert all(0.5 * 2**n <= pause < 1.5 * 2**n for n, pause in enumerate(pauses[:4]))
    assert pauses[-1] == 20.0  # 128 s is cut
    assert len({patience.pause(key, 1, 0.0) for key in range(20)}) == 20
    assert patience.pause(7, 1, 15.0) == 15.0


# -- not asked again ---------------------------------------------------------------------------------------------------


def error(status: int, message: str, code: str | None = None) -> tuple[int, dict[str, str], str]:
    return status, {}, json.dumps({"error": {"message": message, "code": code}})


FILTERED, REFUSED = completion("", "content_filter"), completion(None, refusal="I cannot help with that.")
TOOLS = completion(None, "tool_calls")
ONE_CALL = {
    "too long": (error(400, "context length"), "status 400: context length. Look at the settings"),
    "filtered request": (error(400, "policy", "content_filter"), "refused by its content filter: policy"),
    "filtered reply": ((200, {}, FILTERED), "stopped the reply by its content filter"),
    "refusal": ((200, {}, REFUSED), "refused: I cannot help with that"),
}
EVERY_CALL = {
    "wrong key": (error(401, "Incorrect API key"), "status 401: Incorrect API key. Check the key"),
    "forbidden": (error(403, "not yours"), "status 403: not yours. Check what the key"),
    "wrong model": ((404, {}, '{"detail": "Not Found"}'), "status 404: Not Found. Check model, and base_url"),
    "empty account": (error(429, "You exceeded your quota.", "insufficient_quota"), "status 429: You exceeded"),
}


@pytest.mark.parametrize("case", ONE_CALL)
def test_failures_of_one_call(case: str, serve: Serve, party: Make) -> None:
    answer, sentence = ONE_CALL[case]
    server = serve(lambda body, number: answer if "bad" in body["messages"][-1]["content"] else None, of_last_message)
    teacher = party(server)
    with pytest.raises(PartyError, match=sentence) as raised:
        teacher.reply([call(1, text="good"), call(2, text="bad"), call(3, text="fine")])
    assert raised.value.episode == 2
    assert [reply.text for reply in teacher.reply([call(1, text="good"), call(3, text="fine")])] == ["good", "fine"]
    assert len(server.requests) == 3, "nothing is asked twice"


@pytest.mark.parametrize("case", EVERY_CALL)
def test_failures_that_every_call_meets_stop_the_run(case: str, serve: Serve, party: Make) -> None:
    answer, sentence = EVERY_CALL[case]
    server = serve(lambda body, number: answer)
    teacher = party(server, max_concurrency=1)
    with pytest.raises(PartyError, match=sentence) as raised:
        teacher.reply([call(episode) for episode in range(5)])
    assert raised.value.episode is None, "a rollout that drops episodes would drop all of them"
    assert len(server.requests) == 1, "the others are not even sent"
    with pytest.raises(PartyError):  # and it is asked anew after the run was mended
        teacher.reply([call(episode) for episode in range(1, 5)])
    assert len(server.requests) == 2


def test_a_hopeless_failure_ends_the_pauses_of_other_calls(serve: Serve, party: Make) -> None:
    server = serve(lambda body, number: "status 500" if number == 0 else error(401, "expired"))
    start = time.monotonic()
    with pytest.raises(PartyError, match="expired"):
        party(server, backoff=30.0, max_concurrency=1).reply([call(0), call(1)])
    assert time.monotonic() - start < 5


def test_a_key_that_the_server_repeats_stays_secret(serve: Serve, party: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHERS_KEY", "sk-very-secret")
    server = serve()
    server.plan = lambda body, number: error(401, f"Incorrect API key: {server.headers[0]['authorization']}")
    with pytest.raises(PartyError, match=r"Incorrect API key: Bearer \*\*\*"):
        party(server, api_key_variable="TEACHERS_KEY").reply([call()])


# -- batches -----------------------------------------------------------------------------------------------------------


def test_dropping_one_episode_after_another_asks_nothing_twice(serve: Serve, party: Make) -> None:
    server = serve(lambda body, number: "status 500" if "odd" in body["messages"][-1]["content"] else None)
    teacher = party(server)
    calls = [call(episode, text=f"{'odd' if episode % 2 else 'even'} {episode}") for episode in range(6)]
    dropped = []
    while True:
        try:
            replies = teacher.reply(calls)
            break
        except PartyError as failed:
            dropped.append(failed.episode)
            calls = [other for other in calls if other.episode != failed.episode]
    assert dropped == [1, 3, 5]
    assert [reply.text.split()[2] for reply in replies] == ["0", "2", "4"]
    assert len(server.requests) == 3 + 2 * 3
    with pytest.raises(PartyError):  # what was given up is asked again when it comes again
        teacher.reply([call(1, text="odd 1")])
    assert len(server.requests) == 11


def test_failures_are_named_in_the_order_of_the_calls_whichever_came_first(serve: Serve, party: Make) -> None:
    def refuse(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], str]:
        time.sleep(0.3 if body["messages"][-1]["content"] == "0" else 0.0)
        return 400, {}, '{"error": {"message": "no"}}'

    teacher = party(serve(refuse))
    with pytest.raises(PartyError) as failed:
        teacher.reply([call(episode, text=str(episode)) for episode in range(3)])
    assert failed.value.episode == 0


def test_the_order_is_kept_and_no_more_than_max_concurrency_are_asked_at_once(serve: Serve, party: Make) -> None:
    def slowly(body: dict[str, Any]) -> str:
        time.sleep(0.02 if body["messages"][-1]["content"] == "0" else 0.005)
        return of_last_message(body)

    server = serve(answer=slowly)
    calls = [call(episode, text=str(episode)) for episode in range(24)]
    replies = party(server, max_concurrency=4).reply(calls)
    assert [reply.text for reply in replies] == [str(episode) for episode in range(24)]
    assert 2 <= server.most <= 4
    assert party(server).reply([]) == []


def test_the_budget_ends_before_the_call(serve: Serve, party: Make, tmp_path: Any) -> None:
    server = serve(lambda body, number: "status 500" if number == 0 else None)
    options = {"max_concurrency": 1, "cache_folder": str(tmp_path)}
    calls = [call(episode) for episode in range(4)]
    with pytest.raises(PartyError, match=r"max_calls \(3\) requests were sent; raise it") as raised:
        party(server, max_calls=3, **options).reply(calls)
    assert raised.value.episode is None and len(server.requests) == 3
    assert len(party(server, **options).reply(calls)) == 4
    kept = 4 - (len(server.requests) - 3)
    assert kept == 2, "of three requests one failed, and two replies were kept"
    with pytest.raises(PartyError, match=r"max_calls \(0\)"):
        party(server, max_calls=0).reply([call()])
    assert len(server.requests) == 5


# -- interrupts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def control_c() -> Iterator[None]:
    """Raises KeyboardInterrupt also where these tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("control_c")
@pytest.mark.parametrize("moment", ["an answer is awaited", "a retry is awaited"])
def test_control_c_ends_it_at_once(moment: str, serve: Serve, party: Make) -> None:
    server = serve(lambda body, number: "is silent" if moment == "an answer is awaited" else "status 500")
    teacher = party(server, timeout=30.0, backoff=30.0)
    server.on_request = lambda: threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    start, threads = time.monotonic(), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        teacher.reply([call()])
    assert time.monotonic() - start < 3
    server.stop()
    assert not [thread for thread in threading.enumerate() if "portal" in thread.name], threads


def test_in_a_running_event_loop_as_in_a_notebook(serve: Serve, party: Make) -> None:
    async def cell() -> str:
        return party(server).reply([call()])[0].text

    server = serve(answer=of_last_message)
    assert asyncio.run(cell()) == "2 + 2 = 5"
