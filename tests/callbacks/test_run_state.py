import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from lit_rl.callbacks import Checkpoints, RunState
from lit_rl.callbacks.run_state import random_states, set_random_states
from tests.methods.worlds import in_ranks, learner, numbers, trainer, weights


def draw() -> list[float]:
    return [float(torch.rand(())), random.random(), float(np.random.rand()), float(np.random.randn())]


def test_states_of_all_generators() -> None:
    np.random.randn()  # leaves a second number behind
    states = random_states()
    first = draw()
    assert draw() != first
    set_random_states(states)
    assert draw() == first


def test_states_load_without_running_code(tmp_path: Path) -> None:
    torch.save(random_states(), tmp_path / "states")
    first = draw()
    set_random_states(torch.load(tmp_path / "states", weights_only=True))
    assert draw() == first


class Noise(L.Callback):
    """Draws in every batch, trained on or validated."""

    def __init__(self) -> None:
        self.drawn: list[list[float]] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.drawn.append(draw())

    def on_validation_batch_end(self, *_: Any) -> None:
        draw()


class Save(L.Callback):
    def __init__(self, path: Path, at: int):
        self.path, self.at = path, at

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.at:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("isolated", [True, False])
def test_validation_leaves_random_states_alone(
    isolated: bool, tmp_path: Path, run_fit: Callable[..., L.Trainer], foreign: type[L.LightningModule]
) -> None:
    validated, silent = Noise(), Noise()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    run_fit(tmp_path, [validated] + [RunState()] * isolated)
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    trainer = L.Trainer(
        default_root_dir=tmp_path, callbacks=[silent], max_epochs=1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(foreign(8))
    assert (validated.drawn == silent.drawn) == isolated


@pytest.mark.parametrize("at", [3, 4])
def test_a_resumed_run_draws_the_same_numbers(at: int, tmp_path: Path, run_fit: Callable[..., L.Trainer]) -> None:
    """Also from a checkpoint just before a validation (after 3 batches), which the resumed run skips."""
    whole, resumed = Noise(), Noise()
    run_fit(tmp_path, [RunState(), whole, Save(tmp_path / "it.ckpt", at)])
    run_fit(tmp_path, [RunState(), resumed], ckpt_path=tmp_path / "it.ckpt")
    assert resumed.drawn == whole.drawn[at:]


def test_every_rank_gets_its_own_back(tmp_path: Path, run_fit: Callable[..., L.Trainer], foreign: Any) -> None:
    def fit(callbacks: list[L.Callback], batches: int, **options: Any) -> None:
        trainer = L.Trainer(
            default_root_dir=tmp_path, callbacks=callbacks, max_epochs=1, accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
            strategy="ddp", devices=2,
        )  # fmt: skip
        trainer.fit(foreign(batches), **options)

    def check(rank: int) -> None:
        torch.manual_seed(rank), random.seed(rank), np.random.seed(rank)
        whole, resumed = Noise(), Noise()
        fit([RunState(), whole, Save(tmp_path / "it.ckpt", 3)], 6)
        fit([RunState(), resumed], 6, ckpt_path=tmp_path / "it.ckpt", weights_only=True)
        assert resumed.drawn == whole.drawn[3:]
        torch.save(whole.drawn, tmp_path / f"rank{rank}.pt")

    in_ranks(check, tmp_path)
    assert torch.load(tmp_path / "rank0.pt") != torch.load(tmp_path / "rank1.pt")
    with pytest.raises(ValueError, match=r"written by 2 processes and this run has 1; resume with as many"):
        run_fit(tmp_path, [RunState()], ckpt_path=tmp_path / "it.ckpt")
    # To validate it, one process is as good as two.
    trainer = L.Trainer(
        default_root_dir=tmp_path, callbacks=[RunState()], accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.validate(foreign(6), ckpt_path=tmp_path / "it.ckpt", weights_only=True, verbose=False)


def test_a_finished_run_that_is_given_more_epochs_goes_on_with_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIT_RL_CACHE", str(tmp_path / "cache"))

    def fit(folder: str, epochs: int, ckpt_path: Path | None = None) -> Any:
        method = learner(length_cost=0.1)
        running = trainer(tmp_path / folder, max_epochs=epochs, callbacks=[RunState(), Checkpoints()])
        running.fit(method, datamodule=numbers(batches_per_epoch=2), ckpt_path=ckpt_path, weights_only=True)
        return method

    whole = weights(fit("whole", 2))
    fit("halves", 1)
    halves = weights(fit("halves", 2, tmp_path / "halves/checkpoints/last.ckpt"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
