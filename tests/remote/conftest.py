"""A faulty server of one's own, and a party that asks it without waiting long."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lit_rl.remote import RemoteParty
from tests.remote.faulty_server import FaultyServer


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def serve() -> Iterator[Callable[..., FaultyServer]]:
    """Starts servers that are stopped after the test."""
    servers: list[FaultyServer] = []

    def start(*args: Any, **options: Any) -> FaultyServer:
        servers.append(FaultyServer(*args, **options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def party() -> Callable[..., RemoteParty]:
    """``party(server, **options)``: two attempts without a pause, half a second for each."""

    def make(server: FaultyServer, **options: Any) -> RemoteParty:
        quick = {"api_key_variable": None, "attempts": 2, "backoff": 0.0, "timeout": 0.5, "name": "teacher"}
        return RemoteParty("tiny", server.url, **quick | options)

    return make
