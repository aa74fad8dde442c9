"""Losses of value heads, and how much of the returns their values explain."""

import math

import torch
from torch import Tensor


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip_range: float | None
) -> Tensor:
    """Squared error of each value, or that of the value held near its old one if it is larger; not averaged.

    ``max((V - y)^2, (clip(V, V_old - c, V_old + c) - y)^2)`` with ``c = clip_range``, without a factor of one half
    (PPO's value clipping as in HiPER's code, arXiv 2602.16165).

    Args:
        values: Of the head as it is, float, any shape.
        old_values: While collecting, same shape; no gradient.
        returns: Targets, same shape; no gradient.
        mask: What is learned from, bool; outside it anything may stand, NaN too.
        clip_range: Above 0; None does not clip.

    Returns:
        Same shape, 0 outside ``mask``.

    Raises:
        ValueError: ``clip_range`` is not above 0.

    Example:
        >>> values, old_values, returns = torch.tensor([2.0, 2.0]), torch.tensor([1.0, 1.0]), torch.tensor([3.0, 0.0])
        >>> clipped_value_loss(values, old_values, returns, torch.tensor([True, True]), clip_range=0.5)
        tensor([2.2500, 4.0000])
    """
    if clip_range is not None and not clip_range > 0:
        raise ValueError(f"clipped_value_loss: clip_range is {clip_range}; give a number above 0, or None for no clip.")
    values = values.masked_fill(~mask, 0.0)
    old_values, returns = (tensor.detach().masked_fill(~mask, 0.0) for tensor in (old_values, returns))
    error = (values - returns).square()
    if clip_range is None:
        return error
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return torch.maximum(error, (clipped - returns).square())


@torch.no_grad()
def variance_sums(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """What `explained_variance` needs, to be added up over batches and ranks; float64 ``(5,)``.

    Args:
        values: Float, any shape.
        returns: Same shape.
        mask: Which count, bool; outside it anything may stand.
    """
    y, error = returns[mask].double(), (returns - values)[mask].double()
    return torch.stack([mask.sum().double(), y.sum(), y.square().sum(), error.sum(), error.square().sum()])


def explained_variance(sums: Tensor) -> float:
    """Share of the variance of the returns that the values explain: 1 at best, NaN where returns do not vary.

    Args:
        sums: Of `variance_sums`.

    Example:
        >>> values, returns = torch.tensor([1.0, 2.0, 9.0]), torch.tensor([1.0, 3.0, 0.0])
        >>> explained_variance(variance_sums(values, returns, torch.tensor([True, True, False])))
        0.75
    """
    count, y, yy, error, ee = sums.tolist()
    if count < 2:
        return math.nan
    spread = yy / count - (y / count) ** 2
    # Sums of squares know a variance only to the last digits of the mean square.
    return math.nan if spread <= 1e-12 * yy / count else 1 - (ee / count - (error / count) ** 2) / spread
