"""What a run measured, as lines of JSON that a killed and resumed run repeats to the byte."""

import time
from pathlib import Path
from typing import Any

import lightning as L

from lit_rl.reporting.run_files import METRICS, TIMINGS, AppendOnlyFile, json_line, offset_of_line

_EVALUATION = ("val/", "val_", "test/", "test_")


class MetricsFile(L.Callback):
    """Appends ``trainer.callback_metrics`` to ``metrics.jsonl`` after every training batch and every validation.

    A line is ``{"step", "batch", "stage", ...}``: optimizer steps, training batches, "train" or "val", and the
    quantities of that stage, told apart by a key's beginning (``val/`` or ``val_`` is validation, all else training).
    Keys that begin with ``time/`` differ from run to run and go to ``timings.jsonl``, with the clock (``time/clock``,
    seconds since 1970).  Rank 0 writes.  Checkpoints hold how far the files were; a resumed run cuts them back there.

    Args:
        folder: Where to write; default is the trainer's root folder.
    """

    def __init__(self, folder: str | None = None):
        self.folder = folder
        self.batches = 0
        self._started = False
        self._offset = 0
        self._timing_lines = 0
        self._last: dict[str, float] = {}

    def path(self, trainer: L.Trainer) -> Path:
        """The folder written to."""
        return Path(self.folder or trainer.default_root_dir)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Here and not in load_state_dict: validating an old checkpoint must not cut the files of its run.
        if trainer.is_global_zero and not self._started:
            folder = self.path(trainer)
            AppendOnlyFile(folder / METRICS).cut(self._offset)
            timings = folder / TIMINGS
            AppendOnlyFile(timings).cut(offset_of_line(timings, self._timing_lines))
        self._started = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.batches += 1
        self._write(trainer, "train")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._write(trainer, "val")

    def state_dict(self) -> dict[str, Any]:
        return {
            "batches": self.batches,
            "offset": self._offset,
            "timing_lines": self._timing_lines,
            "last": dict(self._last),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches, self._offset = state_dict["batches"], state_dict["offset"]
        self._timing_lines, self._last = state_dict["timing_lines"], dict(state_dict["last"])

    def _write(self, trainer: L.Trainer, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name != "step"}
        # Lightning repeats the last value of what a batch did not log, but forgets it on resume: so we remember.
        self._last |= {name: value for name, value in values.items() if not name.startswith("time/")}
        lasting = {k: v for k, v in sorted(self._last.items()) if k.startswith(_EVALUATION) == (stage == "val")}
        timed = {k: v for k, v in sorted(values.items()) if k.startswith("time/") and stage == "train"}
        head = {"step": int(trainer.global_step), "batch": self.batches, "stage": stage}
        metrics = AppendOnlyFile(self.path(trainer) / METRICS)
        metrics.append(json_line({**head, **lasting}))
        self._offset = metrics.offset
        AppendOnlyFile(self.path(trainer) / TIMINGS).append(json_line({**head, **timed, "time/clock": time.time()}))
        self._timing_lines += 1
