"""Sums over held-out batches and ranks, logged as means by condition."""

from types import SimpleNamespace
from typing import Any

import pytest

from lit_rl.callbacks import held_out
from lit_rl.callbacks.held_out import HeldOutSums
from lit_rl.listeners.figures import Sums


class Shares(HeldOutSums):
    """A batch is its label and its sums."""

    def held_out_sums(self, trainer: Any, pl_module: Any, batch: Any) -> Sums:
        return dict(batch.sums)


def test_sums_of_batches_and_ranks_are_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rank has two items of "answers" that count nothing, and alone has "other"."""
    elsewhere: dict[str, Sums] = {"answers": {"share": (0.0, 2.0)}, "other": {"share": (1.0, 1.0)}}
    monkeypatch.setattr(held_out, "gather_objects", lambda mine: [dict(mine), elsewhere])
    callback, logged = Shares(), {}
    module: Any = SimpleNamespace(log=lambda name, value, **_: logged.update({name: value}))
    for sums in ({"share": (1.0, 1.0)}, {"share": (1.0, 1.0), "rare": (3.0, 4.0), "never": (0.0, 0.0)}):
        callback.on_validation_batch_start(None, module, SimpleNamespace(label="answers", sums=sums), 0)
    callback.on_validation_epoch_end(None, module)
    assert logged == {"val/answers/share": 0.5, "val/answers/rare": 0.75, "val/other/share": 1.0}
    logged.clear()
    monkeypatch.setattr(held_out, "gather_objects", lambda mine: [dict(mine)])
    callback.on_test_epoch_start(None, module)
    callback.on_test_batch_start(None, module, SimpleNamespace(sums={"share": (1.0, 4.0)}), 0)
    callback.on_test_epoch_end(None, module)
    assert logged == {"test/share": 0.25}, "a batch without a label has no condition, and nothing is left of before"
