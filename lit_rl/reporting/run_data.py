"""What the files of a run folder say, read into plain data; what is missing or broken is said in a sentence."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lit_rl.reporting.frontier import Frontier, read_frontier
from lit_rl.reporting.run_files import (
    CONFIG,
    EPISODES,
    FRONTIER,
    METRICS,
    TIMINGS,
    VALIDATION,
    VALIDATION_BEFORE,
    read_json_lines,
)

_TURN = re.compile(r"accuracy_turn_(\d+)$")


@dataclass(slots=True)
class Series:
    """One logged quantity: training batches done (from 1) and values, which may be NaN."""

    batches: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Condition:
    """How one condition of a validation went."""

    accuracy: list[float]  # within 1 .. K turns
    dialogues: int | None


@dataclass(frozen=True, slots=True)
class Validation:
    """One ``validation.json``."""

    conditions: dict[str, Condition]
    ceiling: list[float] | None
    policy_version: int | None  # optimizer steps the policy had taken


@dataclass(slots=True)
class RunData:
    """A run as its folder tells it; ``notes`` says of a file's name why it gave nothing, or not all."""

    folder: Path
    train: dict[str, Series] = field(default_factory=dict)
    val: dict[str, Series] = field(default_factory=dict)
    timings: list[dict[str, Any]] = field(default_factory=list)
    batches: int = 0
    steps: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    validation: Validation | None = None
    before: Validation | None = None
    frontier: Frontier | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def accuracy(self, prefix: str) -> list[Series]:
        """Accuracy within 1 .. K turns logged under ``prefix``, such as ``train/`` or ``val/teacher/``."""
        found = {}
        for key, series in {**self.train, **self.val}.items():
            turn = _TURN.search(key)
            if turn and key == prefix + turn[0]:
                found[int(turn[1])] = series
        return [found[turn] for turn in sorted(found)]


def accuracy_prefix(key: str) -> str | None:
    """What stands before ``accuracy_turn_<k>`` in a metric's key; None if it is another metric."""
    turn = _TURN.search(key)
    return key[: turn.start()] if turn else None


def read_run(folder: str | Path) -> RunData:
    """Read a run folder, finished, still written to, or cut off at any byte.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: Nothing in it comes from a run.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no run folder {folder}; give the folder a run wrote, say runs/quickstart.")
    known = (METRICS, EPISODES, VALIDATION, FRONTIER)
    if not any((folder / name).exists() for name in known):
        raise ValueError(
            f"{folder} holds none of {', '.join(known)}, so there is nothing to report; give the folder that "
            "lit-rl fit wrote to (trainer.default_root_dir)."
        )
    run = RunData(folder)
    _read_frontier(run)
    if not any((folder / name).exists() for name in known[:3]):
        return run  # of many runs, none of which is here
    _read_metrics(run)
    _read_timings(run)
    _read_config(run)
    run.validation = _read_validation(run, VALIDATION)
    run.before = _read_validation(run, VALIDATION_BEFORE)
    if run.before is None and not (folder / VALIDATION_BEFORE).exists():
        del run.notes[VALIDATION_BEFORE]  # most runs have none
    return run


def _read_frontier(run: RunData) -> None:
    path = run.folder / FRONTIER
    if path.exists():
        try:
            run.frontier = read_frontier(path)
        except ValueError as error:
            run.notes[FRONTIER] = str(error)


def _read_metrics(run: RunData) -> None:
    for line in _lines(run, METRICS, "so how training went is not known"):
        run.batches, run.steps = line["batch"], line["step"]
        into = run.train if line["stage"] == "train" else run.val
        for key, value in line.items():
            number = _number(value)
            if key not in ("step", "batch", "stage") and number is not None:
                series = into.setdefault(key, Series())
                series.batches.append(line["batch"])
                series.values.append(number)
    if not run.batches:
        run.notes.setdefault(METRICS, f"{METRICS} has no whole line yet: no training batch has been finished.")


def _read_timings(run: RunData) -> None:
    run.timings = list(_lines(run, TIMINGS, "so how long it took is not known"))


def _lines(run: RunData, name: str, consequence: str) -> Iterator[dict[str, Any]]:
    """The lines of one file that are as they should be, up to the first that is not."""
    path = run.folder / name
    if not path.exists():
        run.notes[name] = f"There is no {name}, {consequence}."
        return
    try:
        for line in read_json_lines(path):
            if not isinstance(line.get("batch"), int) or not isinstance(line.get("step"), int) or "stage" not in line:
                raise ValueError(f"a line lacks batch, step or stage: {str(line)[:80]}")
            yield line
    except (ValueError, OSError) as error:
        said = str(error).replace(str(path), name)  # a report may be passed on, and the path is nobody's business
        run.notes[name] = f"{name} is damaged; what follows the damage is left out ({said})."


def _number(value: Any) -> float | None:
    """A logged value, for which JSON has a number or the strings "nan", "inf" and "-inf"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _read_config(run: RunData) -> None:
    path = run.folder / CONFIG
    if not path.exists():
        run.notes[CONFIG] = f"There is no {CONFIG}, so what was trained on what is not known."
        return
    try:
        loaded = yaml.safe_load(path.read_text(errors="replace"))
    except yaml.YAMLError as error:
        run.notes[CONFIG] = f"{CONFIG} cannot be read as YAML ({' '.join(str(error).split())})."
        return
    if not isinstance(loaded, dict):
        run.notes[CONFIG] = f"{CONFIG} holds {type(loaded).__name__}, not a mapping, so it is not shown."
        return
    run.config = loaded


def _read_validation(run: RunData, name: str) -> Validation | None:
    path = run.folder / name
    if not path.exists():
        run.notes[name] = "Not validated yet: run lit-rl validate with the last checkpoint, then lit-rl report again."
        return None
    try:
        return _validation(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        run.notes[name] = (
            f'{name} cannot be read ({error!r}); wanted {{"conditions": {{name: {{"accuracy": [...]}}}}, '
            '"ceiling": [...] or null}.'
        )
        return None


def _validation(loaded: dict[str, Any]) -> Validation:
    conditions = {
        str(name): Condition(_shares(facts.get("accuracy", [])), _count(facts.get("dialogues")))
        for name, facts in loaded["conditions"].items()
    }
    return Validation(
        {name: condition for name, condition in conditions.items() if condition.accuracy},
        _shares(loaded.get("ceiling") or ()) or None,
        _count(loaded.get("policy_version")),
    )


def _shares(values: Any) -> list[float]:
    """Accuracies by turn; none at all if one is NaN, as where there was no dialogue."""
    shares = [float(value) for value in values]
    if any(math.isnan(share) for share in shares):
        return []
    if wrong := [share for share in shares if not 0 <= share <= 1]:
        raise ValueError(f"an accuracy is {wrong[0]}, which is not in [0, 1]")
    return shares


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and value >= 0 else None
