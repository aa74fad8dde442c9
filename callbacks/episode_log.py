"""Every episode of a run on disk, readable after the run was killed, within a fixed number of bytes."""

from pathlib import Path
from typing import Any

import lightning as L

from lit_rl.reporting.episode_log import MAGIC, batch_record
from lit_rl.reporting.run_files import EPISODES, AppendOnlyFile


class EpisodeLog(L.Callback):
    """Appends every batch of rollouts to ``episodes.bin``: arrays of all episodes, text of a sample.

    Read it with `lit_rl.reporting.read_episodes`.  Batches are objects with the tensors of `lit_rl.episodes.Rollouts`;
    text comes from their ``episodes``, and from ``pl_module.policy.tokenizer`` the text of each token.  Rank 0 writes
    its own share.  Checkpoints hold how far the file was; a resumed run cuts it back there and writes the same bytes.

    The file never exceeds ``max_bytes``.  When half is used every 2nd training batch and validation is logged, when
    half of the rest is used every 4th, and so on: late batches are thinned out, not lost.

    Args:
        folder: Where to write; default is the trainer's root folder.
        max_bytes: Bound on the file.
        sample_size: Episodes per logged batch whose text is kept, from as many groups as there are.
        text_every: Keep text of the first and then every n-th training batch; of validations always.
    """

    def __init__(
        self, folder: str | None = None, max_bytes: int = 256 * 2**20, sample_size: int = 4, text_every: int = 1
    ):
        for name, value, least in (
            ("max_bytes", max_bytes, 1024),
            ("sample_size", sample_size, 0),
            ("text_every", text_every, 1),
        ):
            if value < least:
                raise ValueError(f"EpisodeLog: {name} is {value}; it must be at least {least}.")
        self.folder, self.max_bytes, self.sample_size, self.text_every = folder, max_bytes, sample_size, text_every
        self.batches = self.validations = 0
        self._started = False
        self._offset = 0

    def path(self, trainer: L.Trainer) -> Path:
        """The file written to."""
        return Path(self.folder or trainer.default_root_dir) / EPISODES

    @property
    def stride(self) -> int:
        """How many batches pass for one that is logged: doubles whenever half of the remaining bytes are used."""
        stride, left = 1, self.max_bytes - self._offset
        while left * 2 * stride < self.max_bytes and stride < self.max_bytes:
            stride *= 2
        return stride

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Here and not in load_state_dict: validating an old checkpoint must not cut the log of its run.
        if trainer.is_global_zero and not self._started:
            AppendOnlyFile(self.path(trainer)).cut(self._offset)
        self._started = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.batches % self.stride == 0:
            sample_size = self.sample_size if self.batches % self.text_every == 0 else 0
            self._write(trainer, pl_module, batch, "train", sample_size)
        self.batches += 1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validations += 1

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or self.validations % self.stride:
            return
        self._write(trainer, pl_module, batch, getattr(batch, "label", "val"), self.sample_size)

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "validations": self.validations, "offset": self._offset}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches, self.validations = state_dict["batches"], state_dict["validations"]
        self._offset = state_dict["offset"]

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, label: str, samples: int) -> None:
        if not trainer.is_global_zero:
            return
        if getattr(batch, "old_log_probs", None) is None:
            raise ValueError(
                f"EpisodeLog needs batches of rollouts; this one is a {type(batch).__name__} without old_log_probs. "
                "Yield lit_rl.episodes.Rollouts, or leave the callback out."
            )
        record = batch_record(
            batch,
            batch_number=self.batches,
            step=int(trainer.global_step),
            sample_size=samples,
            tokenizer=getattr(getattr(pl_module, "policy", None), "tokenizer", None),
            label=label,
        )
        if self._offset == 0:
            record = MAGIC + record
        if self._offset + len(record) > self.max_bytes:
            return
        file = AppendOnlyFile(self.path(trainer))
        file.append(record)
        self._offset = file.offset
