"""Advantages without values: turns against other turns taken in the same state of the same task (GiGPO)."""

import torch
from torch import Tensor

from lit_rl.objectives.advantages import group_advantages
from lit_rl.objectives.returns import trajectory_returns, turn_returns


def step_group_advantages(
    returns: Tensor,
    turn_valid: Tensor,
    group_ids: Tensor,
    state_ids: Tensor,
    *,
    ddof: int = 1,
    epsilon: float = 1e-6,
    scale_by_std: bool = True,
) -> Tensor:
    """Returns of turns against those of all turns that began in the same state (GiGPO, arXiv 2505.10978, eq. 7).

    A state that was met once, or whose returns are all equal, gives 0.  An episode that comes back to a state is
    compared with itself too, as published.

    Args:
        returns: Discounted, from each turn on (see `turn_returns`), float ``(E, N)``.
        turn_valid: True where the episode took the turn, bool ``(E, N)``.
        group_ids: Episodes of one task share a value, int64 ``(E,)``.
        state_ids: Equal where the environment showed the same, int64 ``(E, N)``; within a group alone.
        ddof: 0 for the population's standard deviation, 1 for the sample's.
        epsilon: Added to the standard deviation.
        scale_by_std: False only centres.

    Returns:
        Float ``(E, N)``, 0 where ``turn_valid`` is False, without gradient.

    Raises:
        ValueError: Shapes disagree.

    Example:
        >>> returns, states = torch.tensor([[1.0, 3.0], [0.0, 2.0]]), torch.tensor([[5, 6], [5, 7]])
        >>> valid, groups = torch.ones(2, 2, dtype=torch.bool), torch.tensor([0, 0])
        >>> step_group_advantages(returns, valid, groups, states, scale_by_std=False)
        tensor([[ 0.5000,  0.0000],
                [-0.5000,  0.0000]])
    """
    shapes = [tuple(tensor.shape) for tensor in (returns, turn_valid, state_ids)]
    if returns.ndim != 2 or len(set(shapes)) > 1 or group_ids.shape != returns.shape[:1]:
        raise ValueError(
            f"step_group_advantages: returns, turn_valid and state_ids have shapes {shapes}, group_ids "
            f"{tuple(group_ids.shape)}; wanted (episodes, turns) three times and (episodes,)."
        )
    groups = torch.unique(group_ids, return_inverse=True)[1][:, None]
    states, state_of = torch.unique(state_ids, return_inverse=True)
    cells = (groups * states.numel() + state_of)[turn_valid]
    chosen = returns.detach()[turn_valid]
    found = (
        group_advantages(chosen, cells, ddof=ddof, epsilon=epsilon)
        if scale_by_std
        else group_advantages(chosen, cells, scale_by_std=False)
    )
    advantages = torch.zeros(returns.shape, dtype=found.dtype, device=found.device)
    advantages[turn_valid] = found
    return advantages


def group_in_group_advantages(
    rewards: Tensor,
    turn_valid: Tensor,
    group_ids: Tensor,
    state_ids: Tensor,
    *,
    gamma: float,
    step_coef: float = 1.0,
    ddof: int = 1,
    epsilon: float = 1e-6,
    scale_by_std: bool = True,
) -> Tensor:
    """GiGPO's sum of an episode's advantage in its group and a turn's in its state (arXiv 2505.10978, eq. 8).

    ``A_episode + step_coef A_step``: the first from the undiscounted reward of the episode, the second from
    `step_group_advantages` of discounted returns.  Our reading: an episode counts once in the mean of its group; the
    authors' code can count it once a turn.

    Args:
        rewards: Of each turn, float ``(E, N)``; 0 after the last turn.
        turn_valid: Bool ``(E, N)``.
        group_ids: int64 ``(E,)``.
        state_ids: int64 ``(E, N)``.
        gamma: Discount per turn of the second term, in [0, 1].
        step_coef: Weight of the second term.
        ddof: As in `step_group_advantages`, for both terms; and so are the others.
        epsilon: Added to the standard deviation.
        scale_by_std: False only centres.

    Returns:
        Float ``(E, N)``, 0 where ``turn_valid`` is False, without gradient.

    Raises:
        ValueError: As `step_group_advantages` and `turn_returns`.

    Example:
        >>> rewards, states = torch.tensor([[0.0, 3.0], [0.0, 2.0]]), torch.tensor([[5, 6], [5, 7]])
        >>> valid, groups = torch.ones(2, 2, dtype=torch.bool), torch.tensor([0, 0])
        >>> group_in_group_advantages(rewards, valid, groups, states, gamma=1.0, scale_by_std=False)
        tensor([[ 1.0000,  0.5000],
                [-1.0000, -0.5000]])
    """
    step = step_group_advantages(
        turn_returns(rewards, gamma=gamma), turn_valid, group_ids, state_ids,
        ddof=ddof, epsilon=epsilon, scale_by_std=scale_by_std,
    )  # fmt: skip
    totals = trajectory_returns(rewards, gamma=1.0)
    episode = (
        group_advantages(totals, group_ids, ddof=ddof, epsilon=epsilon)
        if scale_by_std
        else group_advantages(totals, group_ids, scale_by_std=False)
    )
    return (episode[:, None] + step_coef * step).masked_fill(~turn_valid, 0.0)
