"""From logits to a loss and to a reward: pure functions on tensors (arXiv 2602.15849, section 5.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100  # the label of an axis that nobody annotated
ScoreMode = Literal["hard_sum", "soft_mean", "soft_sum"]


def axis_loss_sums(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of every axis, summed over the rows that have its label, and how many these are.

    Sums and not means, so that parts of a batch and ranks can be added before anything is divided.

    Args:
        logits: float ``(B, axes, 2)``.
        labels: 0, 1 or ``IGNORED``, int64 ``(B, axes)``.

    Returns:
        ``(sums float32 (axes,), counts int64 (axes,))``.
    """
    losses = functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view_as(labels).sum(0), (labels != IGNORED).sum(0)


def reward_model_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """``L = sum over axes of the mean cross-entropy of the rows with its label``; an axis without labels adds zero.

    Args:
        logits: float ``(B, axes, 2)``.
        labels: 0, 1 or ``IGNORED``, int64 ``(B, axes)``.

    Example:
        >>> reward_model_loss(torch.zeros(4, 3, 2), torch.zeros(4, 3, dtype=torch.long))  # 3 ln 2
        tensor(2.0794)
    """
    sums, counts = axis_loss_sums(logits, labels)
    return (sums / counts.clamp(min=1)).sum()


def predictions(logits: Tensor) -> Tensor:
    """The likelier class of each axis, int64 ``(B, axes)``, of logits ``(B, axes, 2)``; a tie is class 0."""
    return (logits[..., 1] > logits[..., 0]).long()


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How the logits of all axes become one reward.

    "hard_sum" counts the axes that are likelier good than not: 0, 1, 2 or 3 (as published).  "soft_mean" is the mean
    of their probabilities, in [0, 1] (as in the authors' code), "soft_sum" their sum.  Which of them the published
    generator was trained with is not known.

    Args:
        mode: "hard_sum", "soft_mean" or "soft_sum".
        weights: Of the axes' probabilities, instead of one third each; goes with "soft_mean".
    """

    mode: ScoreMode = "hard_sum"
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(ScoreMode):
            raise ValueError(f"scoring.mode is {self.mode!r}; use one of {list(get_args(ScoreMode))}.")
        if self.weights is not None and self.mode != "soft_mean":
            raise ValueError(f"scoring.weights go with mode 'soft_mean'; leave them out for {self.mode!r}.")

    def of_axes(self, logits: Tensor) -> Tensor:
        """What each axis is worth by itself, float ``(B, axes)``: 0 or 1, or the probability of 1."""
        return predictions(logits).to(logits) if self.mode == "hard_sum" else logits.softmax(-1)[..., 1]

    def total(self, logits: Tensor) -> Tensor:
        """The reward, float ``(B,)``, of logits ``(B, axes, 2)``.

        Raises:
            ValueError: There are not as many weights as axes.
        """
        values = self.of_axes(logits)
        if self.mode != "soft_mean":
            return values.sum(-1)
        if self.weights is None:
            return values.mean(-1)
        if len(self.weights) != values.shape[-1]:
            raise ValueError(f"scoring.weights has {len(self.weights)} numbers; give one for each of the three axes.")
        return values @ torch.tensor(self.weights, dtype=values.dtype, device=values.device)
