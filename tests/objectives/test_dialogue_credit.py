"""Credit of turns in dialogues that are compared in groups (gopo.md section 5), against loops written from it."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.objectives import centred_in_group, leave_one_out_by_turn, one_row_per_dialogue

DIALOGUES, TURNS = 6, 3
VALUES = st.lists(st.floats(-2, 2), min_size=DIALOGUES * TURNS, max_size=DIALOGUES * TURNS)
GROUPS = st.lists(st.sampled_from([3, 7]), min_size=DIALOGUES, max_size=DIALOGUES)
DEFINED = st.lists(st.booleans(), min_size=DIALOGUES * TURNS, max_size=DIALOGUES * TURNS)


def tables(values: list[float], groups: list[int], defined: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    shape = (DIALOGUES, TURNS)
    known = torch.tensor(defined).view(shape)
    numbers = torch.tensor(values, dtype=torch.float64).view(shape).masked_fill(~known, math.nan)
    return numbers, torch.tensor(groups), known


@given(VALUES, GROUPS, DEFINED)
def test_less_the_mean_of_the_group(values: list[float], groups: list[int], defined: list[bool]) -> None:
    table, ids, known = tables(values, groups, defined)
    found = centred_in_group(table, ids, known)
    for dialogue, turn in known.nonzero().tolist():
        same = [table[d, t] for d, t in known.nonzero().tolist() if groups[d] == groups[dialogue]]
        assert float(found[dialogue, turn]) == pytest.approx(
            float(table[dialogue, turn] - sum(same) / len(same)), abs=1e-9
        )
    assert not found[~known].any()


@given(VALUES, GROUPS, DEFINED)
def test_less_the_mean_of_the_others_at_the_turn(values: list[float], groups: list[int], defined: list[bool]) -> None:
    table, ids, known = tables(values, groups, defined)
    found = leave_one_out_by_turn(table, ids, known)
    for dialogue, turn in known.nonzero().tolist():
        others = [
            table[d, turn]
            for d in range(DIALOGUES)
            if d != dialogue and groups[d] == groups[dialogue] and known[d, turn]
        ]
        wanted = float(table[dialogue, turn] - sum(others) / len(others)) if others else 0.0
        assert float(found[dialogue, turn]) == pytest.approx(wanted, abs=1e-9)
    assert not found[~known].any()


def test_golden_advantages() -> None:
    """gopo.md section 11: R = (.85, .85, .4, .1) of one customer."""
    returns = torch.tensor([[0.85], [0.85], [0.4], [0.1]], dtype=torch.float64)
    found = leave_one_out_by_turn(returns, torch.zeros(4, dtype=torch.int64), torch.ones(4, 1, dtype=torch.bool))
    assert found.flatten().tolist() == pytest.approx([0.4, 0.4, -0.2, -0.6])


def test_one_row_of_each_dialogue() -> None:
    ids = torch.tensor([9, 4, 9, 4, 2])
    first, back = one_row_per_dialogue(ids)
    assert first.tolist() == [4, 1, 0] and torch.equal(ids[first][back], ids)
    assert [tensor.shape for tensor in one_row_per_dialogue(ids[:0])] == [(0,), (0,)]


@pytest.mark.parametrize("credit", [centred_in_group, leave_one_out_by_turn])
def test_other_shapes_are_refused(credit: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"values \(2, 3\) and defined \(2, 3\) .* group_ids \(3,\) \(dialogues,\)"):
        credit(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool))
