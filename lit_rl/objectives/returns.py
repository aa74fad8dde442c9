"""Discounted returns of the turns of an episode."""

import torch
from torch import Tensor


def turn_returns(rewards: Tensor, *, gamma: float) -> Tensor:
    """What each turn led to, ``G_t = sum_{j >= t} gamma^(j - t) r_j``.

    Args:
        rewards: Of each turn, float ``(B, N)``; 0 after the last turn of a row.
        gamma: Discount per turn, in [0, 1].

    Returns:
        ``(B, N)``, dtype of ``rewards``.

    Raises:
        ValueError: ``gamma`` outside [0, 1] or ``rewards`` not ``(B, N)``.

    Example:
        >>> turn_returns(torch.tensor([[0.0, 0.0, 1.0]]), gamma=0.5)
        tensor([[0.2500, 0.5000, 1.0000]])
    """
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma is {gamma}; a discount lies between 0 and 1.")
    if rewards.ndim != 2 or rewards.shape[1] == 0:
        raise ValueError(
            f"rewards has shape {tuple(rewards.shape)}; returns need (rows, turns) with at least one turn."
        )
    columns = [rewards[:, -1]]
    for turn in range(rewards.shape[1] - 2, -1, -1):
        columns.append(rewards[:, turn] + gamma * columns[-1])
    return torch.stack(columns[::-1], dim=1)


def trajectory_returns(rewards: Tensor, *, gamma: float) -> Tensor:
    """One number for the whole episode, ``R = sum_t gamma^t r_t`` with the first turn at ``t = 0``.

    So solving at the first turn is worth 1, at the second ``gamma``: our reading of the discount reported in
    arXiv 2602.16488, section 5, which does not say where the exponent starts.

    Args:
        rewards: Of each turn, float ``(B, N)``; 0 after the last turn of a row.
        gamma: Discount per turn, in [0, 1].

    Returns:
        ``(B,)``, dtype of ``rewards``.

    Raises:
        ValueError: As `turn_returns`.

    Example:
        >>> trajectory_returns(torch.tensor([[0.0, 0.0, 1.0]]), gamma=0.5)
        tensor([0.2500])
    """
    return turn_returns(rewards, gamma=gamma)[:, 0]
