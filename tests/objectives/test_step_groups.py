"""Turns compared with turns that began in the same state (GiGPO), against plain loops."""

import statistics
from collections import defaultdict

import pytest
import torch

from lit_rl.objectives.advantages import group_advantages, turn_advantages
from lit_rl.objectives.returns import trajectory_returns, turn_returns
from lit_rl.objectives.step_groups import group_in_group_advantages, step_group_advantages
from lit_rl.objectives.turns import turn_mask


def random_episodes(seed: int) -> tuple[torch.Tensor, ...]:
    """Rewards, mask, groups and states of 6 episodes in 2 groups."""
    generator = torch.Generator().manual_seed(seed)
    mask = turn_mask(torch.randint(1, 6, (6,), generator=generator), 5)
    rewards = torch.randn(6, 5, generator=generator, dtype=torch.float64).masked_fill(~mask, 0.0)
    states = torch.randint(-2, 2, (6, 5), generator=generator) * 10**12  # hashes are large and of either sign
    return rewards, mask, torch.tensor([3, 9, 3, 9, 3, 9]), states


def test_by_hand() -> None:
    """Two episodes of a task meet in state 1; the returns there are 4 and 2, and of what follows 4 and 2 too.

    The other task has the same number for a state, which says nothing.
    """
    rewards = torch.tensor([[0.0, 4.0], [0.0, 2.0], [9.0, 9.0]])
    states, groups = torch.tensor([[1, 2], [1, 3], [1, 2]]), torch.tensor([0, 0, 1])
    valid = torch.ones(3, 2, dtype=torch.bool)
    returns = turn_returns(rewards, gamma=1.0)
    step = step_group_advantages(returns, valid, groups, states, scale_by_std=False)
    assert step.tolist() == [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]
    both = group_in_group_advantages(rewards, valid, groups, states, gamma=1.0, step_coef=0.5, scale_by_std=False)
    assert both.tolist() == [[1.5, 1.0], [-1.5, -1.0], [0.0, 0.0]]
    scaled = step_group_advantages(returns, valid, groups, states, ddof=1, epsilon=0.0)
    torch.testing.assert_close(scaled[:, 0], torch.tensor([0.5**0.5, -(0.5**0.5), 0.0]))


@pytest.mark.parametrize("seed", range(20))
def test_equals_plain_loops(seed: int) -> None:
    rewards, mask, groups, states = random_episodes(seed)
    returns = turn_returns(rewards, gamma=0.9)
    met: dict[tuple[int, int], list[float]] = defaultdict(list)
    places = [(e, t) for e in range(6) for t in range(5) if mask[e, t]]
    for e, t in places:
        met[int(groups[e]), int(states[e, t])].append(float(returns[e, t]))
    found = step_group_advantages(returns, mask, groups, states)
    assert not found[~mask].any()
    for e, t in places:
        others = met[int(groups[e]), int(states[e, t])]
        wanted = 0.0
        if len(others) > 1:
            wanted = (float(returns[e, t]) - statistics.mean(others)) / (statistics.stdev(others) + 1e-6)
        assert float(found[e, t]) == pytest.approx(wanted, abs=1e-9)
    episodes = group_advantages(trajectory_returns(rewards, gamma=1.0), groups, ddof=1, epsilon=1e-6)
    whole = group_in_group_advantages(rewards, mask, groups, states, gamma=0.9, step_coef=0.3)
    torch.testing.assert_close(whole, (episodes[:, None] + 0.3 * found).masked_fill(~mask, 0.0))


def test_the_turn_as_state_is_credit_by_turn() -> None:
    rewards, mask, groups, _ = random_episodes(1)
    returns, turns = turn_returns(rewards, gamma=0.9), torch.arange(5).expand(6, 5)
    by_turn = turn_advantages(returns, mask, groups, ddof=1, epsilon=1e-6)
    torch.testing.assert_close(step_group_advantages(returns, mask, groups, turns), by_turn)


def test_states_met_once_and_equal_returns_give_nothing() -> None:
    valid, groups = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, dtype=torch.int64)
    apart, together = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 1], [1, 1]])
    assert not step_group_advantages(torch.randn(2, 2), valid, groups, apart).any()
    assert not step_group_advantages(torch.full((2, 2), 0.1), valid, groups, together).any()


def test_bad_input_is_refused() -> None:
    valid, groups = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"group_ids \(3,\); wanted \(episodes, turns\) three times and \(episodes,\)"):
        step_group_advantages(torch.ones(2, 2), valid, torch.zeros(3, dtype=torch.int64), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="gamma is 1.5"):
        group_in_group_advantages(torch.ones(2, 2), valid, groups, torch.zeros(2, 2).long(), gamma=1.5)
