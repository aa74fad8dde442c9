"""Dialogues with a remote teacher: played by a rollout, configured in YAML, and with a real server of the protocol."""

import inspect
import json
import re
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_rl.environments import TEACHER_INSTRUCTION, DidacticDialogue, NumberSearch
from lit_rl.episodes import Episode
from lit_rl.parties import PartyError, PolicyParty
from lit_rl.policy import Policy
from lit_rl.remote import RemoteParty, RemoteSettings
from lit_rl.rollout import Planned, Played, play
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel, materialize
from tests.forking import in_child
from tests.methods.worlds import policy_config
from tests.remote.faulty_server import FaultyServer, completion

ROOT = Path(__file__).parents[2]
Serve = Callable[..., FaultyServer]
Make = Callable[..., RemoteParty]
SOURCE = NumberSearch(9)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(policy_config())


def dialogues(policy: Policy, teacher: Any, count: int = 8, **options: Any) -> Played:
    planned = [
        Planned(environment=DidacticDialogue(SOURCE[i + 1], SOURCE, max_turns=3), index=i, task_id=f"t{i}", group=0)
        for i in range(count)
    ]
    student = PolicyParty(settings=SamplingSettings(max_tokens=3), adapter="student")
    return play(planned, {"student": student, "teacher": teacher}, policy, seed=0, **options)


def words(episodes: list[Episode]) -> list[list[tuple[str, str]]]:
    return [[(turn.party, turn.text) for turn in episode.turns] for episode in episodes]


def advice(body: dict[str, Any]) -> str:
    """Says something else in every request."""
    return completion(f"<feedback> {['higher', 'lower'][body['seed'] % 2]} {body['seed'] % 10} </feedback>")


# -- in a rollout ------------------------------------------------------------------------------------------------------


def test_a_dialogue_hears_the_remote_teacher_and_is_repeated_without_it(
    serve: Serve, party: Make, policy: Policy, tmp_path: Path
) -> None:
    server = serve(lambda body, number: "status 503" if number % 5 == 1 else None, advice)
    first = dialogues(policy, party(server, attempts=9, cache_folder=str(tmp_path)))
    heard = [turn.text for episode in first.episodes for turn in episode.turns if turn.party == "teacher"]
    assert len(heard) >= 8 and all(re.fullmatch(r"<feedback> (higher|lower) \d </feedback>", text) for text in heard)
    briefing = server.requests[0]["messages"][0]
    assert briefing["role"] == "system" and "Known to you alone" in briefing["content"]
    server.stop()
    again = dialogues(policy, party(FaultyServer(), cache_folder=str(tmp_path)))
    assert again.episodes == first.episodes


def test_a_dialogue_whose_teacher_fails_is_dropped_and_counted_or_stops_the_run(
    serve: Serve, party: Make, policy: Policy
) -> None:
    def plan(body: dict[str, Any], number: int) -> str | None:
        return "status 500" if f"answer: {SOURCE[3].gold}" in body["messages"][0]["content"] else None

    server = serve(plan, advice)
    played = dialogues(policy, party(server), on_error="drop")
    (sentence,) = played.dropped
    assert sentence.startswith("Party 'teacher' in episode 2: ") and "given up after 2 attempts" in sentence
    assert [episode.index for episode in played.episodes] == [0, 1, 3, 4, 5, 6, 7]
    with pytest.raises(PartyError, match="episode 2"):
        dialogues(policy, party(server), on_error="stop")


def test_a_failure_that_every_call_meets_is_not_dropped(serve: Serve, party: Make, policy: Policy) -> None:
    server = serve(lambda body, number: (401, {}, '{"error": {"message": "expired"}}'))
    with pytest.raises(PartyError, match="expired"):
        dialogues(policy, party(server), on_error="drop")


# -- in a config -------------------------------------------------------------------------------------------------------


def snippet() -> dict[str, Any]:
    """The config shown in the docstring."""
    shown = (inspect.getdoc(RemoteParty) or "").partition("In a config::")[2]
    block = shown[: re.search(r"^\S", shown.lstrip("\n"), re.MULTILINE).start()]
    config: dict[str, Any] = yaml.safe_load(textwrap.dedent(block))
    return config


def configured(folder: Path, **changes: Any) -> list[str]:
    config = snippet()
    teacher = config["data"]["init_args"]["teacher"]["init_args"]
    teacher |= {"cache_folder": str(folder / "kept")} | changes
    (folder / "teacher.yaml").write_text(yaml.safe_dump(config))
    quickstart = ROOT / "configs/quickstart/number_search.yaml"
    options = [f"--config={quickstart}", f"--config={folder / 'teacher.yaml'}", f"--trainer.default_root_dir={folder}"]
    options += ["--data.init_args.tasks_per_batch=2", "--data.init_args.group_size=2", "--trainer.max_epochs=1"]
    options += ["--data.init_args.batches_per_epoch=2", "--data.init_args.validation_group_size=1"]
    return ["fit", *options, "--trainer.enable_progress_bar=false"]


