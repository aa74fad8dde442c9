"""Advantages against published worked examples, a slow loop in float64, and what must never change them."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.objectives import (
    group_advantages,
    leave_one_out_advantages,
    token_advantages,
    turn_advantages,
    turn_returns,
)

# Four of eight dialogues solved, at turns 1, 2, 2 and 4; discount 0.7.
SOLVED_AT = [1, 2, 2, 4, None, None, None, None]


def one_group(values: list[float]) -> tuple[Tensor, Tensor]:
    return torch.tensor(values), torch.zeros(len(values), dtype=torch.int64)


def dialogues(solved_at: list[int | None], turns: int, gamma: float) -> tuple[Tensor, Tensor]:
    """Returns per turn and the turns that exist."""
    rewards, valid = torch.zeros(len(solved_at), turns), torch.zeros(len(solved_at), turns, dtype=torch.bool)
    for row, turn in enumerate(solved_at):
        valid[row, : turn or turns] = True
        if turn:
            rewards[row, turn - 1] = 1.0
    return turn_returns(rewards, gamma=gamma), valid


@pytest.mark.parametrize(
    ("returns", "ddof", "epsilon", "expected"),
    [
        ([1, 0.7, 0.7, 0.343] + [0] * 4, 0, 1e-6, [1.727819, 0.939011, 0.939011, 0.000329] + [-0.901542] * 4),
        ([1, 0.7, 0.7, 0.343] + [0] * 4, 1, 1e-4, [1.615834, 0.878151, 0.878151, 0.000307] + [-0.843111] * 4),
        ([1, 1, 1, 1, 0, 0, 0, 0], 0, 0.0, [1.0] * 4 + [-1.0] * 4),
        ([1, 0.7, 0, 0], 0, 0.0, [1.312679, 0.627803, -0.970241, -0.970241]),
        ([1, 1, 1, 0.343], 0, 0.0, [0.577350] * 3 + [-1.732051]),
    ],
)
def test_trajectory_advantages_of_arxiv_2602_16488_golden_values(
    returns: list[float], ddof: int, epsilon: float, expected: list[float]
) -> None:
    got = group_advantages(*one_group(returns), ddof=ddof, epsilon=epsilon)
    torch.testing.assert_close(got, torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("rewards", "ddof", "epsilon", "expected"),
    [
        ([1, 0, 0, 0], 1, 1e-6, [1.499997] + [-0.499999] * 3),
        ([1, 0, 0, 0], 1, 1e-4, [1.4997000600] + [-0.4999000200] * 3),
        ([1, 0, 0, 0], 0, 1e-6, [1.7320468076] + [-0.5773489359] * 3),
        ([1, 1, 0, 0], 1, 1e-6, [0.8660239038] * 2 + [-0.8660239038] * 2),
        (
            [3, 1, 0, 0, 2, 0, 1, 1],
            1,
            1e-6,
            [1.8708269434, 0, -0.9354134717, -0.9354134717, 0.9354134717, -0.9354134717, 0, 0],
        ),
        ([1, -1, -1, -1], 1, 1e-6, [1.4999985] + [-0.4999995] * 3),
        ([1, 0], 1, 1e-6, [0.7071057812, -0.7071057812]),
    ],
)
def test_group_advantages_of_dapo_golden_values(
    rewards: list[float], ddof: int, epsilon: float, expected: list[float]
) -> None:
    got = group_advantages(*one_group([float(r) for r in rewards]), ddof=ddof, epsilon=epsilon)
    torch.testing.assert_close(got, torch.tensor(expected), atol=2e-7, rtol=0)


def test_turn_advantages_of_arxiv_2602_16488_golden_values() -> None:
    returns, valid = dialogues(SOLVED_AT, 4, 0.7)
    got = turn_advantages(returns, valid, torch.zeros(8, dtype=torch.int64), ddof=0, epsilon=0.0)
    second = [0.0, 0.0, 0.0]
    rows = [[1.727819, *second], *[[0.939011, 1.464730, 0.0, 0.0]] * 2, [0.000329, 0.305287, 2.0, 2.0]]
    rows += [[-0.901542, -0.808687, -0.5, -0.5]] * 4
    torch.testing.assert_close(got, torch.tensor(rows), atol=1e-5, rtol=0)  # printed for a small, unnamed epsilon
    # The mean of turn 2 is over the seven dialogues that reached it: 2.49 / 7, not 2.49 / 8.
    centred = turn_advantages(returns, valid, torch.zeros(8, dtype=torch.int64), normalization="center")
    torch.testing.assert_close(centred[4, 1], torch.tensor(-2.49 / 7))


def test_turn_advantages_of_arxiv_2602_16066_golden_values() -> None:
    returns, valid = dialogues([1, 2, None, 3], 3, 1.0)
    got = turn_advantages(returns, valid, torch.zeros(4, dtype=torch.int64), ddof=0, epsilon=0.0)
    expected = [[0.577350, 0, 0], [0.577350, 0.707107, 0], [-1.732051, -1.414214, -1.0], [0.577350, 0.707107, 1.0]]
    torch.testing.assert_close(got, torch.tensor(expected), atol=1e-6, rtol=0)


def test_pooled_turn_advantages_use_one_mean_and_deviation_for_all_turns() -> None:
    returns, valid = torch.tensor([[1.0, 0.0], [3.0, 99.0]]), torch.tensor([[True, True], [True, False]])
    got = turn_advantages(
        returns, valid, torch.zeros(2, dtype=torch.int64), ddof=0, epsilon=0.0, normalization="pooled"
    )
    mean, std = 4 / 3, math.sqrt(14 / 9)  # of 1, 0, 3: (1/9 + 16/9 + 25/9) / 3 = 14/9
    expected = torch.tensor([[(1 - mean) / std, -mean / std], [(3 - mean) / std, 0.0]])
    torch.testing.assert_close(got, expected)


def test_leave_one_out_by_hand() -> None:
    returns, groups = torch.tensor([3.0, 4.0, 0.0, 0.0, 0.1]), torch.tensor([5, 9, 5, 5, 2])
    got = leave_one_out_advantages(returns, groups)
    torch.testing.assert_close(got, torch.tensor([3.0, 0.0, -1.5, -1.5, 0.0]))  # 3 - 0; 0 - (3 + 0) / 2


def slow_advantages(returns: list[float], groups: list[int], ddof: int, epsilon: float) -> list[float]:
    out = []
    for value, group in zip(returns, groups, strict=True):
        peers = [r for r, g in zip(returns, groups, strict=True) if g == group]
        mean = math.fsum(peers) / len(peers)
        if max(peers) == min(peers):
            out.append(0.0)
        else:
            variance = math.fsum((r - mean) ** 2 for r in peers) / (len(peers) - ddof)
            out.append((value - mean) / (math.sqrt(variance) + epsilon))
    return out


ROWS = st.lists(st.tuples(st.integers(-8, 8).map(lambda x: x / 4), st.integers(-3, 3)), min_size=1, max_size=24)


@given(rows=ROWS, ddof=st.sampled_from([0, 1]), epsilon=st.sampled_from([0.0, 1e-6, 1e-2]))
def test_group_advantages_equal_a_slow_loop(rows: list[tuple[float, int]], ddof: int, epsilon: float) -> None:
    returns, groups = [r for r, _ in rows], [g for _, g in rows]
    got = group_advantages(torch.tensor(returns, dtype=torch.float64), torch.tensor(groups), ddof=ddof, epsilon=epsilon)
    expected = torch.tensor(slow_advantages(returns, groups, ddof, epsilon), dtype=torch.float64)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


@given(rows=ROWS, turns=st.integers(1, 4), data=st.data())
def test_turn_advantages_equal_a_slow_loop(rows: list[tuple[float, int]], turns: int, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    groups = torch.tensor([g for _, g in rows])
    returns = torch.randint(0, 3, (len(rows), turns), generator=generator).double()
    valid = torch.arange(turns) < torch.randint(1, turns + 1, (len(rows), 1), generator=generator)
    got = turn_advantages(returns.masked_fill(~valid, math.nan), valid, groups, ddof=0, epsilon=1e-6)
    for turn in range(turns):
        here = valid[:, turn]
        expected = slow_advantages(returns[here, turn].tolist(), groups[here].tolist(), 0, 1e-6)
        torch.testing.assert_close(got[here, turn], torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)
        assert not got[~here, turn].any()


@given(rows=ROWS, seed=st.integers(0, 99))
def test_row_order_and_names_of_groups_change_nothing(rows: list[tuple[float, int]], seed: int) -> None:
    returns, groups = torch.tensor([r for r, _ in rows]), torch.tensor([g for _, g in rows])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    got = group_advantages(returns, groups, ddof=1, epsilon=1e-6)
    moved = group_advantages(returns[order], groups[order] * -1000, ddof=1, epsilon=1e-6)
    torch.testing.assert_close(moved, got[order], atol=1e-6, rtol=0)


@given(value=st.floats(-100, 100, width=32), size=st.integers(1, 9), ddof=st.sampled_from([0, 1]))
def test_equal_returns_give_exactly_zero(value: float, size: int, ddof: int) -> None:
    returns, groups = one_group([value] * size)
    assert torch.equal(group_advantages(returns, groups, ddof=ddof, epsilon=0.0), torch.zeros(size))
    assert torch.equal(leave_one_out_advantages(returns, groups), torch.zeros(size))


@given(rows=ROWS, shift=st.sampled_from([-3.0, 0.5]), factor=st.sampled_from([0.5, 10.0]))
def test_shift_and_scale_of_rewards_change_nothing(rows: list[tuple[float, int]], shift: float, factor: float) -> None:
    returns, groups = torch.tensor([r for r, _ in rows]), torch.tensor([g for _, g in rows])
    got = group_advantages(returns, groups, ddof=0, epsilon=1e-6)
    other = group_advantages(returns * factor + shift, groups, ddof=0, epsilon=1e-6)
    torch.testing.assert_close(other, got, atol=1e-4, rtol=0)
    sums = torch.zeros(7).index_add(0, groups + 3, got)
    torch.testing.assert_close(sums, torch.zeros(7), atol=1e-5, rtol=0)


def test_one_turn_is_the_single_turn_algorithm_bit_for_bit() -> None:
    returns, groups = torch.rand(12, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    turns = turn_advantages(returns[:, None], torch.ones(12, 1, dtype=torch.bool), groups, ddof=1, epsilon=1e-6)
    assert torch.equal(turns[:, 0], group_advantages(returns, groups, ddof=1, epsilon=1e-6))


def test_whole_number_rewards_are_not_rounded_away() -> None:
    returns, groups = torch.tensor([1, 0, 0, 0]), torch.zeros(4, dtype=torch.int64)
    expected = torch.tensor([3.0, -1.0, -1.0, -1.0]) / math.sqrt(3)
    torch.testing.assert_close(group_advantages(returns, groups, ddof=0, epsilon=0.0), expected)
    torch.testing.assert_close(leave_one_out_advantages(returns, groups), torch.tensor([1.0] + [-1 / 3] * 3))
    valid = torch.ones(4, 1, dtype=torch.bool)
    by_turn = turn_advantages(returns[:, None], valid, groups, ddof=0, epsilon=0.0)
    torch.testing.assert_close(by_turn[:, 0], expected)


def test_no_gradient_flows_through_rewards() -> None:
    returns, groups = torch.tensor([1.0, 0.0], requires_grad=True), torch.tensor([0, 0])
    assert not group_advantages(returns, groups, ddof=0, epsilon=0.0).requires_grad
    assert not leave_one_out_advantages(returns, groups).requires_grad


def test_token_advantages_follow_turns_and_ignore_junk_outside_the_mask() -> None:
    turns = torch.tensor([[-1, 0, 1, 1], [0, 0, 7, -1]], dtype=torch.int16)
    mask = torch.tensor([[False, True, False, True], [True, True, False, False]])
    per_turn = torch.tensor([[1.0, 2.0], [3.0, math.nan]])
    expected = torch.tensor([[0.0, 1.0, 0.0, 2.0], [3.0, 3.0, 0.0, 0.0]])
    torch.testing.assert_close(token_advantages(per_turn, turns, mask), expected)
    torch.testing.assert_close(
        token_advantages(torch.tensor([1.0, 2.0]), turns, mask), mask * torch.tensor([[1.0], [2.0]])
    )


def test_errors_name_what_is_wrong() -> None:
    returns, groups = one_group([1.0, 0.0])
    with pytest.raises(ValueError, match="needs ddof"):
        group_advantages(returns, groups)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"returns \(2,\) and group_ids \(3,\)"):
        group_advantages(returns, torch.zeros(3, dtype=torch.int64), ddof=0, epsilon=0.0)
    std: Any = "std"
    with pytest.raises(ValueError, match="'turn', 'pooled' or 'center'"):
        valid = torch.ones(2, 1, dtype=torch.bool)
        turn_advantages(returns[:, None], valid, groups, ddof=0, epsilon=0.0, normalization=std)
    with pytest.raises(ValueError, match=r"turn_ids\[0, 1\] is 2"):
        token_advantages(torch.zeros(1, 2), torch.tensor([[0, 2]]), torch.ones(1, 2, dtype=torch.bool))
