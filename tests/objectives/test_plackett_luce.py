"""Plackett and Luce by hand, and what holds for any logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.objectives.plackett_luce import plackett_luce_log_probs

LOGITS = torch.tensor([[1.0, 0.5, 0.0, -1.0]])
FIRST_THREE = torch.tensor([[True, True, True, False]])


def chain(*skills: int) -> Tensor:
    return torch.tensor([skills])


def test_golden_values() -> None:
    """gopo.md 11, Plackett-Luce; the unmasked first choice too."""
    got = plackett_luce_log_probs(LOGITS, chain(1, 0), FIRST_THREE)
    torch.testing.assert_close(got, torch.tensor([[-1.180270, -0.313262]]), atol=1e-6, rtol=0)
    assert float(got.sum()) == pytest.approx(-1.493531, abs=2e-6)
    assert float(plackett_luce_log_probs(LOGITS, chain(0, 1, 2), FIRST_THREE).sum()) == pytest.approx(
        -1.154347, abs=1e-6
    )
    everything = torch.ones(1, 4, dtype=torch.bool)
    assert float(plackett_luce_log_probs(LOGITS, chain(0), everything)) == pytest.approx(-0.746567, abs=1e-6)


def test_golden_masked_planner() -> None:
    """gopo.md 11, masked planner."""
    logits = torch.tensor([[0.2, 1.0, -0.5, 0.3, 0.0, 2.0, 0.1, -1.0]]).expand(5, 8)
    mask = torch.tensor([[0, 1, 0, 1, 1, 1, 0, 1]], dtype=torch.bool).expand(5, 8)
    got = plackett_luce_log_probs(logits, torch.tensor([[1], [3], [4], [5], [7]]), mask)[:, 0]
    wanted = torch.tensor([-1.551402, -2.251402, -2.551402, -0.551402, -3.551402])
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)
    assert float(-(got.exp() * got).sum()) == pytest.approx(1.184278, abs=1e-6)


masks = st.lists(st.booleans(), min_size=5, max_size=5).filter(any)


@settings(max_examples=20, deadline=None)
@given(logits=st.lists(st.floats(-5, 5), min_size=5, max_size=5), first=masks, later=masks, length=st.integers(1, 4))
def test_chains_sum_to_one(logits: list[float], first: list[bool], later: list[bool], length: int) -> None:
    """Over all chains, shorter ones included where nothing is left."""

    def longer(so_far: tuple[int, ...]) -> list[tuple[int, ...]]:
        left = [z for z in range(5) if (later if so_far else first)[z] and z not in so_far]
        if len(so_far) == length or not left:
            return [so_far]
        return [whole for z in left for whole in longer((*so_far, z))]

    chains = torch.tensor([[*whole, *[-1] * (length - len(whole))] for whole in longer(())])
    rows = torch.tensor([logits], dtype=torch.float64).expand(len(chains), 5)
    got = plackett_luce_log_probs(
        rows, chains, torch.tensor([first]).expand_as(rows), later=torch.tensor([later]).expand_as(rows)
    )
    assert got.dtype == torch.float64
    torch.testing.assert_close(got.sum(1).exp().sum(), torch.tensor(1.0, dtype=torch.float64))


@settings(max_examples=20, deadline=None)
@given(logits=st.lists(st.floats(-5, 5), min_size=5, max_size=5), admissible=masks)
def test_one_place_is_a_masked_categorical(logits: list[float], admissible: list[bool]) -> None:
    mask, row = torch.tensor(admissible), torch.tensor(logits)
    wanted = torch.distributions.Categorical(logits=row.masked_fill(~mask, -torch.inf)).logits
    for skill in mask.nonzero().flatten().tolist():
        got = plackett_luce_log_probs(row[None], chain(skill), mask[None])
        torch.testing.assert_close(got[0, 0], wanted[skill])


def test_gradients_by_hand() -> None:
    """Minus what is left of the probabilities each time, plus one for the chosen; exactly 0 where masked."""
    logits = LOGITS.clone().requires_grad_()
    plackett_luce_log_probs(logits, chain(1, 0), FIRST_THREE).sum().backward()
    first = LOGITS[0, :3].softmax(0)
    second = LOGITS[0, [0, 2]].softmax(0)
    wanted = [1 - first[0] - second[0], 1 - first[1], -first[2] - second[1], torch.tensor(0.0)]
    assert logits.grad is not None and logits.grad[0, 3] == 0
    torch.testing.assert_close(logits.grad[0], torch.stack(wanted))


def test_padding_gives_zeros_and_no_nan() -> None:
    """A chain that is over because nothing is left has finite gradients."""
    logits = LOGITS.repeat(2, 1).requires_grad_()
    only = torch.tensor([[False, True, False, False], [True, True, True, True]])
    got = plackett_luce_log_probs(logits, torch.tensor([[1, -1, -1], [2, 1, 3]]), only)
    assert got[0].tolist() == [0, 0, 0] and (got[1] < 0).all()
    got.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and not logits.grad[0].any()


@pytest.mark.parametrize(
    ("chains", "message"),
    [
        ([[3]], "at place 0 a chain has a skill that was not admissible"),
        ([[1, 1]], "at place 1 a chain has a skill that was not admissible, or had been chosen before"),
        ([[-1, 1]], "-1 before a skill; padding stands behind"),
        ([1], r"chains \(1,\) \(B, m\)"),
    ],
)
def test_bad_chains_are_refused(chains: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plackett_luce_log_probs(LOGITS, torch.tensor(chains), FIRST_THREE)
