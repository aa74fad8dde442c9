"""Checkpoints of online runs: counted in batches, written whole or not at all, with an export beside them."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to disk, then renames.

    Lightning's own writer is atomic only while ``TMPDIR`` lies on the same file system as the checkpoints.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=target.parent, prefix=".writing-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(scratch, 0o644)  # mkstemp makes it private
            os.replace(scratch, target)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise


class Checkpoints(Checkpoint):
    """Saves ``last.ckpt`` every few batches and at the end, numbered ones now and then, and an export of the policy.

    Lightning's ``ModelCheckpoint(every_n_train_steps=N)`` saves only when the number of optimizer steps is a multiple
    of N at the end of a batch, which may never happen; this one counts batches.  As a ``Checkpoint`` it is called
    after all other callbacks, so their states include the batch just trained on.

    Args:
        every_n_batches: Between two writings of ``last.ckpt``.
        keep_every_n_batches: Also keep ``batch-000123.ckpt`` at these batches; 0 keeps none.
        folder: Default is ``checkpoints`` under the trainer's root folder.
        export: Beside each checkpoint write the policy where other tools can load it (``last-policy/`` beside
            ``last.ckpt``), if the module has an ``export(folder)``.  Whole models, which have no adapters, are written
            at the end of training only.
    """

    def __init__(
        self,
        every_n_batches: int = 50,
        keep_every_n_batches: int = 0,
        folder: str | None = None,
        export: bool = True,
    ):
        if every_n_batches < 1 or keep_every_n_batches < 0:
            raise ValueError(
                f"Checkpoints: every_n_batches is {every_n_batches} (at least 1) and keep_every_n_batches is "
                f"{keep_every_n_batches} (at least 0)."
            )
        self.every_n_batches, self.keep_every_n_batches = every_n_batches, keep_every_n_batches
        self.folder, self.export = folder, export
        self.batches = 0

    def path(self, trainer: L.Trainer) -> Path:
        """The folder written to."""
        return Path(self.folder) if self.folder else Path(trainer.default_root_dir) / "checkpoints"

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.batches += 1
        if self.keep_every_n_batches and self.batches % self.keep_every_n_batches == 0:
            self._save(trainer, pl_module, f"batch-{self.batches:06d}")
        if self.batches % self.every_n_batches == 0:
            self._save(trainer, pl_module, "last")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer, pl_module, "last", final=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep what was learned: ``emergency.ckpt`` holds the last good weights, in the middle of a batch perhaps."""
        if trainer.training and trainer.global_step > 0:
            self._save(trainer, pl_module, "emergency")

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches = state_dict["batches"]

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule, name: str, final: bool = False) -> None:
        folder = self.path(trainer)
        trainer.save_checkpoint(folder / f"{name}.ckpt")
        export = getattr(pl_module, "export", None)
        small = bool(getattr(getattr(pl_module, "policy", None), "parties", ()))
        if self.export and export is not None and (small or final) and trainer.is_global_zero:
            _replace_folder(folder / f"{name}-policy", export)


def _replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder whole, then put it in the place of the old one."""
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
    write(scratch)
    scratch.chmod(0o755)
    if folder.exists():
        shutil.rmtree(folder)
    scratch.rename(folder)
