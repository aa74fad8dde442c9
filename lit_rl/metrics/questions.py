"""What generated questions are like: what they are worth on each axis, how long they are, how many were cut off."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class QuestionFigures(Metric):
    """Means over questions, over batches and ranks.

    ``reward`` and every axis as scored, ``perfect`` (share with the best mark on all axes), ``mean_length`` and
    ``truncated_share``.  A truncation rate belongs beside every first-page bias (intelli.md section 12, point 6).

    Args:
        axes: Names of the axes, each scored 0 .. 1.
        kwargs: Of torchmetrics' ``Metric``.
    """

    full_state_update = False

    sums: Tensor
    count: Tensor

    def __init__(self, axes: Sequence[str] = ("effort", "evidence", "grounding"), **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(axes, str) or not axes:
            raise ValueError(f"QuestionFigures.axes is {axes!r}; give a list of at least one name.")
        self.axes = tuple(axes)
        self.names = ("reward", *self.axes, "perfect", "mean_length", "truncated_share")
        self.add_state("sums", torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, scores: Mapping[str, Tensor], lengths: Tensor, truncated: Tensor) -> None:
        """Add questions.

        Args:
            scores: By axis, and their total "reward", float ``(E,)`` each, as a reward model gives them.
            lengths: Tokens of each, int64 ``(E,)``.
            truncated: Whether each was cut off before its end, bool ``(E,)``.

        Raises:
            ValueError: A score is missing, or tensors are of different sizes.
        """
        missing = [name for name in ("reward", *self.axes) if name not in scores]
        if missing:
            raise ValueError(f"QuestionFigures: the scores have no {missing}; there are {sorted(scores)}.")
        marks = [scores[axis] for axis in self.axes]
        perfect = torch.stack(marks).ge(1).all(0)
        columns = [scores["reward"], *marks, perfect, lengths, truncated]
        if any(column.shape != lengths.shape for column in columns):
            shapes = [tuple(column.shape) for column in columns]
            raise ValueError(f"QuestionFigures: scores, lengths and truncated have the shapes {shapes}; give one each.")
        self.sums += torch.stack([column.to(self.sums) for column in columns]).sum(1)
        self.count += len(lengths)

    def compute(self) -> dict[str, Tensor]:
        """Float64 numbers by name, NaN without questions."""
        return dict(zip(self.names, (self.sums / self.count).unbind(), strict=True))