def fit(folder: Path, arguments: list[str]) -> tuple[int, str]:
    from lit_rl.cli import main

    output = folder / "output.txt"
    return in_child(lambda: sys.exit(main(arguments)), output), output.read_text()


@pytest.mark.slow
def test_the_config_of_the_docstring_trains(serve: Serve, tmp_path: Path) -> None:
    import lit_rl.lightning_cli  # noqa: F401  # before the fork

    server = serve(lambda body, number: "status 503" if number == 2 else None, advice)
    arguments = configured(tmp_path, base_url=server.url, backoff=0.01)
    code, text = fit(tmp_path, [*arguments, "--print_config"])
    assert code == 0, text[-3000:]
    assert yaml.safe_load(text)["data"]["init_args"]["teacher"]["init_args"]["settings"]["max_tokens"] == 512
    code, text = fit(tmp_path, arguments)
    assert code == 0, text[-3000:]
    assert len(server.requests) > 20
    metrics, episodes = ((tmp_path / name).read_bytes() for name in ("metrics.jsonl", "episodes.bin"))

    server.stop()
    (tmp_path / "again").mkdir()
    arguments = configured(tmp_path / "again", cache_folder=str(tmp_path / "kept"))
    code, text = fit(tmp_path / "again", arguments)
    assert code == 0, text[-3000:]
    assert (tmp_path / "again/metrics.jsonl").read_bytes() == metrics
    assert (tmp_path / "again/episodes.bin").read_bytes() == episodes


@pytest.mark.slow
def test_mistakes_in_a_config_are_said_in_a_sentence(tmp_path: Path) -> None:
    import lit_rl.lightning_cli  # noqa: F401  # before the fork

    for change, sentence in (
        ({"attempts": 0}, "RemoteParty.attempts is 0; it must be at least 1"),
        ({"api_key_variable": "NO_SUCH_KEY"}, "the environment variable NO_SUCH_KEY is unset"),
        ({"settings": {"top_p": 2.0}}, "RemoteSettings.top_p is 2.0"),
    ):
        code, text = fit(tmp_path, configured(tmp_path, **change))
        assert code != 0 and sentence in text, text[-3000:]
        assert "Traceback" not in text


# -- with a real server ------------------------------------------------------------------------------------------------


@pytest.fixture
def real_server(tmp_path: Path) -> Iterator[tuple[Path, str, subprocess.Popen[bytes]]]:
    """A model folder, and ``transformers serve`` of it on loopback."""
    words = sorted(set(re.findall(r"\w+|[^\w\s]+", f"{TEACHER_INSTRUCTION} n in ans higher lower answer : hint")))
    folder = materialize(TinyModel(words=words, numbers=10, hidden_size=32, layers=1, heads=2, max_length=1024))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--device", "cpu"]
    with (tmp_path / "server.txt").open("wb") as output:
        server = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stdout=output, stderr=output)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server, tmp_path / "server.txt")
            yield folder, f"http://127.0.0.1:{port}/v1", server
        finally:
            server.kill()
            server.wait()


def wait_for(address: str, server: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                assert json.load(answer) == {"status": "ok"}
                return
        except urllib.error.URLError:
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not start: {output.read_text()[-3000:]}")


@pytest.mark.slow
def test_dialogues_with_a_real_server_and_then_without_it(
    real_server: tuple[Path, str, subprocess.Popen[bytes]], serve: Serve, party: Make, policy: Policy, tmp_path: Path
) -> None:
    folder, address, process = real_server
    faults = {1: "status 429 with Retry-After", 2: "disconnects", 3: "malformed JSON", 5: "status 500"}
    proxy = serve(lambda body, number: faults.get(number), address)
    options: dict[str, Any] = {"api_key_variable": None, "backoff": 0.01, "settings": RemoteSettings(max_tokens=12)}
    options["cache_folder"] = str(tmp_path / "kept")
    teacher = RemoteParty(str(folder), proxy.url, **options)
    first = dialogues(policy, teacher)
    figures = teacher.figures()
    assert figures["retries"] == len(faults) and figures["failures"] == 0
    answered = figures["calls"] - len(faults)
    assert 0 < figures["completion_tokens"] <= 12 * answered < figures["prompt_tokens"]
    said = [turn for episode in first.episodes for turn in episode.turns if turn.party == "teacher"]
    assert len(said) == answered and any(turn.text.strip() for turn in said)

    with pytest.raises(PartyError, match="status 400: Server is pinned to .*; requested 'another'"):
        dialogues(policy, RemoteParty("another", proxy.url, **options))

    process.terminate()
    process.wait()
    proxy.stop()
    offline = RemoteParty(str(folder), address, **options)
    assert dialogues(policy, offline).episodes == first.episodes
    assert offline.figures()["cached"] == answered and offline.figures()["calls"] == 0
