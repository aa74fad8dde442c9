"""A measured figure with all that is needed to judge it, and metrics that keep one row of numbers for each item."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

_Z_975 = 1.959963984540054  # quantile 0.975 of the normal distribution
_CELLS = 2**22  # weights drawn at once: 32 MiB

Statistic = Callable[[Tensor], Tensor]  # of weights float64 (R, N), how often each resample holds each item: (R,)


class Figure(NamedTuple):
    """One figure; value and interval are NaN where it is undefined."""

    value: float
    numerator: float
    denominator: float
    low: float  # of the 95 % interval
    high: float
    used: int  # items the figure is about
    excluded: Mapping[str, int]  # items that were left out, by reason
    undefined: str = ""  # why the value is NaN

    @property
    def total(self) -> int:
        """Items used and items left out."""
        return self.used + sum(self.excluded.values())


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; NaN without trials.

    Example:
        >>> [round(x, 4) for x in wilson(5, 10)]
        [0.2366, 0.7634]
    """
    if trials == 0:
        return math.nan, math.nan
    share, z2 = successes / trials, _Z_975**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_975 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(statistic: Statistic, items: int, *, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval over resamples of the items, the same for the same seed.

    Resamples in which the statistic is NaN are left out of the percentiles; NaN if that is all.

    Args:
        statistic: Of weights, float64 ``(R, N)``: how often each of ``R`` resamples holds each item.
        items: ``N``.
        resamples: How many are drawn.
        seed: Of the draws.
    """
    if items == 0:
        return math.nan, math.nan
    generator = torch.Generator().manual_seed(seed)
    found, step = [], max(1, _CELLS // items)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        drawn = torch.randint(items, (rows, items), generator=generator)
        weights = torch.zeros(rows, items, dtype=torch.float64)
        weights.scatter_add_(1, drawn, torch.ones_like(weights))
        found.append(statistic(weights))
    low, high = torch.cat(found).nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def proportion(
    successes: float,
    trials: int,
    excluded: Mapping[str, int],
    *,
    scale: float = 1.0,
    undefined: str = "no item is left",
) -> Figure:
    """``scale * successes / trials`` with Wilson's interval.

    Args:
        successes: Items that count.
        trials: Items used.
        excluded: Items left out, by reason.
        scale: 100 for per cent.
        undefined: What to say where there is no trial.
    """
    low, high = wilson(successes, trials)
    value = successes / trials if trials else math.nan
    why = "" if trials else undefined
    return Figure(scale * value, successes, trials, scale * low, scale * high, trials, dict(excluded), why)


def mean(values: Tensor, excluded: Mapping[str, int], *, scale: float = 1.0, seed: int = 0) -> Figure:
    """Mean over items with a bootstrap interval.

    Args:
        values: One per item used, float64 ``(N,)``.
        excluded: Items left out, by reason.
        scale: Factor of the value and of its interval.
        seed: Of the bootstrap.
    """
    count, total = len(values), float(values.sum())
    low, high = bootstrap(lambda weights: weights @ values / count, count, seed=seed)
    value, why = (total / count, "") if count else (math.nan, "no item is left")
    return Figure(scale * value, total, count, scale * low, scale * high, count, dict(excluded), why)


class ItemMetric(Metric):
    """Keeps a row of numbers for each item and counts those left out, over batches and ranks.

    Args:
        columns: Numbers per item.
        reasons: Why ``add`` may be told to leave an item out.
        seed: Of the bootstrap.
        kwargs: Of torchmetrics' ``Metric``.
    """

    full_state_update = False

    rows: list[Tensor]
    left_out: Tensor

    def __init__(self, columns: int, reasons: Sequence[str] = (), seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.columns, self.reasons, self.seed = columns, tuple(reasons), seed
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("left_out", torch.zeros(len(self.reasons), dtype=torch.int64), dist_reduce_fx="sum")
        self._open()

    def add(self, rows: Sequence[Sequence[float]], left_out: Sequence[str] = ()) -> None:
        """Add items: the rows of those used, and the reason of each that is left out."""
        table = torch.tensor([list(row) for row in rows], dtype=torch.float64).reshape(-1, self.columns)
        self.rows.append(table.to(self.left_out.device))
        for reason in left_out:
            self.left_out[self.reasons.index(reason)] += 1

    def items(self) -> Tensor:
        """Rows of the items used so far, float64 ``(N, columns)`` on the CPU."""
        return dim_zero_cat(self.rows).cpu()

    def excluded(self) -> dict[str, int]:
        """Items left out so far, by reason."""
        return dict(zip(self.reasons, self.left_out.tolist(), strict=True))

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        self._open()

    def _open(self) -> None:
        # A rank without items must take part in gathering, with a table of the right width and type.
        self.rows.append(torch.zeros(0, self.columns, dtype=torch.float64, device=self.left_out.device))
