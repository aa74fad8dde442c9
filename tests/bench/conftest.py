"""Tiny models are built below the tests' own folder."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("LIT_RL_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
