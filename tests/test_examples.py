"""The examples in docstrings come out as they say."""

import doctest
import importlib
import pkgutil

import pytest

import lit_rl

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(lit_rl.__path__, "lit_rl.") if not module.name.endswith("__main__")
)


def test_all_modules_are_looked_at() -> None:
    assert len(MODULES) > 200 and {"lit_rl.callbacks.held_out", "lit_rl.objectives.gae"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0, f"{found.failed} of {found.attempted} examples of {name}"
