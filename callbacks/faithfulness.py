"""How faithful a policy's reasoning is, measured on whatever is validated."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from lit_rl.metrics.figure import Figure
from lit_rl.metrics.traces import relative_change
from lit_rl.probes.items import probe_items
from lit_rl.probes.measure import FaithfulnessFigures
from lit_rl.probes.replies import Replier
from lit_rl.verification.traces import ThinkTags

_LENGTHS = ("reasoning_tokens", "reply_tokens")


class FaithfulnessProbe(L.Callback):
    """At validation and test lets the policy answer again with its reasoning cut off, given mistakes, or given a hint.

    Takes the speaker's reply of every episode in a batch (``turn.info`` holds ``prompt``, ``gold`` and ``labels``, as
    `lit_rl.datamodules.CompletionDataModule` fills them in) and samples with the module's ``policy``, a
    `lit_rl.policy.Policy`.  Logs each figure of `lit_rl.probes.measure.FaithfulnessFigures` that is defined as
    ``val/faithfulness/NAME``; ``lit-rl validate`` also prints all of them with their intervals and writes
    ``faithfulness.json`` (``faithfulness_before.json`` without a checkpoint, ``faithfulness_test.json`` of a test).

    Exact mistakes and answers to tasks without labels need the task behind a prompt: it is found in the DataModule's
    ``held_out``, a list of ``(source, number)``.

    Args:
        party: The speaker: whose replies are probed, and the adapter that replies again.
        tags: Around its reasoning; None is ``<think>`` and ``</think>``.  A model without think tags can be given what
            its answer begins with as the closing tag, and an empty ``answer_cue``.
        condition: Label of the batches that are probed; None takes that of the first batch.
        max_items: Most replies probed per epoch and rank; None probes all.
        every_n_epochs: While fitting, probe the validation of each n-th epoch; None probes none.
        max_rows: Replies sampled at once.
        folder: Where to write; default is the trainer's root folder.
        baseline: An earlier ``faithfulness.json``; lengths are then also told as the per cent they changed by.
        kwargs: Of `FaithfulnessFigures`: ``grid``, ``mode``, ``unit``, ``answer_cue``, ``corruptor``, ``hints``, ...
    """

    def __init__(
        self,
        party: str = "speaker",
        *,
        tags: ThinkTags | None = None,
        condition: str | None = None,
        max_items: int | None = None,
        every_n_epochs: int | None = None,
        max_rows: int = 256,
        folder: str | None = None,
        baseline: str | None = None,
        **kwargs: Any,
    ):
        for name, value in (("max_items", max_items), ("every_n_epochs", every_n_epochs), ("max_rows", max_rows)):
            if value is not None and value < 1:
                raise ValueError(f"FaithfulnessProbe: {name} is {value}; it must be at least 1.")
        self.party, self.tags, self.condition, self.max_items = party, tags or ThinkTags(), condition, max_items
        self.every_n_epochs, self.max_rows, self.folder = every_n_epochs, max_rows, folder
        self.before = _lengths_of(baseline) if baseline is not None else {}
        self.figures = FaithfulnessFigures(**kwargs)
        self.found: dict[str, Figure] = {}  # of the last epoch
        self._items, self._label = 0, condition
        self._known: dict[str, Any] = {}

    # -- Lightning's hooks -------------------------------------------------------------------------------------

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._wanted(trainer):
            self._open(trainer, pl_module.device)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open(trainer, pl_module.device)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if self._wanted(trainer):
            self._probe(trainer, pl_module, batch)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._probe(trainer, pl_module, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._wanted(trainer):
            self._log(pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log(pl_module, "test")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._write(trainer, "faithfulness_before.json" if trainer.ckpt_path is None else "faithfulness.json")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, "faithfulness_test.json")

    # -- inner workings ----------------------------------------------------------------------------------------

    def _wanted(self, trainer: L.Trainer) -> bool:
        if trainer.state.fn != "fit":
            return True
        every = self.every_n_epochs
        return every is not None and not trainer.sanity_checking and (trainer.current_epoch + 1) % every == 0

    def _open(self, trainer: L.Trainer, device: torch.device) -> None:
        self.figures.to(device).reset()
        self._items, self._label = 0, self.condition
        held_out = getattr(getattr(trainer, "datamodule", None), "held_out", ())
        tasks = [(source, source[number]) for source, number in held_out]
        self._known = {task.prompt: (source, task) for source, task in tasks}

    def _probe(self, trainer: L.Trainer, pl_module: Any, batch: Any) -> None:
        policy, episodes = getattr(pl_module, "policy", None), getattr(batch, "episodes", None)
        if policy is None or episodes is None:
            raise ValueError(
                f"FaithfulnessProbe needs a module with a `policy` and batches with `episodes`; it got a "
                f"{type(pl_module).__name__} and a {type(batch).__name__}."
            )
        self._label = self._label or batch.label
        if batch.label != self._label:
            return
        left = None if self.max_items is None else self.max_items - self._items
        items = probe_items(
            episodes[:left],
            self.party,
            tags=self.tags,
            prefill=policy.chat.prefill.get(self.party, ""),
            known=self._known,
        )
        self._items += len(items)
        self.figures.update(
            items,
            Replier(policy, self.party, self.max_rows),
            instruction=getattr(getattr(trainer, "datamodule", None), "instruction", None),
            greedy=batch.temperature == 0,
        )

    def _log(self, pl_module: L.LightningModule, stage: str) -> None:
        self.found = self.figures.compute()
        values = {name: figure.value for name, figure in self.found.items()} | self._changes()
        for name, value in values.items():
            if not math.isnan(value):
                pl_module.log(f"{stage}/faithfulness/{name}", value, batch_size=1)

    def _changes(self) -> dict[str, float]:
        return {f"{name}_change": relative_change(old, self.found[name].value) for name, old in self.before.items()}

    def _write(self, trainer: L.Trainer, name: str) -> None:
        if not trainer.is_global_zero:
            return
        path = Path(self.folder or trainer.default_root_dir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_plain(self.found, self._changes()), indent=1) + "\n")
        Console().print(table_of(self.found, self._changes()))


def table_of(figures: Mapping[str, Figure], changes: Mapping[str, float]) -> Table:
    """The figures with their intervals, the items they are about and the number left out, or why they are undefined.

    Those of the authors' own scalings and counts are not in it.
    """
    table = Table(title="Faithfulness of reasoning")
    table.add_column("figure", no_wrap=True)
    for column in ("value", "95 % interval", "items", "left out"):
        table.add_column(column, justify="right")
    for name, figure in figures.items():
        if name.endswith(("_released", "_naive")):
            continue
        defined = not math.isnan(figure.value)
        value = _told(figure.value) if defined else "-"
        interval = f"{_told(figure.low)} .. {_told(figure.high)}" if defined else figure.undefined
        table.add_row(name, value, interval, str(figure.used), str(figure.total - figure.used))
    for name, change in changes.items():
        table.add_row(name, f"{change:+.1f} %", "", "", "")
    return table


def _told(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _plain(figures: Mapping[str, Figure], changes: Mapping[str, float]) -> dict[str, Any]:
    """As JSON holds it: NaN is null."""

    def number(value: Any) -> Any:
        return None if isinstance(value, float) and math.isnan(value) else value

    plain: dict[str, Any] = {
        name: {field: number(value) for field, value in figure._asdict().items()} for name, figure in figures.items()
    }
    return plain | {name: {"value": number(change)} for name, change in changes.items()}


def _lengths_of(path: str) -> dict[str, float]:
    """The lengths an earlier file holds."""
    try:
        figures = json.loads(Path(path).read_text())
        return {name: float(figures[name]["value"]) for name in _LENGTHS if figures[name]["value"] is not None}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"FaithfulnessProbe: baseline {path!r} is no faithfulness.json of an earlier run: {error!r}"
        ) from error
