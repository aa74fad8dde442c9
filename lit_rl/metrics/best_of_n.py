"""How good the best of several answers is: what a reward is raised to without training (intelli.md section 10.8)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_rl.metrics.diversity import PromptMeans, rows_by_prompt


def best_of_n(scores: Tensor, n: int) -> float:
    """Expected best score of ``n`` of the ``m`` answers to one prompt, drawn without replacement.

    ``sum_i C(i - 1, n - 1) s_(i) / C(m, n)`` over the scores in rising order: the unbiased estimator of the best of
    ``n`` new answers, and smoother than the best of any ``n``.

    Args:
        scores: Of the answers, float ``(m,)``.
        n: How many are drawn, at most ``m``.

    Raises:
        ValueError: ``n`` is below 1 or above ``m``, or a score is not finite.

    Example:
        >>> best_of_n(torch.tensor([0.0, 3.0, 1.0, 0.0]), 3)
        2.5
    """
    count = len(scores)
    if not 1 <= n <= count:
        raise ValueError(f"best_of_n: n is {n}, and there are {count} scores; it must lie in 1 .. {count}.")
    if not bool(scores.isfinite().all()):
        raise ValueError(f"best_of_n: the scores are {scores.tolist()}; all of them must be finite.")
    rising = scores.to(torch.float64).sort().values.tolist()
    ways = math.comb(count, n)
    return math.fsum(math.comb(i, n - 1) / ways * score for i, score in enumerate(rising))


class BestOfN(PromptMeans):
    """``best_of_N`` for each N, of one prompt each, then averaged over prompts and ranks.

    Args:
        ns: How many answers the best is taken of; a prompt with fewer answers does not count for that N.
        kwargs: Of torchmetrics' ``Metric``.
    """

    def __init__(self, ns: Sequence[int] = (1, 2, 4, 8), **kwargs: Any):
        if not ns or min(ns) < 1:
            raise ValueError(f"BestOfN.ns is {list(ns)}; give numbers of answers, at least 1.")
        self.ns = tuple(ns)
        super().__init__([f"best_of_{n}" for n in self.ns], **kwargs)

    def update(self, scores: Tensor, group_ids: Tensor) -> None:
        """Add answers; all those to one prompt must come in one call.

        Args:
            scores: What each is worth, float ``(E,)``.
            group_ids: Prompt of each, int64 ``(E,)``.
        """
        for rows in rows_by_prompt(len(scores), group_ids):
            own = scores[rows]
            self.add_prompt({f"best_of_{n}": best_of_n(own, n) for n in self.ns if n <= len(rows)})
