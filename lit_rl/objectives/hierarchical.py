"""Hierarchical Advantage Estimation (HiPER, arXiv 2602.16165): credit on two time scales.

An episode of turns falls into segments, each of which pursues one subgoal.  Actions get credit within their segment,
which ends with the high-level value of what follows; subgoals get credit over segments.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lit_rl.objectives.gae import at_least_float32, check_unit_interval
from lit_rl.objectives.turns import backward_scan, shifted, turn_mask


class EndValues(NamedTuple):
    """Values of what follows an episode's last turn, 0 where the episode terminated."""

    low: Tensor  # float (E,); ends the last segment's actions
    high: Tensor  # float (E,); ends its subgoal and its switch decisions


class HierarchicalAdvantages(NamedTuple):
    """What `hierarchical_advantages` finds; float ``(E, N)``, 0 where a turn does not exist."""

    low: Tensor  # of the action of each turn
    high: Tensor  # of the subgoal of each segment, at its first turn; 0 elsewhere
    segment_returns: Tensor  # rewards to the end of the segment, then the high-level value of what follows
    one_step_returns: Tensor  # the reward of the turn, then the value of the next


class ValueTargets(NamedTuple):
    """What the value heads should have said, float ``(E, N)``."""

    low: Tensor
    high: Tensor  # at first turns of segments, 0 elsewhere
    switch: Tensor


@torch.no_grad()
def hierarchical_advantages(
    rewards: Tensor,
    boundaries: Tensor,
    lengths: Tensor,
    low_values: Tensor,
    high_values: Tensor,
    *,
    gamma: float,
    lambda_turn: float,
    lambda_segment: float,
    end_values: EndValues | None = None,
) -> HierarchicalAdvantages:
    """Advantages of actions within segments and of subgoals over segments.

    For a segment of turns ``b .. e - 1`` and its reward ``R = sum_j gamma^j r_(b + j)``::

        A_low(t)  = r_t + gamma V_next - V_low(t) + gamma lambda_turn A_low(t + 1),   the last term within the segment
        A_high(b) = R + gamma^(e - b) V_high(e) - V_high(b) + gamma^(e - b) lambda_segment A_high(e)

    ``V_next`` is ``V_low(t + 1)`` within a segment and ``V_high(e)`` at its end; after the last turn it is
    ``end_values``.  ``lambda_segment`` counts segments, ``gamma`` turns.  As published; the authors' code agrees.

    Args:
        rewards: Of each turn, float ``(E, N)``.
        boundaries: True where a turn begins a segment, as the first turn always does; bool ``(E, N)``.
        lengths: Turns of each episode, integer ``(E,)``.
        low_values: Of the state once the subgoal is known, float ``(E, N)``.
        high_values: Of the state before a subgoal is chosen, float ``(E, N)``; read at boundaries alone, NaN elsewhere
            does no harm.
        gamma: Discount per turn, in [0, 1].
        lambda_turn: Of the actions, in [0, 1].
        lambda_segment: Of the subgoals, in [0, 1].
        end_values: Values after the last turn; None is 0, for episodes that terminated and for time limits that are
            part of the task.

    Returns:
        In the dtype of ``rewards``, float32 at least, without gradient.

    Raises:
        ValueError: Shapes disagree, a number lies outside [0, 1], or an episode does not begin with a boundary.

    Example:
        >>> rewards, boundaries = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[True, False, True]])
        >>> low_values, high_values = torch.tensor([[0.1, 0.2, 0.5]]), torch.tensor([[0.2, torch.nan, 0.6]])
        >>> credit = hierarchical_advantages(
        ...     rewards, boundaries, torch.tensor([3]), low_values, high_values,
        ...     gamma=1.0, lambda_turn=1.0, lambda_segment=0.5,
        ... )
        >>> credit.low, credit.high
        (tensor([[0.5000, 0.4000, 0.5000]]), tensor([[0.6000, 0.0000, 0.4000]]))
    """
    check_unit_interval("gamma and lambdas", gamma=gamma, lambda_turn=lambda_turn, lambda_segment=lambda_segment)
    exists = _check(rewards, boundaries, lengths, low_values, high_values)
    boundaries = boundaries & exists
    rewards = at_least_float32(rewards).masked_fill(~exists, 0.0)
    low_values = low_values.to(rewards.dtype).masked_fill(~exists, 0.0)
    high_values = high_values.to(rewards.dtype)  # chosen by where() alone below: what is not read may be NaN
    zeros = torch.zeros_like(rewards[:, 0])
    end = EndValues(zeros, zeros) if end_values is None else EndValues(*(v.to(rewards.dtype) for v in end_values))

    is_last = exists & ~shifted(exists)
    ends = is_last | shifted(boundaries)
    after = shifted(high_values)
    next_low = torch.where(is_last, end.low[:, None], torch.where(ends, after, shifted(low_values)))
    next_high = torch.where(is_last, end.high[:, None], after)
    within = (exists & ~ends).to(rewards.dtype)

    one_step = (rewards + gamma * next_low).masked_fill(~exists, 0.0)
    low = backward_scan(one_step - low_values, gamma * lambda_turn * within)
    closing = torch.where(ends, gamma * next_high, 0.0)
    segment_returns = backward_scan(rewards + closing, gamma * within)
    # Between boundaries the scan hands on what comes from the segment behind.
    deltas = (segment_returns - high_values).masked_fill(~boundaries, 0.0)
    carry = torch.where(boundaries, lambda_segment * _discount_to_end(ends, gamma, rewards.dtype), 1.0)
    high = backward_scan(deltas, carry.masked_fill(is_last | ~exists, 0.0)).masked_fill(~boundaries, 0.0)
    return HierarchicalAdvantages(low, high, segment_returns, one_step)


