"""A policy of a few thousand weights on NumberSearch, attached to DataModules without a Trainer."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest

from lit_rl.policy import Policy, PolicyConfig
from lit_rl.tiny import TinyModel

WORDS = ["find", "n", "in", "ans", "higher", "lower", "please", "answer", "or", "ask", "seven", "is"]
WORDS += ["That", "not", "correct", ".", "Please", "try", "again"]


@pytest.fixture(scope="session")
def policy() -> Policy:
    tiny = TinyModel(words=WORDS, numbers=15, hidden_size=16, layers=1, heads=2, max_length=128)
    return Policy(PolicyConfig(tiny=tiny, prefill={"student": "ans "}))


@pytest.fixture
def attach(policy: Policy) -> Callable[..., L.LightningDataModule]:
    """Gives a DataModule the trainer it would have in ``fit`` (or another function)."""

    def attach(data: L.LightningDataModule, function: str = "fit", **module: Any) -> L.LightningDataModule:
        module = {"policy": policy, "policy_version": 0, "needs_reference": False, "micro_batch_tokens": 4096} | module
        data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(**module), state=SimpleNamespace(fn=function))
        return data

    return attach
