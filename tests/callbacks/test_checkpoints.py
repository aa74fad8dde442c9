import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_rl.callbacks import AtomicCheckpointIO, Checkpoints, RunState
from lit_rl.methods import NonFiniteLoss
from lit_rl.policy import LoRA, PolicyConfig
from tests.forking import in_child, kill_on_call
from tests.methods.worlds import TINY, in_ranks, learn, learner, loaded, numbers, rollouts, trainer, weights

GROUPS = ([1, 2, None, 4], [None, 1, 3, 3])


Fit = Callable[..., L.Trainer]


@pytest.fixture
def fit(foreign: Callable[[int], L.LightningModule]) -> Fit:
    """A run of somebody else's module: one optimizer step a batch, validation after every third."""

    def run(folder: Path, callbacks: list[L.Callback], batches: int = 8, ckpt_path: Path | None = None) -> L.Trainer:
        options = {"limit_val_batches": None, "val_check_interval": 3, "callbacks": callbacks}
        running = trainer(folder, **options)
        running.fit(foreign(batches), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
        return running

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- writing whole or not at all ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_kill_in_the_middle_of_a_write_leaves_the_checkpoint_before(where: str, tmp_path: Path) -> None:
    def write_twice() -> None:
        kill_on_call(os, where, 2)
        for number in (1, 2):
            AtomicCheckpointIO().save_checkpoint({"number": torch.full((1000,), number)}, tmp_path / "last.ckpt")

    assert in_child(write_twice, tmp_path / "output.txt") == -9
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["number"][0] == 1
    assert any(name.startswith(".writing-") for name in names(tmp_path))
    assert (tmp_path / "last.ckpt").stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"no": lambda: None}, tmp_path / "last.ckpt")
    assert names(tmp_path) == set()


def test_what_a_killed_run_left_is_removed(tmp_path: Path, fit: Fit) -> None:
    folder = tmp_path / "checkpoints"
    (folder / ".writing-abc.old").mkdir(parents=True)
    (folder / ".writing-def").write_text("half a checkpoint")
    fit(tmp_path, [Checkpoints()])
    assert names(folder) == {"last.ckpt"}


# -- when --------------------------------------------------------------------------------------------------------------


def test_batches_are_counted_whatever_the_number_of_optimizer_steps(tmp_path: Path) -> None:
    """Three steps a batch: intervals in steps would be met by chance."""
    method = learner(epochs_per_batch=3)
    saved: list[tuple[str, int]] = []

    class Noted(Checkpoints):
        def _save(self, trainer: L.Trainer, pl_module: Any, name: str, final: bool = False) -> None:
            saved.append((name, trainer.global_step))
            super()._save(trainer, pl_module, name, final)

    callback = Noted(every_n_batches=4, keep_every_n_batches=2, export=False)
    learn(method, [rollouts(*GROUPS)] * 5, default_root_dir=tmp_path, callbacks=[callback])
    assert saved == [("batch-000002", 6), ("batch-000004", 12), ("last", 12), ("last", 15)]
    assert names(tmp_path / "checkpoints") == {"batch-000002.ckpt", "batch-000004.ckpt", "last.ckpt"}


def test_the_count_goes_on_after_a_resume_and_other_callbacks_come_first(tmp_path: Path, fit: Fit) -> None:
    class Count(L.Callback):
        batches = 0

        def on_train_batch_end(self, *_: Any) -> None:
            self.batches += 1

        def state_dict(self) -> dict[str, Any]:
            return {"batches": self.batches}

    with pytest.raises(KeyError):
        fit(tmp_path, [Checkpoints(every_n_batches=5), Count(), _Raise(KeyError("stop"), at=6)])
    last = tmp_path / "checkpoints/last.ckpt"
    states = torch.load(last, weights_only=True)["callbacks"]
    assert {state["batches"] for state in states.values()} == {5}
    fit(tmp_path, [Checkpoints(every_n_batches=5, keep_every_n_batches=8)], ckpt_path=last)
    assert "batch-000008.ckpt" in names(tmp_path / "checkpoints")


class _Raise(L.Callback):
    """Raises in the training batch with this index, or in validation."""

    def __init__(self, error: BaseException, at: int = 2, validating: bool = False, ranks: tuple[int, ...] = (0, 1)):
        self.error, self.at, self.validating, self.ranks = error, at, validating, ranks

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self.validating and batch_idx == self.at and trainer.global_rank in self.ranks:
            raise self.error

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.validating and not trainer.sanity_checking:
            raise self.error


@pytest.mark.parametrize(("every", "keep"), [(0, 0), (1, -1)])
def test_intervals_out_of_range_are_refused(every: int, keep: int) -> None:
    with pytest.raises(ValueError, match=f"every_n_batches is {every} .* keep_every_n_batches is {keep}"):
        Checkpoints(every_n_batches=every, keep_every_n_batches=keep)