@torch.no_grad()
def stale_end_values(
    low_values: Tensor, high_values: Tensor, boundaries: Tensor, lengths: Tensor, terminated: Tensor
) -> EndValues:
    """The values an episode that was cut has already, in place of those of what would follow.

    ``V_low`` of the last turn and ``V_high`` of the last segment's first turn, as in the authors' code.  Running out of
    time then costs nothing; for comparison with that code.

    Args:
        low_values: Float ``(E, N)``.
        high_values: Float ``(E, N)``; read at boundaries alone.
        boundaries: Bool ``(E, N)``.
        lengths: Integer ``(E,)``.
        terminated: True where the last turn ended the task, bool ``(E,)``.

    Returns:
        Two float ``(E,)``.

    Example:
        >>> low_values, high_values = torch.tensor([[0.1, 0.2]]), torch.tensor([[0.3, torch.nan]])
        >>> stale_end_values(
        ...     low_values, high_values, torch.tensor([[True, False]]), torch.tensor([2]), torch.tensor([False])
        ... )
        EndValues(low=tensor([0.2000]), high=tensor([0.3000]))
    """
    exists = turn_mask(lengths, low_values.shape[1])
    columns = torch.arange(low_values.shape[1], device=low_values.device)
    last_segment = torch.where(boundaries & exists, columns, 0).amax(1, keepdim=True)
    low = low_values.gather(1, (lengths[:, None] - 1).clamp(min=0)).squeeze(1)
    high = high_values.gather(1, last_segment).squeeze(1)
    none = terminated | (lengths == 0)
    return EndValues(low.masked_fill(none, 0.0), high.masked_fill(none, 0.0))


def lambda_targets(
    credit: HierarchicalAdvantages, low_values: Tensor, high_values: Tensor, boundaries: Tensor, lengths: Tensor
) -> ValueTargets:
    """Value targets that look as far ahead as the advantages do: ``A + V`` (the authors' code).

    Args:
        credit: From `hierarchical_advantages`, not whitened.
        low_values: As given there, and so are the others; float ``(E, N)``.
        high_values: Float ``(E, N)``.
        boundaries: Bool ``(E, N)``.
        lengths: Integer ``(E,)``.

    Returns:
        Targets of each head; that of the switch head is the return to the end of the segment.

    Example:
        >>> one = torch.ones(1, 1)
        >>> credit = HierarchicalAdvantages(low=one, high=2 * one, segment_returns=4 * one, one_step_returns=one)
        >>> lambda_targets(credit, one / 2, one, one.bool(), torch.tensor([1]))
        ValueTargets(low=tensor([[1.5000]]), high=tensor([[3.]]), switch=tensor([[4.]]))
    """
    exists = turn_mask(lengths, low_values.shape[1])
    low = credit.low + low_values.to(credit.low.dtype).masked_fill(~exists, 0.0)
    high = credit.high + high_values.to(credit.high.dtype).masked_fill(~(boundaries & exists), 0.0)
    return ValueTargets(low, high, credit.segment_returns)


def td_targets(credit: HierarchicalAdvantages, boundaries: Tensor) -> ValueTargets:
    """Value targets that look one step ahead, a turn or a segment (the paper's).

    Args:
        credit: From `hierarchical_advantages`.
        boundaries: Bool ``(E, N)``.

    Returns:
        Targets of each head; that of the switch head is the return to the end of the segment.

    Example:
        >>> one = torch.ones(1, 1)
        >>> credit = HierarchicalAdvantages(low=one, high=2 * one, segment_returns=4 * one, one_step_returns=one)
        >>> td_targets(credit, one.bool())
        ValueTargets(low=tensor([[1.]]), high=tensor([[4.]]), switch=tensor([[4.]]))
    """
    high = credit.segment_returns.masked_fill(~boundaries, 0.0)
    return ValueTargets(credit.one_step_returns, high, credit.segment_returns)


def _discount_to_end(ends: Tensor, gamma: float, dtype: torch.dtype) -> Tensor:
    """``gamma`` to the number of turns left in the segment, this one included; float ``(E, N)``."""
    turns = ends.shape[1]
    columns = torch.arange(turns, device=ends.device).expand(ends.shape)
    place = torch.where(ends, columns, turns).flip(1).cummin(1).values.flip(1)
    return torch.full(ends.shape, gamma, dtype=dtype, device=ends.device) ** (place - columns + 1)


def _check(rewards: Tensor, boundaries: Tensor, lengths: Tensor, low_values: Tensor, high_values: Tensor) -> Tensor:
    """Which turns exist, bool ``(E, N)``."""
    shapes = [tuple(tensor.shape) for tensor in (rewards, boundaries, low_values, high_values)]
    if rewards.ndim != 2 or len(set(shapes)) > 1 or lengths.shape != rewards.shape[:1]:
        raise ValueError(
            f"hierarchical_advantages: rewards, boundaries, low_values and high_values have shapes {shapes}, lengths "
            f"{tuple(lengths.shape)}; wanted (episodes, turns) four times and (episodes,)."
        )
    exists = turn_mask(lengths, rewards.shape[1])
    if bool((exists & ~boundaries)[:, :1].any()):
        episode = int((exists & ~boundaries)[:, 0].nonzero()[0])
        raise ValueError(
            f"hierarchical_advantages: boundaries[{episode}, 0] is False; the first turn of an episode always begins a "
            "segment."
        )
    return exists
