"""Checkpoints of online runs: counted in batches, written whole or not at all, with an export beside them."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from lit_rl.distributed import is_distributed

_SCRATCH = ".writing-"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to disk, then renames; for Trainer and Fabric (``plugins=``).

    Lightning's own writer is atomic only while ``TMPDIR`` lies on the same file system as the checkpoints.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=target.parent, prefix=_SCRATCH)
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

    When training raises, ``emergency.ckpt`` keeps the last good weights.  In a run of several processes that needs all
    of them, so there it is written only for exceptions with a true attribute ``on_all_ranks`` (as `NonFiniteLoss`).

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
        self._training = False  # since everything was restored and until the last checkpoint is written

    def path(self, trainer: L.Trainer) -> Path:
        """The folder written to."""
        return Path(self.folder) if self.folder else Path(trainer.default_root_dir) / "checkpoints"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._training = True
        if trainer.is_global_zero:
            _remove_scratch(self.path(trainer))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.batches += 1
        if self.keep_every_n_batches and self.batches % self.keep_every_n_batches == 0:
            self._save(trainer, pl_module, f"batch-{self.batches:06d}")
        if self.batches % self.every_n_batches == 0:
            self._save(trainer, pl_module, "last")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer, pl_module, "last", final=True)
        self._training = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep what was learned: the weights after the last optimizer step, in the middle of a batch perhaps."""
        if not self._training or trainer.global_step == 0:
            return
        self._training = False
        if is_distributed() and not getattr(exception, "on_all_ranks", False):
            return  # the others are elsewhere, and saving would wait for them for ever
        try:
            self._save(trainer, pl_module, "emergency")
        except Exception as error:  # the disk may be what is wrong: let the first error be seen
            warnings.warn(f"emergency.ckpt could not be written: {error!r}", stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches = state_dict["batches"]

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule, name: str, final: bool = False) -> None:
        folder = self.path(trainer)
        trainer.save_checkpoint(folder / f"{name}.ckpt", weights_only=False)
        export = getattr(pl_module, "export", None)
        small = bool(getattr(getattr(pl_module, "policy", None), "parties", ()))
        if self.export and export is not None and (small or final) and trainer.is_global_zero:
            _replace_folder(folder / f"{name}-policy", export)


def _replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder whole, then put it in the place of the old one."""
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_SCRATCH))
    try:
        write(scratch)
        scratch.chmod(0o755)
        if folder.exists():
            # No folder can be replaced in one step; two renames leave the shortest gap.
            folder.rename(scratch.with_name(f"{scratch.name}.old"))
        scratch.rename(folder)
    finally:
        for leftover in (scratch, scratch.with_name(f"{scratch.name}.old")):
            shutil.rmtree(leftover, ignore_errors=True)


def _remove_scratch(folder: Path) -> None:
    """Of a run that was killed while it wrote."""
    for leftover in folder.glob(f"{_SCRATCH}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
