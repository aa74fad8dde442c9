"""Mean over seeds with a t-interval."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Quantile 0.975 of Student's t, by degrees of freedom.
_T_975 = (
    12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139,
    2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963,
    2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """Mean of runs that differ in their seed; ``sd`` and ``half_width`` are None for a single run."""

    mean: float
    sd: float | None
    half_width: float | None
    count: int

    def __str__(self) -> str:
        spread = "" if self.half_width is None else f" ± {self.half_width:.3f}"
        return f"{self.mean:.3f}{spread}"


def seed_interval(values: Sequence[float]) -> Interval:
    """95 % interval of a mean over seeds, ``mean ± t(0.975, n - 1) sd / sqrt(n)``, ``sd`` with ``n - 1``.

    Args:
        values: One figure per seed.

    Raises:
        ValueError: There is no value.

    Example:
        >>> print(seed_interval([0.61, 0.64, 0.58]))
        0.610 ± 0.075
    """
    count = len(values)
    if count == 0:
        raise ValueError("seed_interval: no values were given; an interval needs the figure of at least one seed.")
    mean = statistics.fmean(values)
    if count == 1:
        return Interval(mean, None, None, 1)
    sd = statistics.stdev(values)
    return Interval(mean, sd, _t_975(count - 1) * sd / math.sqrt(count), count)


def _t_975(degrees: int) -> float:
    """The quantile: from the table, beyond it by the expansion in 1/degrees (error below 1e-5)."""
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    z = 1.959963984540054
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
