"""Generalised advantage estimation over the steps of a row: turns of an episode, or tokens of a dialogue."""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_rl.objectives.turns import backward_scan, shifted


class Gae(NamedTuple):
    """What `gae` finds."""

    advantages: Tensor  # float (R, S), 0 outside the steps
    returns: Tensor  # advantages + values, the target of the value head; float (R, S), 0 outside the steps


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    step_mask: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    end_values: Tensor | None = None,
) -> Gae:
    """GAE (arXiv 1506.02438, eq. 16) over the steps that ``step_mask`` names.

    ``A_t = d_t + gamma gae_lambda A_next`` with ``d_t = r_t + gamma V_next - V_t``, where "next" is the next step of
    the row, whatever stands between.  Steps may be turns (see `turn_mask`), the flat estimator beside
    `hierarchical_advantages`, or the tokens of ``loss_mask``; the tokens of others then take no time.

    Args:
        rewards: Of each step, float ``(R, S)``; read at steps alone.
        values: Of the state before each step, float ``(R, S)``; read at steps alone, NaN elsewhere does no harm.
        step_mask: True where the row has a step, bool ``(R, S)``.
        gamma: Discount per step, in [0, 1].
        gae_lambda: 0 trusts the values, 1 the rewards; in [0, 1].
        end_values: Of the state after the last step, float ``(R,)``, 0 where the row terminated; None is 0 everywhere.

    Returns:
        Advantages and returns in the dtype of ``rewards``, float32 at least, without gradient.

    Raises:
        ValueError: Shapes disagree, or ``gamma`` or ``gae_lambda`` lies outside [0, 1].

    Example:
        >>> rewards, values = torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([[0.5, 0.6, 9.0]])
        >>> gae(rewards, values, torch.tensor([[True, True, False]]), gamma=1.0, gae_lambda=0.5)
        Gae(advantages=tensor([[0.3000, 0.4000, 0.0000]]), returns=tensor([[0.8000, 1.0000, 0.0000]]))
    """
    check_unit_interval("gae", gamma=gamma, gae_lambda=gae_lambda)
    if rewards.ndim != 2 or values.shape != rewards.shape or step_mask.shape != rewards.shape:
        raise ValueError(
            f"gae: rewards {tuple(rewards.shape)}, values {tuple(values.shape)} and step_mask "
            f"{tuple(step_mask.shape)} must all be (rows, steps)."
        )
    rewards = at_least_float32(rewards).masked_fill(~step_mask, 0.0)
    values = values.to(rewards.dtype).masked_fill(~step_mask, 0.0)
    later = backward_scan(values, (~step_mask).to(rewards.dtype))  # the value of the first step from here on
    is_last = step_mask & (step_mask.flip(1).cumsum(1).flip(1) == 1)
    end = torch.zeros_like(rewards[:, 0]) if end_values is None else end_values.to(rewards.dtype)
    next_values = torch.where(is_last, end[:, None], shifted(later))
    deltas = (rewards + gamma * next_values - values).masked_fill(~step_mask, 0.0)
    decay = torch.ones_like(rewards).masked_fill(step_mask, gamma * gae_lambda)
    advantages = backward_scan(deltas, decay).masked_fill(~step_mask, 0.0)
    return Gae(advantages, advantages + values)


def at_least_float32(tensor: Tensor) -> Tensor:
    """``tensor`` as it is in float32 or float64, in float32 otherwise."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def check_unit_interval(function: str, **numbers: float) -> None:
    """Raise ValueError naming the first of ``numbers`` outside [0, 1]."""
    for name, number in numbers.items():
        if not 0.0 <= number <= 1.0:
            raise ValueError(f"{function}: {name} is {number}; it lies between 0 and 1.")
