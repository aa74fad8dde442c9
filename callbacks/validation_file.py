"""What a validation found, as a file for the report and a table for whoever waits."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.table import Table

from lit_rl.reporting.run_files import VALIDATION, VALIDATION_BEFORE

_KEY = re.compile(r"(?:val|test)/(?P<condition>\w+)/(?:accuracy_turn_(?P<turn>\d+)|(?P<figure>.+))")


class ValidationFile(L.Callback):
    """After ``trainer.validate`` or ``trainer.test`` writes what was found of every condition, and prints it.

    Reads what was logged as ``val/CONDITION/accuracy_turn_K`` and ``val/CONDITION/FIGURE``, and
    ``datamodule.ceiling()`` where there is one.  A checkpoint's figures go to ``validation.json``, those of the model
    before training to ``validation_before.json``; of a test, ``test.json``.  Rank 0 writes.

    Args:
        folder: Where to write; default is the trainer's root folder.
    """

    def __init__(self, folder: str | None = None):
        self.folder = folder

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            name = VALIDATION_BEFORE if trainer.ckpt_path is None else VALIDATION
            self._write(trainer, pl_module, name)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, pl_module, "test.json")

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule, name: str) -> None:
        conditions = conditions_of({key: float(value) for key, value in trainer.callback_metrics.items()})
        if not conditions or not trainer.is_global_zero:
            return
        ceiling = getattr(getattr(trainer, "datamodule", None), "ceiling", lambda: None)()
        version = int(getattr(pl_module, "policy_version", 0))
        result = {"conditions": conditions, "ceiling": ceiling, "policy_version": version}
        path = Path(self.folder or trainer.default_root_dir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        own_table = getattr(pl_module, "validation_table", None)
        Console().print(table_of(conditions, ceiling) if own_table is None else own_table(conditions))
        Console().print(f"All figures: {path}", highlight=False)


def conditions_of(metrics: dict[str, float]) -> dict[str, dict[str, Any]]:
    """What is known of each condition: ``accuracy`` by turn, from ``val/teacher/accuracy_turn_2`` and the like, and
    further figures, from ``val/teacher/gain``, ``val/answers/listener_match/NAME/0.5`` and the like."""
    found: dict[str, dict[str, Any]] = {}
    turns: dict[str, dict[int, float]] = {}
    for key, value in metrics.items():
        if not (match := _KEY.fullmatch(key)):
            continue
        if match["turn"]:
            turns.setdefault(match["condition"], {})[int(match["turn"])] = value
        else:
            found.setdefault(match["condition"], {})[match["figure"]] = value
    accuracy = {condition: {"accuracy": [by_turn[k] for k in sorted(by_turn)]} for condition, by_turn in turns.items()}
    # Where some are right or wrong, what has no accuracy was not played.
    return {condition: accuracy.get(condition, {}) | found.get(condition, {}) for condition in accuracy or found}


def table_of(conditions: dict[str, dict[str, Any]], ceiling: Any) -> Table:
    """Accuracy by turn under sampled conditions, the ceiling, and greedy conditions apart from both.

    Of more than six turns it shows the first four and the last, so that a terminal holds it.  Where nothing is right or
    wrong, as in worlds and with customers, all figures of each condition.
    """
    rows: dict[str, list[float]] = {
        name: figures["accuracy"] for name, figures in conditions.items() if "accuracy" in figures
    }
    if not rows:
        return _figures_table(conditions)
    turns = max(len(accuracy) for accuracy in rows.values())
    shown = range(turns) if turns <= 6 else (0, 1, 2, 3, turns - 1)
    table = Table(title="Accuracy within k turns on held-out tasks")
    table.add_column("feedback")
    for turn in shown:
        table.add_column(f"acc@{turn + 1}", justify="right")
    greedy = {name: accuracy for name, accuracy in rows.items() if name.endswith("_greedy")}
    for name, accuracy in rows.items():
        if name not in greedy:
            table.add_row(name, *_entries(accuracy, shown))
    if ceiling is not None:
        table.add_row("ceiling", *_entries(ceiling, shown), style="dim")
    if greedy:
        table.add_section()
    for name, accuracy in greedy.items():
        table.add_row(name.removesuffix("_greedy") + ", greedy", *_entries(accuracy, shown))
    return table


def _figures_table(conditions: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Held-out tasks")
    for column in ("", *conditions):
        table.add_column(column, justify="right" if column else "left")
    for figure in dict.fromkeys(name for figures in conditions.values() for name in figures):
        values = [figures.get(figure) for figures in conditions.values()]
        table.add_row(figure, *("" if value is None else f"{value:.3f}" for value in values))
    return table


def _entries(accuracy: Sequence[float], shown: Iterable[int]) -> list[str]:
    """A condition of fewer turns (a task told at once) has empty entries."""
    return [f"{accuracy[turn]:.3f}" if turn < len(accuracy) else "" for turn in shown]
