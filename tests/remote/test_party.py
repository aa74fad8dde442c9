"""What is asked, what is made of the answer, what is kept, and what is refused before anything is asked."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.environments.base import Reply
from lit_rl.parties import Party, PartyError
from lit_rl.remote import RemoteParty, RemoteSettings
from lit_rl.remote.answers import read_answer
from lit_rl.remote.cache import ReplyCache, digest_of
from tests.forking import in_child, kill_on_call
from tests.remote.calls import call
from tests.remote.faulty_server import FaultyServer, completion

ROOT = Path(__file__).parents[2]
Serve = Callable[..., FaultyServer]
Make = Callable[..., RemoteParty]


# -- requests and answers ----------------------------------------------------------------------------------------------


def test_what_is_sent(serve: Serve, party: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHERS_KEY", "sk-1")
    server = serve()
    settings = RemoteSettings(temperature=0.5, top_p=0.9, max_tokens=7, extra_body={"top_k": 20})
    party(server, api_key_variable="TEACHERS_KEY", settings=settings).reply([call(key=9)])
    (body,) = server.requests
    seed = body.pop("seed")
    assert body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Teach."},
            {"role": "user", "content": "2 + 2 = 3"},
            {"role": "assistant", "content": "higher"},
            {"role": "user", "content": "2 + 2 = 5"},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 7,
        "top_k": 20,
    }
    assert 0 <= seed < 2**31
    assert server.headers[0]["authorization"] == "Bearer sk-1"


def test_the_seed_is_of_the_call_and_values_left_out_are_not_sent(serve: Serve, party: Make) -> None:
    server = serve()
    bare = RemoteSettings(temperature=None, max_tokens=None, send_seed=False)
    for key, settings in ((1, None), (1, None), (2, None), (1, bare)):
        party(server, settings=settings).reply([call(key=key)])
    first, again, other, without = server.requests
    assert first["seed"] == again["seed"] != other["seed"]
    assert set(without) == {"model", "messages"}


def test_without_a_key_none_of_the_user_is_sent(serve: Serve, party: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-this-server")
    server = serve()
    party(server).reply([call()])
    assert "sk-not" not in json.dumps(server.headers)


def test_answers() -> None:
    whole = read_answer(completion("higher"))
    assert whole.reply == Reply(text="higher", stop_reason="end")
    assert (whole.prompt_tokens, whole.completion_tokens) == (5, 2)
    assert read_answer(completion("high", "length")).reply == Reply(text="high", stop_reason="length")
    assert read_answer(completion(None, "length")).reply.text == ""  # all its tokens were hidden reasoning
    silent = read_answer('{"choices": [{"finish_reason": "stop", "message": {"content": ""}}]}')
    assert silent.reply.text == "" and silent.prompt_tokens == 0


def test_tokens_are_counted_as_reported(serve: Serve, party: Make) -> None:
    teacher = party(serve())
    assert isinstance(teacher, Party)
    teacher.reply([call(0), call(1)])
    assert teacher.figures() == {
        **{"calls": 2, "cached": 0, "retries": 0, "failures": 0},
        **{"prompt_tokens": 10, "completion_tokens": 4},
    }


# -- replies that were kept --------------------------------------------------------------------------------------------


def test_a_second_run_is_answered_without_the_server(serve: Serve, party: Make, tmp_path: Path) -> None:
    server = serve()
    calls = [call(episode) for episode in range(5)]
    first = party(server, cache_folder=str(tmp_path / "kept")).reply(calls)
    server.stop()
    again = party(FaultyServer(), cache_folder=str(tmp_path / "kept"))  # the address may have changed
    assert again.reply(calls) == first
    assert again.figures() == {**dict.fromkeys(again.figures(), 0), "cached": 5}


def test_anything_that_a_reply_depends_on_asks_anew(serve: Serve, party: Make, tmp_path: Path) -> None:
    server = serve()
    options = {"cache_folder": str(tmp_path)}
    party(server, **options).reply([call(key=1)])
    party(server, **options).reply([call(episode=8, key=1)])  # equal keys are equal calls
    assert len(server.requests) == 1
    party(server, **options).reply([call(key=2)])
    party(server, **options).reply([call(key=1, text="other words")])
    party(server, settings=RemoteSettings(temperature=0.1), **options).reply([call(key=1)])
    party(server, settings=RemoteSettings(extra_body={"top_k": 2}), **options).reply([call(key=1)])
    RemoteParty("other model", server.url, api_key_variable=None, **options).reply([call(key=1)])
    assert len(server.requests) == 6


def test_what_others_got_is_kept_when_one_call_stops_the_run(serve: Serve, party: Make, tmp_path: Path) -> None:
    server = serve(lambda body, number: "status 500" if body["messages"][-1]["content"] == "1" else None)
    calls = [call(episode, text=str(episode)) for episode in range(4)]
    with pytest.raises(PartyError, match="episode 1"):
        party(server, cache_folder=str(tmp_path)).reply(calls)
    server.plan = lambda body, number: None
    resumed = party(server, cache_folder=str(tmp_path))
    assert len(resumed.reply(calls)) == 4
    assert (resumed.figures()["cached"], resumed.figures()["calls"]) == (3, 1)


@pytest.mark.parametrize(
    "damage", [b"", b'{"request": "ab', b"[]", b'{"request": "other", "text": "", "stop_reason": "end"}']
)
def test_a_damaged_reply_is_ignored_and_asked_again(damage: bytes, serve: Serve, party: Make, tmp_path: Path) -> None:
    server = serve()
    (first,) = party(server, cache_folder=str(tmp_path)).reply([call()])
    (path,) = tmp_path.rglob("*.json")
    path.write_bytes(damage)
    with pytest.warns(UserWarning, match=f"{path.name} is no whole reply"):
        assert party(server, cache_folder=str(tmp_path)).reply([call()]) == [first]
    assert len(server.requests) == 2
    party(server, cache_folder=str(tmp_path)).reply([call()])
    assert len(server.requests) == 2, "it was repaired"


@pytest.mark.parametrize("before", [True, False])
def test_killed_while_writing(before: bool, tmp_path: Path) -> None:
    cache, digest = ReplyCache(tmp_path / "kept"), "ab" * 32

    def child() -> None:
        kill_on_call(os, "link", 1, before=before)
        cache.put(digest, Reply(text="higher", stop_reason="end"))

    assert in_child(child, tmp_path / "output.txt") == -9
    assert cache.get(digest) == (None if before else Reply(text="higher", stop_reason="end"))
    assert cache.put(digest, Reply(text="again", stop_reason="length")).text == ("again" if before else "higher")


def test_the_first_of_two_processes_counts_for_both(tmp_path: Path) -> None:
    ours, theirs = ReplyCache(tmp_path), ReplyCache(tmp_path)
    assert ours.get("ab") is None and theirs.get("ab") is None
    first = ours.put("ab", Reply(text="higher", stop_reason="end"))
    assert theirs.put("ab", Reply(text="lower", stop_reason="end")) == first == ours.get("ab")
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".json"]


def test_two_processes_that_write_at_once_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both, results = context.Barrier(2), context.Queue()

    def keep(name: str) -> None:
        cache = ReplyCache(tmp_path)
        both.wait()
        results.put([cache.put(f"{i % 4}{i}", Reply(text=f"{name} {i}", stop_reason="end")) for i in range(200)])

    processes = [context.Process(target=keep, args=(name,)) for name in ("first", "second")]
    for process in processes:
        process.start()
    one, other = results.get(timeout=20), results.get(timeout=20)
    for process in processes:
        process.join()
    assert one == other == [ReplyCache(tmp_path).get(f"{i % 4}{i}") for i in range(200)]


@given(text=st.text(), stop_reason=st.sampled_from(["end", "length"]))
def test_any_text_comes_back_as_it_was(text: str, stop_reason: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = ReplyCache(tmp_path_factory.getbasetemp() / "any_text")
    reply = Reply(text=text, stop_reason=stop_reason)
    digest = digest_of(stop_reason, RemoteSettings(), call(text=text))
    assert cache.put(digest, reply) == reply == cache.get(digest)


def test_a_cache_that_cannot_be_written_stops_the_run(
    serve: Serve, party: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("disk full")

    teacher = party(serve(), cache_folder=str(tmp_path))
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(PartyError, match="the cache could not keep it .disk full") as raised:
        teacher.reply([call()])
    assert raised.value.episode is None


# -- bad input ---------------------------------------------------------------------------------------------------------


def make(model: str = "m", base_url: str = "http://localhost:1/v1", **options: Any) -> RemoteParty:
    return RemoteParty(model, base_url, **{"api_key_variable": None} | options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": ""}, "model is empty"),
        ({"base_url": "localhost:8000"}, "base_url is 'localhost:8000'; give an address such as"),
        ({"base_url": "http://"}, "base_url is"),
        ({"base_url": "http://localhost:http/v1"}, "base_url is"),
        ({"base_url": "http://localhost/v1?key=1"}, "base_url is"),
        ({"base_url": "http://me:secret@localhost/v1"}, "base_url holds a user or password"),
        ({"base_url": "http://localhost/v1/chat/completions"}, "leave out '/chat/completions'"),
        ({"max_concurrency": 0}, "max_concurrency is 0; it must be at least 1"),
        ({"attempts": 0}, "attempts is 0"),
        ({"backoff": -1.0}, "backoff is -1.0"),
        ({"longest_wait": float("nan")}, "longest_wait is nan"),
        ({"timeout": 0.0}, "timeout is 0.0"),
        ({"max_calls": -1}, "max_calls is -1"),
        ({"cache_folder": "/proc/nowhere"}, "cache_folder '/proc/nowhere' cannot be written to"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(**options)


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="base_url") as raised:
        make(base_url="http://me:secret@localhost/v1")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"extra_body": {"stream": True, "n": 2}}, r"extra_body sets \['n', 'stream'\]"),
        ({"extra_body": {"stop": {1}}}, "extra_body cannot be written as JSON"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        RemoteSettings(**options)


@pytest.mark.parametrize("value", [None, "", "  ", "clé"])
def test_the_variable_of_a_missing_key_is_named(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(ValueError, match="environment variable OPENAI_API_KEY is unset or holds no key"):
        RemoteParty("m", "http://localhost:1/v1")


def test_a_missing_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "lit-rl\[remote\]"'):
        make()


@pytest.mark.slow
def test_the_client_is_imported_by_the_first_request() -> None:
    code = "import sys; from lit_rl.remote import RemoteParty; RemoteParty('m', 'http://localhost:1', "
    code += "api_key_variable=None); print('openai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
