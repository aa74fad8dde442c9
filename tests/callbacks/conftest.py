"""A project that is not ours: a module and batches that the file-writing callbacks are put to work on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_rl.episodes import Episode, Rollouts, Turn


def make_batch(number: int, label: str = "train", groups: int = 2, size: int = 2) -> Rollouts:
    """Rollouts that are a function of ``number``: two turns of a student, one of a teacher between them."""
    generator = torch.Generator().manual_seed(number)
    episodes = []
    for index in range(groups * size):
        said = torch.randint(5, 50, (3 + index % 2,), generator=generator).tolist()
        log_probs = (-torch.rand(len(said), generator=generator)).tolist()
        turns = [
            Turn(party="student", exchange=0, text="ans 7", prompt_ids=[1, 2, 3], completion_ids=said,
                 log_probs=log_probs, info={"correct": False, "answer": "7"}),
            Turn(party="teacher", exchange=0, text="higher"),
            Turn(party="student", exchange=1, text="ans 9", prompt_ids=[4], completion_ids=[9, 2],
                 log_probs=[-0.5, -0.25], reward=1.0, info={"correct": True, "answer": "9"}),
        ]  # fmt: skip
        episodes.append(
            Episode(index=number * 100 + index, task_id=f"task {index // size}", group=index // size, seed=1,
                    turns=turns, stop_reason="solved", terminated=True)
        )  # fmt: skip
    batch = Rollouts.from_episodes(
        episodes, trained=["student"], parties=["student", "teacher"], label=label, policy_version=number
    )
    batch.advantages = torch.where(batch.loss_mask, torch.linspace(-1, 1, len(batch))[:, None], 0.0)
    return batch


class Stream:
    """Sized and stateful, as Lightning resumes it exactly."""

    def __init__(self, count: int, label: str = "train"):
        self.count, self.label, self.done = count, label, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Rollouts]:
        self.done %= self.count
        while self.done < self.count:
            self.done += 1
            yield make_batch(self.done, self.label)

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]


class Foreign(L.LightningModule):
    """Somebody else's module: automatic optimization, keys of its own."""

    def __init__(self, batches: int, train_stream: Any = None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.batches = batches
        self.stream = train_stream or Stream(batches)

    def training_step(self, batch: Rollouts, batch_idx: int) -> torch.Tensor:
        loss = self.weight * batch.old_log_probs.sum()
        self.log("train/loss", loss.detach(), batch_size=1)
        self.log("time/tokens_per_second", float(torch.rand(())) + batch_idx, batch_size=1)
        if batch_idx % 3 == 0:  # not in every batch
            self.log("train/now_and_then", float(batch_idx), batch_size=1)
        return loss

    def validation_step(self, batch: Rollouts, batch_idx: int) -> None:
        self.log("val/loss", float(self.weight) + batch_idx, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return self.stream

    def val_dataloader(self) -> Any:
        return Stream(2, "teacher")


class SaveAndStop(L.Callback):
    """Writes a checkpoint after one batch and dies after a later one, as a killed run would."""

    def __init__(self, save_at: int, stop_at: int, path: Path):
        self.save_at, self.stop_at, self.path = save_at, stop_at, path

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == self.save_at:
            trainer.save_checkpoint(self.path)
        if trainer.global_step == self.stop_at:
            raise KeyboardInterrupt


def fit(folder: Path, callbacks: list[L.Callback], batches: int = 8, ckpt_path: Path | None = None) -> L.Trainer:
    trainer = L.Trainer(
        default_root_dir=folder, callbacks=callbacks, max_epochs=1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, val_check_interval=3,
    )  # fmt: skip
    trainer.fit(Foreign(batches), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer


@pytest.fixture
def foreign() -> type[Foreign]:
    return Foreign


@pytest.fixture
def batch_of() -> Callable[..., Rollouts]:
    return make_batch


@pytest.fixture
def run_fit() -> Callable[..., L.Trainer]:
    return fit


@pytest.fixture
def killed_and_resumed(tmp_path: Path) -> Callable[[Callable[[], L.Callback]], tuple[Path, Path]]:
    """Two folders: of a run left alone, and of one killed after 7 batches and resumed from a checkpoint after 5."""

    def play(make: Callable[[], L.Callback]) -> tuple[Path, Path]:
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        fit(whole, [make()])
        checkpoint = killed / "five.ckpt"
        with pytest.raises(SystemExit):
            fit(killed, [make(), SaveAndStop(5, 7, checkpoint)])
        for file in killed.glob("*.*l*"):  # torn in the middle of a write
            with open(file, "ab") as log:
                log.write(b"torn")
        fit(killed, [make()], ckpt_path=checkpoint)
        return whole, killed

    return play
