"""How long a run took, and with what."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

LONGEST_WAIT = 120.0  # seconds between batches, sampling and learning aside; longer, the run was not running


@dataclass(frozen=True, slots=True)
class RunTime:
    """Seconds a run took, validation included."""

    seconds: float
    sampling: float  # seconds of it
    learning: float
    paused: float  # seconds in which it did not run, not part of ``seconds``
    sampled_tokens: float  # 0 if not known

    @property
    def summary(self) -> str:
        """What the seconds went into, in a line."""
        parts = ["from the first batch to the last"]
        if self.sampling and self.seconds:
            shares = (f"{100 * part / self.seconds:.0f}%" for part in (self.sampling, self.learning))
            parts = ["{} sampling, {} learning".format(*shares)]
        if self.sampled_tokens >= 1:
            parts.append(f"{amount(self.sampled_tokens)} tokens sampled")
        if self.paused:
            parts.append(f"pauses of {duration(self.paused)} not counted")
        return "; ".join(parts)


def run_time(timings: Sequence[dict[str, Any]]) -> RunTime | None:
    """Add up the lines of ``timings.jsonl``; None if there is none with a clock."""
    lines = [line for line in timings if isinstance(line.get("time/clock"), int | float)]
    if not lines:
        return None
    sampling = [_value(line, "time/sampling_seconds") for line in lines]
    learning = [_value(line, "time/learning_seconds") for line in lines]
    speed = [_value(line, "time/sampling_tokens_per_second") for line in lines]
    seconds, paused = sampling[0] + learning[0], 0.0
    for number, (before, line) in enumerate(pairwise(lines), 1):
        passed = max(0.0, line["time/clock"] - before["time/clock"])
        wait = passed - sampling[number] - learning[number]
        # A validation says no seconds of its own, so its length is no pause.
        pause = wait if wait > LONGEST_WAIT and line["stage"] == "train" else 0.0
        paused += pause
        seconds += passed - pause
    tokens = sum(rate * spent for rate, spent in zip(speed, sampling, strict=True))
    return RunTime(seconds, sum(sampling), sum(learning), paused, tokens)


def _value(line: dict[str, Any], key: str) -> float:
    value = line.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def duration(seconds: float) -> str:
    """Seconds in the two units that matter, as "48 s", "4 min 12 s", "3 h 05 min" or "2 d 4 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def amount(number: float) -> str:
    """A count in three digits: "950", "12.3 k", "4.56 M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{number:.0f}"
