"""Discounted returns of turns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.objectives import trajectory_returns, turn_returns


def test_returns_of_arxiv_2602_16488_golden_values() -> None:
    solved = torch.eye(4)  # row k solves at turn k + 1
    torch.testing.assert_close(trajectory_returns(solved, gamma=0.7), torch.tensor([1.0, 0.7, 0.49, 0.343]))
    torch.testing.assert_close(turn_returns(solved, gamma=0.7)[3], torch.tensor([0.343, 0.49, 0.7, 1.0]))


@given(rows=st.lists(st.lists(st.floats(-2, 2), min_size=3, max_size=3), min_size=1, max_size=4), gamma=st.floats(0, 1))
def test_turn_returns_equal_the_sum_written_out(rows: list[list[float]], gamma: float) -> None:
    got = turn_returns(torch.tensor(rows, dtype=torch.float64), gamma=gamma)
    for row, rewards in enumerate(rows):
        for turn in range(3):
            expected = sum(gamma ** (j - turn) * rewards[j] for j in range(turn, 3))
            assert got[row, turn].item() == pytest.approx(expected, abs=1e-12)


def test_without_discount_both_returns_are_the_sum_of_rewards() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(trajectory_returns(rewards, gamma=1.0), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(turn_returns(rewards, gamma=1.0), torch.tensor([[1.0] * 3, [0.0] * 3]))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="gamma is 1.5"):
        turn_returns(torch.zeros(1, 2), gamma=1.5)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        trajectory_returns(torch.zeros(3), gamma=1.0)
