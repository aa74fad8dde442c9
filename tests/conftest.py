"""For all tests: no network, one thread, and a list of the tests that were left out for being long."""

import os

# Before anything imports transformers, which reads them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import settings

from lit_rl.sandbox import Bubblewrap

torch.set_num_threads(1)
# How long an example takes is the machine's business: it says nothing about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tiny models are built below the tests' own folder, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_RL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning keeps a seed in the environment, where the ranks of a later test would find it."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def bubblewrap() -> Bubblewrap:
    """Skips, with the reason, where namespaces cannot be had."""
    try:
        return Bubblewrap()
    except ValueError as error:
        pytest.skip(f"bubblewrap cannot run here: {error}")


LONG_MARKS = ("slow", "peer", "textworld")
left_out: list[str] = []  # names of tests


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    left_out.extend(item.nodeid for item in items if any(item.get_closest_marker(mark) for mark in LONG_MARKS))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With pytest-xdist: a worker tells what it left out, and all leave out the same."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left out"] = left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    left_out[:] = getattr(node, "workeroutput", {}).get("left out", left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which long tests a selection by mark left out: nothing is skipped in silence."""
    if not (left_out and config.option.markexpr):
        return
    by_file: dict[str, dict[str, None]] = defaultdict(dict)
    for test in left_out:
        file, _, name = test.partition("::")
        by_file[file][name.partition("[")[0]] = None
    terminalreporter.section("left out", sep="-")
    terminalreporter.line(f"{len(left_out)} tests marked {', '.join(LONG_MARKS)} (./scripts/test --all runs them):")
    for file, names in sorted(by_file.items()):
        terminalreporter.line(f"  {file}: {', '.join(names)}")