# -- when something goes wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("validating", [False, True])
def test_an_exception_keeps_the_weights_of_the_moment(validating: bool, tmp_path: Path, fit: Fit) -> None:
    with pytest.raises(OSError, match="disk"):
        fit(tmp_path, [Checkpoints(), _Raise(OSError("disk"), at=3, validating=validating)])
    checkpoint = torch.load(tmp_path / "checkpoints/emergency.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3 and checkpoint["state_dict"]["weight"] != 1.0


def test_nothing_is_kept_of_a_run_that_learned_nothing(tmp_path: Path, fit: Fit) -> None:
    with pytest.raises(OSError, match="disk"):
        fit(tmp_path, [Checkpoints(), _Raise(OSError("disk"), at=0)])
    assert not (tmp_path / "checkpoints").exists()


def test_nothing_is_kept_of_a_run_that_could_not_resume(tmp_path: Path, fit: Fit) -> None:
    class Refuses(L.Callback):
        def state_dict(self) -> dict[str, int]:
            return {"a": 1}

        def load_state_dict(self, state_dict: dict[str, int]) -> None:
            raise ValueError("not mine")

    fit(tmp_path, [Checkpoints(), Refuses()], batches=4)
    with pytest.raises(ValueError, match="not mine"):
        fit(tmp_path, [Checkpoints(), Refuses()], ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert names(tmp_path / "checkpoints") == {"last.ckpt"}


def test_a_checkpoint_that_cannot_be_written_does_not_hide_what_happened(tmp_path: Path, fit: Fit) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with (
        pytest.raises(OSError, match="disk is full"),
        pytest.warns(UserWarning, match="emergency.ckpt could not be written"),
    ):
        fit(tmp_path, [Checkpoints(), _Raise(OSError("disk is full"))])


def test_the_last_good_weights_are_kept_when_a_loss_is_not_finite(tmp_path: Path) -> None:
    class Poison(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                batch.rewards[1] = torch.nan

    method = learner("student")
    with pytest.raises(NonFiniteLoss, match=r"episodes \[0, 1, 2, 3\]"):  # the group that NaN standardizes
        learn(method, [rollouts(*GROUPS)] * 4, default_root_dir=tmp_path, callbacks=[Poison(), Checkpoints()])
    kept = torch.load(tmp_path / "checkpoints/emergency.ckpt", weights_only=True)
    assert kept["policy_version"] == 2
    for name, weight in weights(method).items():
        assert torch.equal(kept["state_dict"][f"policy.{name}"], weight) and torch.isfinite(weight).all()
    assert "emergency-policy" in names(tmp_path / "checkpoints")


@pytest.mark.parametrize("everywhere", [True, False])
def test_of_several_ranks_none_waits_for_the_others(everywhere: bool, tmp_path: Path) -> None:
    """What one rank alone has met ends the run at once; what all have met is kept."""

    class Known(OSError):
        on_all_ranks = True

    def check(rank: int) -> None:
        error = Known("wrong") if everywhere else OSError("wrong")
        callbacks = [RunState(), Checkpoints(), _Raise(error, at=2, ranks=(0, 1) if everywhere else (1,))]
        options = {"strategy": "ddp", "devices": 2, "default_root_dir": tmp_path, "callbacks": callbacks}
        with pytest.raises((OSError, RuntimeError)):
            learn(learner(), [rollouts(*GROUPS)] * 4, **options)

    in_ranks(check, tmp_path)
    assert (tmp_path / "checkpoints/emergency.ckpt").exists() == everywhere


# -- what is exported --------------------------------------------------------------------------------------------------


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(6, 24)[None]).logits
    return found


def test_adapters_are_exported_for_peft(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    policy = PolicyConfig(tiny=TINY, adapters={"student": LoRA(rank=2), "critic": LoRA(rank=3)})
    method = loaded(learner(policy=policy))
    learn(method, [rollouts(*GROUPS)] * 2, default_root_dir=tmp_path, callbacks=[Checkpoints(every_n_batches=1)])
    folder = tmp_path / "checkpoints/last-policy"
    assert {"student", "critic"} <= names(folder)
    assert method.policy is not None
    base = AutoModelForCausalLM.from_pretrained(method.policy.path)
    untrained = logits(base)
    student = PeftModel.from_pretrained(base, folder / "student")
    with method.policy.acting_as("student"):
        torch.testing.assert_close(logits(student), logits(method.policy.model))
    assert not torch.allclose(logits(student), untrained)


def test_a_whole_model_is_exported_at_the_end_for_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    method = learner()
    seen = []

    class Look(L.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            seen.append((tmp_path / "checkpoints/last-policy").exists())

    learn(
        method, [rollouts(*GROUPS)] * 3, default_root_dir=tmp_path, callbacks=[Look(), Checkpoints(every_n_batches=1)]
    )
    folder = tmp_path / "checkpoints/last-policy"
    assert seen == [False] * 3 and folder.stat().st_mode & 0o777 == 0o755
    assert method.policy is not None
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(folder)), logits(method.policy.model))
    assert AutoTokenizer.from_pretrained(folder).decode([6]) == "find"
    # A run may start from it.
    again = learner(policy=PolicyConfig(path=str(folder)))
    trainer(limit_train_batches=1).fit(again, datamodule=numbers())


def test_nothing_is_exported_unless_wanted(tmp_path: Path) -> None:
    learn(learner("student"), [rollouts(*GROUPS)], default_root_dir=tmp_path, callbacks=[Checkpoints(export=False)])
    assert names(tmp_path / "checkpoints") == {"last.ckpt"}
