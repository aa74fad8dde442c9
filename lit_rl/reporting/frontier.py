"""Quality against diversity: the sweeps of several methods as lines to draw, and what they reach at equal quality.

``frontier.json`` holds numbers that are means over seeds with 95 % half-widths, ``{"mean", "half_width"}`` (null of a
single seed)::

    {"title": ..., "quality": what the horizontal axis says, "entropy": what the vertical one says,
     "methods": {NAME: {"points": [{"strength": ..., "quality": NUMBER, "entropy": NUMBER, MORE: NUMBER}, ...],
                        "bound": [[quality, entropy], ...]}},
     "start": {"quality": NUMBER, "entropy": NUMBER},
     "at_quality": [{"quality": ..., "entropy": {NAME: NUMBER or null}}]}

Each method has the same further figures in all its points; ``bound`` (what no policy of its kind exceeds), ``start``
(before training) and ``at_quality`` may be left out.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_rl.reporting.run_files import FRONTIER

_AXES = ("quality", "entropy")


@dataclass(frozen=True, slots=True)
class Number:
    """A mean over seeds, and half of its 95 % interval where there are several."""

    mean: float
    half_width: float | None = None

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.half_width is None else f" ± {self.half_width:.3f}")


@dataclass(frozen=True, slots=True)
class Point:
    """One strength of a method."""

    strength: str
    figures: dict[str, Number]  # quality, entropy and others


@dataclass(frozen=True, slots=True)
class Sweep:
    """All strengths of one method, from the lowest quality to the highest."""

    name: str
    points: list[Point]
    bound: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Frontier:
    """One ``frontier.json``."""

    title: str
    axes: dict[str, str]
    sweeps: list[Sweep]
    start: dict[str, Number] | None = None
    at_quality: list[tuple[float, dict[str, Number | None]]] = field(default_factory=list)

    @property
    def further(self) -> list[str]:
        """Names of the figures that are on no axis."""
        names = (name for sweep in self.sweeps for point in sweep.points for name in point.figures)
        return [name for name in dict.fromkeys(names) if name not in _AXES]


def read_frontier(path: Path) -> Frontier:
    """Read a ``frontier.json``.

    Raises:
        ValueError: It is not as it should be; the sentence says what is wrong and names no folder.
    """
    try:
        loaded = json.loads(path.read_text())
        sweeps = [_sweep(str(name), method) for name, method in loaded["methods"].items()]
        start = _figures(loaded["start"]) if loaded.get("start") else None
        levels = [(_finite(level["quality"]), _entropies(level["entropy"])) for level in loaded.get("at_quality", [])]
        axes = {name: str(loaded[name]) for name in _AXES}
        frontier = Frontier(str(loaded["title"]), axes, sweeps, start, levels)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{FRONTIER} cannot be read ({error!r}); lit_rl.reporting.frontier says what it holds."
        ) from error
    if not any(sweep.points for sweep in sweeps):
        raise ValueError(f"{FRONTIER} has no point of any method, so there is nothing to draw.")
    return frontier


def chart(frontier: Frontier) -> dict[str, Any]:
    """The picture as plain data for the page: a point is ``[x, half-width or null, y, half-width or null, words]``."""
    return {
        "axes": frontier.axes,
        "sweeps": [
            {"name": sweep.name, "points": [_drawn(sweep.name, point) for point in sweep.points], "bound": sweep.bound}
            for sweep in frontier.sweeps
        ],
    }


def _drawn(name: str, point: Point) -> list[Any]:
    quality, entropy = (point.figures[axis] for axis in _AXES)
    words = ", ".join(f"{what.replace('_', ' ')} {number}" for what, number in point.figures.items())
    return [quality.mean, quality.half_width, entropy.mean, entropy.half_width, f"{name}, {point.strength}: {words}"]


def _sweep(name: str, method: Mapping[str, Any]) -> Sweep:
    points = [Point(str(point["strength"]), _figures(point)) for point in method["points"]]
    bound = [(_finite(quality), _finite(entropy)) for quality, entropy in method.get("bound", [])]
    return Sweep(name, sorted(points, key=lambda point: point.figures["quality"].mean), sorted(bound))


def _figures(point: Mapping[str, Any]) -> dict[str, Number]:
    first = {name: point[name] for name in _AXES}
    return {name: _number(value) for name, value in {**first, **point}.items() if name != "strength"}


def _entropies(found: Mapping[str, Any]) -> dict[str, Number | None]:
    return {str(name): None if value is None else _number(value) for name, value in found.items()}


def _number(value: Mapping[str, Any]) -> Number:
    half = value["half_width"]
    return Number(_finite(value["mean"]), None if half is None else _finite(half))


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
