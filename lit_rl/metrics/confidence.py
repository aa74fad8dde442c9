"""What a model says about its own answers, against how they turned out (arXiv 2602.16154, appendix B)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from lit_rl.metrics.figure import Figure, ItemMetric, bootstrap


class _Predictions(ItemMetric):
    """Pairs of a probability and what happened."""

    def __init__(self, **kwargs: Any):
        super().__init__(2, ("not_said",), **kwargs)

    def update(self, said: Sequence[float | None], happened: Sequence[bool]) -> None:
        """Add items.

        Args:
            said: Probability of each, in [0, 1]; None if the model named none.
            happened: Whether the answer was right.

        Raises:
            ValueError: A probability outside [0, 1].
        """
        pairs = [(p, float(right)) for p, right in zip(said, happened, strict=True) if p is not None]
        if odd := [p for p, _ in pairs if not 0 <= p <= 1]:
            raise ValueError(f"{type(self).__name__} got the probability {odd[0]}; give one in [0, 1], or None.")
        self.add(pairs, ["not_said"] * (len(said) - len(pairs)))


class CalibrationError(_Predictions):
    """Expected calibration error of said confidences: ``sum over bins of |mean confidence - accuracy| n_bin / n``.

    Bins are equally wide and closed on the right (our reading: the paper names none).

    Args:
        bins: How many.
        kwargs: Of `ItemMetric`.

    Example:
        >>> error = CalibrationError()
        >>> error.update([0.9, 0.9, 0.3, None], [True, False, False, True])
        >>> round(error.compute().value, 4)  # (2 * |0.9 - 0.5| + |0.3 - 0|) / 3
        0.3667
    """

    def __init__(self, bins: int = 10, **kwargs: Any):
        if bins < 1:
            raise ValueError(f"CalibrationError: bins is {bins}; it must be at least 1.")
        super().__init__(**kwargs)
        self.bins = bins

    def compute(self) -> Figure:
        """In [0, 1]."""
        said, happened = self.items().unbind(1)
        count = len(said)
        # 1e-9 against binary rounding: a confidence on a bin's right border belongs to that bin.
        places = (said * self.bins - 1e-9).ceil().long().sub(1).clamp(0, self.bins - 1)
        gaps = torch.zeros(count, self.bins, dtype=torch.float64)
        gaps.scatter_(1, places[:, None], (said - happened)[:, None])
        gap = float(gaps.sum(0).abs().sum())
        low, high = bootstrap(lambda weights: (weights @ gaps).abs().sum(1) / count, count, seed=self.seed)
        value, why = (gap / count, "") if count else (math.nan, "no item is left")
        return Figure(value, gap, count, low, high, count, self.excluded(), why)


class Solvability(_Predictions):
    """Area under the ROC curve of a model's prediction, before it solves, that it will (our choice of statistic)."""

    def compute(self) -> Figure:
        """In [0, 1], with pairs as numerator and denominator; NaN unless some were solved and some were not."""
        said, happened = self.items().unbind(1)
        solved = int(happened.sum())
        pairs = solved * (len(happened) - solved)
        if not pairs:
            why = "all answers turned out alike" if len(said) else "no item is left"
            return Figure(math.nan, 0, 0, math.nan, math.nan, len(said), self.excluded(), why)
        value = float(binary_auroc(said, happened.long()))
        low, high = bootstrap(lambda weights: _weighted_auroc(weights, said, happened == 1), len(said), seed=self.seed)
        return Figure(value, value * pairs, pairs, low, high, len(said), self.excluded())


def _weighted_auroc(weights: Tensor, said: Tensor, happened: Tensor) -> Tensor:
    """Of each resample ``(R, N)`` the share of (solved, unsolved) pairs that are ordered rightly, ties half."""
    gap = said[happened][:, None] - said[~happened][None]
    ordered = (gap > 0).to(torch.float64) + 0.5 * (gap == 0)
    solved, unsolved = weights[:, happened], weights[:, ~happened]
    return ((solved @ ordered) * unsolved).sum(1) / (solved.sum(1) * unsolved.sum(1))
