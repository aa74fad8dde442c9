"""The dialogues of ``lit-rl predict`` as JSON lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L

from lit_rl.reporting.run_files import AppendOnlyFile, json_line


class PredictionFile(L.Callback):
    """Appends the records that ``predict_step`` returns to ``predictions.jsonl``, a line each.

    Every rank writes a file of its own, from the second on ``predictions-rank1.jsonl``.  An earlier file is kept as
    ``<name>.previous``.

    Args:
        folder: Where to write; default is the trainer's root folder.
    """

    def __init__(self, folder: str | None = None):
        self.folder = folder

    def path(self, trainer: L.Trainer) -> Path:
        """The file of this rank."""
        suffix = f"-rank{trainer.global_rank}" if trainer.global_rank else ""
        return Path(self.folder or trainer.default_root_dir) / f"predictions{suffix}.jsonl"

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        AppendOnlyFile(self.path(trainer)).cut(0)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Sequence[Mapping[str, Any]],
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        AppendOnlyFile(self.path(trainer)).append(b"".join(json_line(record) for record in outputs))
