"""Turns as single actions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.objectives import first_tokens, turn_sums

MASKS = st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=4)


@given(MASKS, st.integers(0, 9))
def test_sums_are_those_of_a_loop(rows: list[list[bool]], seed: int) -> None:
    mask = torch.tensor(rows)
    values = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wanted, begins = torch.zeros_like(values), torch.zeros_like(mask)
    for row in range(len(mask)):
        first = -1
        for place in range(mask.shape[1]):
            if not mask[row, place]:
                first = -1
                continue
            first = place if first < 0 else first
            begins[row, first] = True
            wanted[row, first] += values[row, place]
    torch.testing.assert_close(turn_sums(values, mask), wanted)
    assert torch.equal(first_tokens(mask), begins)


def test_gradients_reach_all_tokens_of_a_turn_and_no_others() -> None:
    mask = torch.tensor([[False, True, True, False, True]])
    values = torch.tensor([[math.nan, 1.0, 2.0, math.inf, 4.0]], requires_grad=True)
    (turn_sums(values, mask) * torch.tensor([[9.0, 2.0, 9.0, 9.0, 5.0]])).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [[0.0, 2.0, 2.0, 0.0, 5.0]]


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"values \(1, 3\) and mask \(1, 2\) must both be \(rows, tokens\)"):
        turn_sums(torch.zeros(1, 3), torch.ones(1, 2, dtype=torch.bool))
