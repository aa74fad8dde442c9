"""What training changed, and whether the teacher's words did it: accuracy by turn before, after and under controls."""

import math
from dataclasses import dataclass
from itertools import pairwise

from lit_rl.reporting import run_config
from lit_rl.reporting.run_data import Condition, RunData, Series, Validation
from lit_rl.reporting.run_files import VALIDATION, VALIDATION_BEFORE

LEADING = "teacher"  # the condition trained for, where there is one of this name
HELD_OUT, FIRST_BATCH = "on held-out problems", "on the first batch of training problems"
EXPLAINED = {
    "teacher": "with its teacher",
    "retry": "a fixed message instead of feedback",
    "shuffled": "feedback about another problem",
    "resample": "no history: independent attempts",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a condition and what was reached under it."""

    name: str
    explanation: str
    accuracy: list[float]
    dialogues: int | None = None
    kind: str = "control"  # "after", "before", "control", "ceiling"

    @property
    def gain(self) -> float | None:
        """What the turns after the first added."""
        return self.accuracy[-1] - self.accuracy[0] if len(self.accuracy) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the last accuracy, if the number of dialogues is known."""
        return wilson(self.accuracy[-1], self.dialogues) if self.dialogues else None


@dataclass(frozen=True, slots=True)
class Reading:
    """An accuracy by turn, and when and on what it was measured."""

    accuracy: list[float]
    when: str
    where: str


@dataclass(frozen=True, slots=True)
class Headline:
    """The numbers to begin with; what is not known is None."""

    after: Reading | None
    before: Reading | None
    control: Row | None  # the best
    ceiling: float | None

    @property
    def turns(self) -> int:
        """``K`` of "within K turns"."""
        return len(self.after.accuracy) if self.after else 0


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``count`` independent dialogues.

    Example:
        >>> [round(bound, 3) for bound in wilson(0.5, 100)]
        [0.404, 0.596]
    """
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def leading_condition(run: RunData) -> str | None:
    """The condition the run is judged by."""
    validated = list(run.validation.conditions) if run.validation else []
    logged = [key.split("/")[1] for key in run.val if key.count("/") == 2 and "accuracy_turn_" in key]
    names = list(dict.fromkeys(validated + logged))
    return LEADING if LEADING in names else names[0] if names else None


def rows(run: RunData, *, greedy: bool) -> list[Row]:
    """Conditions whose tokens were sampled, or those that took the likeliest; the leading one before and after."""
    if run.validation is None:
        return []
    leading, found = leading_condition(run), []
    for name, condition in run.validation.conditions.items():
        if name.endswith("_greedy") != greedy:
            continue
        base = name.removesuffix("_greedy")
        first = _before(run.before, name) if base == leading else None
        if first and len(first.accuracy) == len(condition.accuracy):
            found.append(_row(name, first, "before"))
        found.append(_row(name, condition, "after" if base == leading else "control"))
    return sorted(found, key=lambda row: row.kind == "control")


def _row(name: str, condition: Condition, kind: str) -> Row:
    base = name.removesuffix("_greedy")
    stage = {"before": ", before training", "after": ", after training"}.get(kind, "")
    return Row(base + stage, EXPLAINED.get(base, ""), condition.accuracy, condition.dialogues, kind)


def _before(validation: Validation | None, name: str) -> Condition | None:
    return validation.conditions.get(name) if validation else None


def headline(run: RunData) -> Headline:
    """Accuracy before and after, the best control and the ceiling, from the best source there is for each."""
    name = leading_condition(run)
    after = _after(run, name)
    turns = len(after.accuracy) if after else 0
    controls = [row for row in rows(run, greedy=False) if row.kind == "control" and len(row.accuracy) == turns]
    ceiling = run.validation.ceiling if run.validation else None
    return Headline(
        after=after,
        before=_first(run, name, turns),
        control=max(controls, key=lambda row: row.accuracy[-1], default=None),
        ceiling=ceiling[turns - 1] if ceiling and 0 < turns <= len(ceiling) else None,
    )


def _after(run: RunData, name: str | None) -> Reading | None:
    if run.validation and name in run.validation.conditions:
        return Reading(run.validation.conditions[name].accuracy, _when_validated(run), HELD_OUT)
    if name and (series := run.accuracy(f"val/{name}/")):
        return Reading([s.values[-1] for s in series], f"after {series[0].batches[-1]:,} batches", HELD_OUT)
    if series := run.accuracy("train/"):
        count = min(10, len(series[0].values))
        where = f"on the last {count} batches of training problems" if count > 1 else FIRST_BATCH
        return Reading([_mean_of_last(s, count) for s in series], f"after {run.batches:,} batches", where)
    return None


def _when_validated(run: RunData) -> str:
    version = run.validation.policy_version if run.validation else None
    unfinished = run.batches < (run_config.expected_batches(run.config) or 0)
    if version is None or (version == run.steps and not unfinished):
        return "after training"
    return f"after {version:,} optimizer steps"


def _first(run: RunData, name: str | None, turns: int) -> Reading | None:
    if name and (condition := _before(run.before, name)) and len(condition.accuracy) == turns:
        return Reading(condition.accuracy, "before training", HELD_OUT)
    series = run.accuracy("train/")
    if series and len(series) == turns and series[0].batches[0] == 1 and len(series[0].values) > 1:
        # The first batch is sampled before the first optimizer step.
        return Reading([s.values[0] for s in series], "before training", FIRST_BATCH)
    return None


def _mean_of_last(series: Series, count: int) -> float:
    return sum(series.values[-count:]) / count


def remarks(run: RunData) -> list[str]:
    """What to know before believing the comparison."""
    found = [run.notes[name] for name in (VALIDATION, VALIDATION_BEFORE) if name in run.notes]
    version = run.validation.policy_version if run.validation else None
    if isinstance(version, int) and run.steps and version != run.steps:
        found.append(
            f"The validation is of the policy after {version:,} optimizer steps; training has taken {run.steps:,}."
        )
    for row in rows(run, greedy=False) + rows(run, greedy=True):
        if any(later < earlier for earlier, later in pairwise(row.accuracy)):
            found.append(f"Accuracy within more turns is lower for {row.name}: {VALIDATION} is not as it should be.")
    return found
