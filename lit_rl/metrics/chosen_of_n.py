"""What the best of several answers by one judge is worth to another: choosing overrates what it chooses by."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from lit_rl.metrics.diversity import PromptMeans, rows_by_prompt


def chosen_of_n(scores: Tensor, values: Tensor, n: int) -> float:
    """Expected value of that one of ``n`` answers which has the best score, drawn without replacement from ``m``.

    `lit_rl.metrics.best_of_n.best_of_n` is this with the scores as values.  Of equal scores each is as likely chosen.

    Args:
        scores: What the answers are chosen by, float ``(m,)``.
        values: What they are worth, float ``(m,)``.
        n: How many there are to choose from, at most ``m``.

    Raises:
        ValueError: There are not as many values as scores, ``n`` is below 1 or above ``m``, or a number is not finite.

    Example:
        >>> chosen_of_n(torch.tensor([0.0, 3.0, 1.0]), torch.tensor([1.0, 0.0, 1.0]), 3)
        0.0
    """
    count = len(scores)
    if scores.shape != values.shape or not 1 <= n <= count:
        raise ValueError(f"chosen_of_n: n is {n}, of {count} scores and {len(values)} values; give as many, n of them.")
    if not bool(torch.stack([scores, values]).isfinite().all()):
        raise ValueError("chosen_of_n: a score or a value is not finite.")
    rising = scores.double().sort().indices
    ranked = zip(scores[rising].tolist(), values[rising].double().tolist(), strict=True)
    expected: list[float] = []  # of the answer at each rank
    for _, equals in groupby(ranked, key=lambda pair: pair[0]):
        worth = [value for _, value in equals]
        expected += [math.fsum(worth) / len(worth)] * len(worth)
    ways = math.comb(count, n)
    return math.fsum(math.comb(rank, n - 1) / ways * value for rank, value in enumerate(expected))


class ChosenOfN(PromptMeans):
    """``best_of_N`` for each N, of one prompt each, then averaged over prompts and ranks.

    Args:
        ns: Of how many answers one is chosen; a prompt with fewer answers does not count for that N.
        kwargs: Of torchmetrics' ``Metric``.
    """

    def __init__(self, ns: Sequence[int] = (1, 2, 4, 8), **kwargs: Any):
        if not ns or min(ns) < 1:
            raise ValueError(f"ChosenOfN.ns is {list(ns)}; give numbers of answers, at least 1.")
        self.ns = tuple(ns)
        super().__init__([f"best_of_{n}" for n in self.ns], **kwargs)

    def update(self, scores: Tensor, values: Tensor, group_ids: Tensor) -> None:
        """Add answers; all those to one prompt must come in one call.

        Args:
            scores: What they are chosen by, float ``(E,)``.
            values: What they are worth, float ``(E,)``.
            group_ids: Prompt of each, int64 ``(E,)``.
        """
        for rows in rows_by_prompt(len(scores), group_ids):
            self.add_prompt(
                {f"best_of_{n}": chosen_of_n(scores[rows], values[rows], n) for n in self.ns if n <= len(rows)}
            )
