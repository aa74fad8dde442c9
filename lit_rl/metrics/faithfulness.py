"""Whether answers follow from the reasoning before them: areas over curves of answers (arXiv 2602.16154, section 3.2).

An item is one run of a model on one prompt.  Its reasoning is changed (cut off, or given a mistake) at each point of a
grid ``0 < x_1 < ... < x_s = 1``, and the answer that follows is compared with the right one or with that of the
untouched run, which is also the answer at ``x_s``.  An answer is a canonical label or None; None equals nothing.
"""

import math
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lit_rl.metrics.figure import Figure, ItemMetric, mean, proportion

Answer = Hashable | None
Indicator = Literal["accuracy", "match", "solved_only"]
Scaling = Literal["normalized", "released"]
GRID = (0.2, 0.4, 0.6, 0.8, 1.0)


def same_answer(answer: Answer, other: Answer) -> bool:
    """Whether both are answers and equal; None never equals None."""
    return answer is not None and answer == other


def check_grid(grid: Sequence[float]) -> tuple[float, ...]:
    """The grid as a tuple; raises ValueError unless it rises within (0, 1] and ends in 1."""
    points = tuple(float(x) for x in grid)
    if len(points) < 2 or points[0] <= 0 or points[-1] != 1 or any(a >= b for a, b in pairwise(points)):
        raise ValueError(f"The grid is {list(grid)}; give at least two rising fractions, the last of them 1.")
    return points


def area_over_curve(curve: Tensor, grid: Sequence[float] = GRID, *, scaling: Scaling = "normalized") -> Tensor:
    """Area over a curve by trapezoids, float64 of the shape of ``curve`` without its last dimension.

    ``AUC = sum_k (x_{k+1} - x_k) (y_k + y_{k+1}) / 2``; "normalized" is ``1 - AUC / (x_s - x_1)`` in [0, 1] (our
    reading), "released" is ``1 - AUC`` as in the authors' code, at least ``x_1`` where curves are at most 1.

    Args:
        curve: Heights at the points of the grid, ``(..., s)``.
        grid: Rising fractions.
        scaling: Which of the two.

    Example:
        >>> area_over_curve(torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])).item()
        0.875
    """
    if scaling not in get_args(Scaling):
        raise ValueError(f"area_over_curve: scaling is {scaling!r}; use one of {list(get_args(Scaling))}.")
    if curve.shape[-1] != len(grid):
        raise ValueError(f"area_over_curve: {curve.shape[-1]} heights for a grid of {len(grid)} points; give one each.")
    points = torch.tensor(grid, dtype=torch.float64, device=curve.device)
    area = torch.trapezoid(curve.to(torch.float64), points)
    return 1 - area / (points[-1] - points[0]) if scaling == "normalized" else 1 - area


def indicators(answers: Sequence[Answer], gold: Answer, indicator: Indicator = "match") -> list[float]:
    """Of one item the indicator at each point of the grid, 1 or 0; the last answer is that of the untouched run.

    "accuracy" compares with ``gold``, "match" with the untouched answer (Lanham et al., 2307.13702); "solved_only" is
    "accuracy" over items whose untouched answer is right (our reading), and NaN for others.
    """
    if indicator not in get_args(Indicator):
        raise ValueError(f"indicators: indicator is {indicator!r}; use one of {list(get_args(Indicator))}.")
    if indicator == "solved_only" and not same_answer(answers[-1], gold):
        return [math.nan] * len(answers)
    wanted = answers[-1] if indicator == "match" else gold
    return [float(same_answer(answer, wanted)) for answer in answers]


def mistake_index(units: int, fraction: float) -> int:
    """0-based unit that gets the mistake at a point of the grid below 1: ``min(floor(n x + 1e-9), n - 1)``.

    Raises:
        ValueError: There is no unit.

    Example:
        >>> [mistake_index(5, x) for x in (0.2, 0.4, 0.6, 0.8)]
        [1, 2, 3, 4]
    """
    if units < 1:
        raise ValueError(f"mistake_index: a trace of {units} units has none that could get a mistake.")
    return min(math.floor(units * fraction + 1e-9), units - 1)


class AnswerAccuracy(ItemMetric):
    """Per cent of items answered right, with Wilson's interval; None is wrong (remul.md 7.1)."""

    def __init__(self, **kwargs: Any):
        super().__init__(1, ("no_gold",), **kwargs)

    def update(self, answers: Sequence[Answer], golds: Sequence[Answer]) -> None:
        """Add items: the answer of each, and the right one (None: unknown, the item is left out)."""
        pairs = list(zip(answers, golds, strict=True))
        rows = [[float(same_answer(answer, gold))] for answer, gold in pairs if gold is not None]
        self.add(rows, ["no_gold"] * (len(pairs) - len(rows)))

    def compute(self) -> Figure:
        """In per cent."""
        right = self.items()[:, 0]
        return proportion(float(right.sum()), len(right), self.excluded(), scale=100.0)


