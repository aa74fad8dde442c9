"""Preferences between dialogues: golden values of gopo.md 11, property 6 of its section 12, pairs by a slow loop."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.objectives.preference import pairwise_loss
from lit_rl.objectives.trajectory_preference import (
    dialogue_log_ratios,
    preference_pairs,
    trajectory_margin,
)

WINNER = [-0.2, -0.5, -0.3], [-0.4, -0.6, -0.5]
LOSER = [-0.9, -0.4], [-0.7, -0.5]
ZERO = torch.zeros(1, dtype=torch.float64)


def loss_of(*arguments: Tensor, **options: float) -> Tensor:
    """As `lit_rl.methods.OfflineGOPO` has it."""
    return pairwise_loss(trajectory_margin(*arguments, **options))


def ratio(log_probs: list[float], ref_log_probs: list[float], padding: int = 0, junk: float = 0.0) -> Tensor:
    mask = [True] * len(log_probs) + [False] * padding
    rows = [torch.tensor([row + [junk] * padding], dtype=torch.float64) for row in (log_probs, ref_log_probs)]
    return dialogue_log_ratios(*rows, torch.tensor([mask]))


def test_ratios_of_section_11() -> None:
    assert ratio(*WINNER).item() == pytest.approx(0.5)  # .2 + .1 + .2
    assert ratio(*LOSER).item() == pytest.approx(-0.1)  # -.2 + .1


@pytest.mark.parametrize(("kl_coef", "margin", "loss"), [(0.1, 0.06, 0.663597), (0.5, 0.30, 0.554355)])
def test_losses_of_section_11(kl_coef: float, margin: float, loss: float) -> None:
    both = ratio(*WINNER), ratio(*LOSER), ZERO, ZERO
    assert trajectory_margin(*both, kl_coef=kl_coef).item() == pytest.approx(margin)
    assert loss_of(*both, kl_coef=kl_coef).item() == pytest.approx(loss, abs=1e-6)


def test_the_return_margin_asks_more_of_pairs_that_are_further_apart() -> None:
    both, returns = (ratio(*WINNER), ratio(*LOSER)), (torch.tensor([0.9]).double(), torch.tensor([0.4]).double())
    assert trajectory_margin(*both, *returns, kl_coef=0.1, return_margin=0.2).item() == pytest.approx(0.06 - 0.1)
    found = loss_of(*both, *returns, kl_coef=0.1, return_margin=0.2).item()
    assert found == pytest.approx(math.log(1 + math.exp(0.04)))


def test_gradient_is_that_of_dpo_on_every_turn() -> None:
    """``d loss / d log pi(z_t) = -b sigmoid(-m)`` on turns of the winner, the opposite on those of the loser."""
    rows = [torch.tensor([row], dtype=torch.float64, requires_grad=True) for row in (WINNER[0], LOSER[0])]
    refs = [torch.tensor([row], dtype=torch.float64, requires_grad=True) for row in (WINNER[1], LOSER[1])]
    chosen, rejected = (
        dialogue_log_ratios(row, ref, torch.ones_like(row).bool()) for row, ref in zip(rows, refs, strict=True)
    )
    loss_of(chosen, rejected, ZERO, ZERO, kl_coef=0.5).sum().backward()
    slope = -0.5 / (1 + math.exp(0.30))
    torch.testing.assert_close(rows[0].grad, torch.full((1, 3), slope, dtype=torch.float64))
    torch.testing.assert_close(rows[1].grad, torch.full((1, 2), -slope, dtype=torch.float64))
    assert refs[0].grad is None and refs[1].grad is None


LOG_PROBS = st.lists(st.floats(-9, 0), min_size=1, max_size=4)


@settings(max_examples=40)
@given(first=LOG_PROBS, second=LOG_PROBS, worth=st.floats(-1, 1), padding=st.integers(0, 3))
def test_properties_of_section_12(first: list[float], second: list[float], worth: float, padding: int) -> None:
    """Item 6: equal dialogues give log 2, and so does the reference; swapping gives -m; padding changes nothing."""
    reference = [-1.0] * 4
    one, other = ratio(first, reference[: len(first)]), ratio(second, reference[: len(second)])
    gain = torch.tensor([worth], dtype=torch.float64)
    assert loss_of(one, one, gain, gain, return_margin=0.3).item() == pytest.approx(math.log(2))
    same = ratio(first, first), ratio(second, second)
    assert loss_of(*same, gain, ZERO).item() == pytest.approx(math.log(2))
    margin = trajectory_margin(one, other, gain, ZERO, return_margin=0.3)
    torch.testing.assert_close(trajectory_margin(other, one, ZERO, gain, return_margin=0.3), -margin)
    assert torch.equal(ratio(first, reference[: len(first)], padding, junk=-math.inf), one)


def test_padding_leaves_the_gradient_alone() -> None:
    log_probs = torch.tensor([[-0.5, -math.inf]], requires_grad=True)
    mask = torch.tensor([[True, False]])
    dialogue_log_ratios(log_probs, torch.tensor([[-1.0, -math.inf]]), mask).sum().backward()
    assert torch.equal(log_probs.grad, torch.tensor([[1.0, 0.0]]))


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 2)), min_size=1, max_size=8),
    gap=st.sampled_from([0.0, 0.1, 0.25]),
)
def test_pairs_by_a_slow_loop(rows: list[tuple[int, int]], gap: float) -> None:
    returns = torch.tensor([tenths / 8 for tenths, _ in rows], dtype=torch.float64)
    groups = torch.tensor([group for _, group in rows])
    slow = [
        [i, j]
        for i in range(len(rows))
        for j in range(len(rows))
        if rows[i][1] == rows[j][1] and returns[i] - returns[j] > gap
    ]
    assert preference_pairs(returns, groups, min_gap=gap).tolist() == slow


def test_pairs_of_equal_returns_are_none() -> None:
    found = preference_pairs(torch.tensor([0.5, 0.5]), torch.tensor([1, 1]), min_gap=0.0)
    assert found.shape == (0, 2) and found.dtype == torch.int64
    within = preference_pairs(torch.tensor([0.5, 0.51]), torch.tensor([1, 1]))
    assert len(within) == 0


def test_bad_input() -> None:
    def refused(message: str, act: Callable[[], object]) -> None:
        with pytest.raises(ValueError, match=message):
            act()

    two, flat = torch.zeros(2, 3), torch.zeros(2)
    refused(
        r"log_probs \(2, 3\), ref_log_probs \(2,\) and turn_mask \(2, 3\) must all be \(dialogues, turns\)",
        lambda: dialogue_log_ratios(two, flat, two.bool()),
    )
    refused(r"have the shapes \[\(2,\), \(2,\), \(1,\)", lambda: trajectory_margin(flat, flat, ZERO, flat))
    refused(r"all must be \(pairs,\)", lambda: trajectory_margin(two, two, two, two))
    refused(r"kl_coef is 0 and return_margin 0.0", lambda: trajectory_margin(flat, flat, flat, flat, kl_coef=0))
    refused(
        r"return_margin -1; the first must be above 0",
        lambda: trajectory_margin(flat, flat, flat, flat, return_margin=-1),
    )
    refused(r"returns \(2,\) and group_ids \(1,\)", lambda: preference_pairs(flat, torch.zeros(1)))
    refused(r"min_gap is -1; it must be at least 0", lambda: preference_pairs(flat, flat, min_gap=-1))
