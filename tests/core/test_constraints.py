"""Token constraints: what an automaton may be, and how several stand in one table."""

import pytest
import torch

from lit_rl.constraints import ConstraintTable, TokenConstraint


def constraint(allowed: list[list[int]], transitions: list[list[int]]) -> TokenConstraint:
    return TokenConstraint(torch.tensor(allowed, dtype=torch.bool), torch.tensor(transitions))


def test_tables_shift_states() -> None:
    one = constraint([[1, 0, 0]], [[0, 0, 0]])
    two = constraint([[1, 1, 0], [0, 0, 1]], [[0, 1, 9], [9, 9, 0]])  # what is not allowed leads nowhere
    table = ConstraintTable({"one": one, "two": two})
    assert (table.start("one"), table.start("two"), table.start(None)) == (0, 1, -1)
    assert table.allowed.int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert table.transitions[1, :2].tolist() == [1, 2] and int(table.transitions[2, 2]) == 1
    assert table.to("cpu") is table


def test_bad_automata_are_refused() -> None:
    with pytest.raises(ValueError, match=r"allowed \(1, 2\) and transitions \(1, 3\) must both be"):
        constraint([[1, 1]], [[0, 0, 0]])
    with pytest.raises(ValueError, match="state 1 allows no token"):
        constraint([[1, 1], [0, 0]], [[0, 0], [0, 0]])
    with pytest.raises(ValueError, match="a transition leads outside the 1 states"):
        constraint([[1, 1]], [[0, 1]])
    with pytest.raises(ValueError, match="no constraints were given"):
        ConstraintTable({})
    with pytest.raises(ValueError, match=r"No token constraint is called 'b'; known: \['a'\]"):
        ConstraintTable({"a": constraint([[1]], [[0]])}).start("b")