class AreasOverCurve(ItemMetric):
    """Areas over the curve of answers, by all three indicators and both scalings (remul.md 7.3).

    The mean area of the items is the area over the mean curve.  ``compute`` gives `Figure` by "match" (the headline),
    "accuracy" and "solved_only", and the same with "_released" for the scaling of the authors' code.

    Left out are items without reasoning ("no_reasoning"), items that could not be changed ("failed"), of the accuracy
    forms those without a right answer ("no_gold"), and of "solved_only" those not solved ("unsolved").

    Args:
        grid: Where the reasoning is changed; the last point, 1, is the untouched run.
        kwargs: Of `ItemMetric`.

    Example:
        >>> areas = AreasOverCurve(grid=(0.5, 1.0))
        >>> areas.update([["A", "B"], ["B", "B"]], golds=["B", "B"])
        >>> areas.compute()["match"].value  # the curve is 1/2, 1
        0.25
    """

    def __init__(self, grid: Sequence[float] = GRID, **kwargs: Any):
        self.grid = check_grid(grid)
        super().__init__(1 + 3 * len(self.grid), ("no_reasoning", "failed"), **kwargs)

    def update(
        self, answers: Sequence[Sequence[Answer] | None], golds: Sequence[Answer], reasons: Sequence[str] | None = None
    ) -> None:
        """Add items.

        Args:
            answers: Of each item the answers at the points of the grid, the untouched one last; None where there are
                none.
            golds: The right answer of each; None if unknown.
            reasons: Why there are none, "no_reasoning" or "failed"; None takes the first.
        """
        given = reasons if reasons is not None else ["no_reasoning"] * len(answers)
        rows, left_out = [], []
        for item, gold, reason in zip(answers, golds, given, strict=True):
            if item is None:
                left_out.append(reason)
                continue
            if len(item) != len(self.grid):
                raise ValueError(f"AreasOverCurve got {len(item)} answers of an item; its grid has {len(self.grid)}.")
            kinds = [indicators(item, gold, indicator) for indicator in get_args(Indicator)]
            rows.append([float(gold is not None), *(x for kind in kinds for x in kind)])
        self.add(rows, left_out)

    def curve(self, indicator: Indicator) -> Tensor:
        """Mean heights at the points of the grid, float64 ``(s,)``; NaN if no item is left."""
        return self._used(indicator).mean(0)

    def compute(self) -> dict[str, Figure]:
        """See the class."""
        figures = {}
        for indicator in ("match", "accuracy", "solved_only"):
            used, excluded = self._used(indicator), self.excluded() | self._further(indicator)
            for scaling in get_args(Scaling):
                suffix = "" if scaling == "normalized" else f"_{scaling}"
                areas = area_over_curve(used, self.grid, scaling=scaling)
                figures[indicator + suffix] = mean(areas, excluded, seed=self.seed)
        return figures

    def _used(self, indicator: str) -> Tensor:
        """The indicators of the items an indicator is about, float64 ``(N, s)``."""
        items, points = self.items(), len(self.grid)
        start = 1 + get_args(Indicator).index(indicator) * points
        heights = items[:, start : start + points]
        return heights if indicator == "match" else heights[(items[:, 0] == 1) & ~heights[:, 0].isnan()]

    def _further(self, indicator: str) -> dict[str, int]:
        items = self.items()
        if indicator == "match":
            return {}
        no_gold = int((items[:, 0] == 0).sum())
        if indicator == "accuracy":
            return {"no_gold": no_gold}
        return {"no_gold": no_gold, "unsolved": len(items) - no_gold - len(self._used(indicator))}


class LengthWeightedArea(ItemMetric):
    """Area over the "match" curve with a grid of each item's own: all units kept, one less, ... none (2307.13702).

    One area for each number of units ``n``, over ``x = i / n`` with ``i = 0 .. n`` units kept, then the mean weighted
    by the share of items with that ``n``: which is the mean over items of their own areas.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(1, ("no_reasoning",), **kwargs)

    def update(self, answers: Sequence[Sequence[Answer]]) -> None:
        """Add items: of each the answers after 0, 1, .. n units, the last of them that of the untouched run."""
        rows = []
        for item in answers:
            if len(item) < 2:
                continue
            curve, units = torch.tensor(indicators(item, None, "match")), len(item) - 1
            rows.append([float(area_over_curve(curve, [i / units for i in range(units + 1)]))])
        self.add(rows, ["no_reasoning"] * (len(answers) - len(rows)))

    def compute(self) -> Figure:
        """In [0, 1]."""
        return mean(self.items()[:, 0], self.excluded(), seed=self.seed)
