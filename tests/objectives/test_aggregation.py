"""Loss aggregation: worked examples, a slow loop, and splits that must not matter."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.objectives import (
    AggregationMode,
    KLEstimator,
    aggregate,
    aggregation_totals,
    clip_fractions,
    clipped_policy_loss,
    kl_estimate,
    token_weights,
)

MODES: tuple[AggregationMode, ...] = get_args(AggregationMode)
# The worked example of DAPO: four rows of 2, 5, 1 and 4 tokens, ratio 9 in all padding.
RATIOS = torch.tensor(
    [[1, 1.4, 9, 9, 9], [1, 0.7, 1.1, 1, 0.9], [1.25, 9, 9, 9, 9], [1, 1, 1.5, 0.5, 9]], dtype=torch.float64
)
MASK = torch.arange(5) < torch.tensor([[2], [5], [1], [4]])
ADVANTAGES = torch.tensor([[1.0], [-1.0], [0.5], [-0.5]])
GROUPS = torch.tensor([0, 0, 1, 1])


def example(mask: Tensor, mode: AggregationMode, ratios: Tensor = RATIOS) -> tuple[Tensor, Tensor]:
    log_probs = ratios.log().requires_grad_()
    loss = clipped_policy_loss(log_probs, torch.zeros_like(log_probs), ADVANTAGES, mask, clip_low=0.2, clip_high=0.28)
    return aggregate(loss, mask, mode=mode, group_ids=GROUPS, max_length=5), log_probs


@pytest.mark.parametrize(
    ("mode", "value"),
    [
        ("token_mean", 0.3370833333),
        ("seq_mean_token_mean", -0.066875),
        ("seq_mean_token_sum", 1.01125),
        ("seq_mean_token_sum_norm", 0.20225),
        ("group_token_mean", 0.3325),
    ],
)
def test_dapo_golden_values(mode: AggregationMode, value: float) -> None:
    assert example(MASK, mode)[0].item() == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize(
    ("mode", "grads"),
    [
        ("token_mean", [-1 / 12, 0, 1 / 12, 0, 0.0916667, 1 / 12, 0.075, -0.0520833, 1 / 24, 1 / 24, 0.0625, 0]),
        ("seq_mean_token_mean", [-0.125, 0, 0.05, 0, 0.055, 0.05, 0.045, -0.15625, 0.03125, 0.03125, 0.046875, 0]),
    ],
)
def test_dapo_golden_gradients(mode: AggregationMode, grads: list[float]) -> None:
    loss, log_probs = example(MASK, mode)
    loss.backward()
    assert log_probs.grad is not None
    torch.testing.assert_close(log_probs.grad[MASK], torch.tensor(grads, dtype=torch.float64), atol=1e-7, rtol=0)
    assert not log_probs.grad[~MASK].any()


def test_dapo_golden_statistics() -> None:
    log_probs, zeros = RATIOS.log(), torch.zeros(4, 5, dtype=torch.float64)
    counts = clip_fractions(log_probs, zeros, ADVANTAGES, MASK, clip_low=0.2, clip_high=0.28)
    assert [int(c) for c in counts] == [1, 2, 0, 12]
    # The sampled policy is the old one here: KL(old || new) from its own tokens.
    golden: dict[KLEstimator, float] = {"k1": 0.0078992970, "k3": 0.0370659637}
    for estimator, mean in golden.items():
        estimate = kl_estimate(zeros, log_probs, estimator=estimator, loss_mask=MASK)
        assert (estimate.sum() / 12).item() == pytest.approx(mean, abs=1e-9)


def test_fully_masked_rows_count_in_no_denominator() -> None:
    mask = MASK & torch.tensor([[True], [False], [True], [True]])
    assert example(mask, "token_mean")[0].item() == pytest.approx(-0.755 / 7)
    assert example(mask, "seq_mean_token_mean")[0].item() == pytest.approx(-0.4091666667)
    assert example(mask, "group_token_mean")[0].item() == pytest.approx((-2.28 / 2 + 1.525 / 5) / 2)


def test_on_policy_and_dilution_golden_values() -> None:
    assert example(MASK, "token_mean", torch.ones_like(RATIOS))[0].item() == pytest.approx(0.375)
    assert example(MASK, "seq_mean_token_mean", torch.ones_like(RATIOS))[0].item() == pytest.approx(0.0, abs=1e-7)
    mask = torch.arange(100) < torch.tensor([[100], [10]])
    loss = torch.tensor([[-1.0], [1.0]]).expand(2, 100)
    assert aggregate(loss, mask, mode="token_mean").item() == pytest.approx(-90 / 110)
    assert aggregate(loss, mask, mode="seq_mean_token_mean").item() == pytest.approx(0.0, abs=1e-6)


def test_aggregation_of_arxiv_2602_16488_golden_values() -> None:
    mask = torch.arange(6) < torch.tensor([[2], [6]])
    loss = torch.tensor([[-1.0], [1.0]]).expand(2, 6)
    assert aggregate(loss, mask, mode="seq_mean_token_mean").item() == pytest.approx(0.0, abs=1e-7)
    assert aggregate(loss, mask, mode="token_mean").item() == pytest.approx(0.5)
    assert aggregate(loss, mask, mode="seq_mean_token_sum_norm", max_length=8).item() == pytest.approx(0.25)


def random_step(seed: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, mask (some rows empty) and groups of an optimizer step."""
    generator = torch.Generator().manual_seed(seed)
    losses = torch.randn(rows, 7, generator=generator)
    mask = torch.rand(rows, 7, generator=generator) < torch.rand(rows, 1, generator=generator)
    return losses, mask, torch.randint(0, 3, (rows,), generator=generator)


def slow_aggregate(losses: Tensor, mask: Tensor, groups: Tensor, mode: str, max_length: int) -> float:
    rows = [
        ([x.item() for x, m in zip(row, marks, strict=True) if m], int(group))
        for row, marks, group in zip(losses.double(), mask, groups, strict=True)
    ]
    rows = [(tokens, group) for tokens, group in rows if tokens]
    if not rows:
        return 0.0
    by_group: dict[int, list[float]] = {}
    for tokens, group in rows:
        by_group.setdefault(group, []).extend(tokens)
    everything = [x for tokens, _ in rows for x in tokens]
    values = {
        "token_mean": math.fsum(everything) / len(everything),
        "seq_mean_token_mean": math.fsum(math.fsum(t) / len(t) for t, _ in rows) / len(rows),
        "seq_mean_token_sum": math.fsum(everything) / len(rows),
        "seq_mean_token_sum_norm": math.fsum(everything) / len(rows) / max_length,
        "group_token_mean": math.fsum(math.fsum(t) / len(t) for t in by_group.values()) / len(by_group),
    }
    return values[mode]


@pytest.mark.parametrize("mode", MODES)
@given(seed=st.integers(0, 300), rows=st.integers(1, 9), junk=st.sampled_from([0.0, math.inf, math.nan]))
def test_aggregate_equals_a_slow_loop(mode: AggregationMode, seed: int, rows: int, junk: float) -> None:
    losses, mask, groups = random_step(seed, rows)
    got = aggregate(losses.masked_fill(~mask, junk), mask, mode=mode, group_ids=groups, max_length=11)
    assert got.item() == pytest.approx(slow_aggregate(losses, mask, groups, mode, 11), abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
@given(seed=st.integers(0, 300), size=st.integers(1, 4))
def test_micro_batches_row_order_and_padding_change_nothing(mode: AggregationMode, seed: int, size: int) -> None:
    losses, mask, groups = random_step(seed, 8)
    whole = aggregate(losses, mask, mode=mode, group_ids=groups, max_length=11)
    totals = aggregation_totals(mask, groups)
    total = torch.zeros(())
    for rows in torch.randperm(8, generator=torch.Generator().manual_seed(seed)).split(size):
        wider = torch.nn.functional.pad(mask[rows], (0, 3))
        weights = token_weights(wider, mode=mode, totals=totals, group_ids=groups[rows], max_length=11)
        total = total + (weights[:, :7] * losses[rows]).sum()
        assert not weights[:, 7:].any()
    torch.testing.assert_close(total, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@given(seed=st.integers(0, 300), cut=st.integers(0, 8))
def test_ranks_change_nothing(mode: AggregationMode, seed: int, cut: int) -> None:
    losses, mask, groups = random_step(seed, 8)
    groups = groups + 10 * (torch.arange(8) >= cut)  # a group never spans ranks
    ranks = [slice(0, cut), slice(cut, 8)]
    totals = [aggregation_totals(mask[rank], groups[rank]) for rank in ranks]
    counts = totals[0].counts + totals[1].counts
    total = torch.zeros(())
    for rank, local in zip(ranks, totals, strict=True):
        if cut in (0, 8) and rank.start == rank.stop:
            continue  # an idle rank
        weights = token_weights(
            mask[rank], mode=mode, totals=local.with_counts(counts), group_ids=groups[rank], max_length=11
        )
        total = total + (weights * losses[rank]).sum()
    whole = aggregate(losses, mask, mode=mode, group_ids=groups, max_length=11)
    torch.testing.assert_close(total, whole, atol=1e-5, rtol=1e-5)


@given(seed=st.integers(0, 100))
def test_equal_lengths_make_token_and_row_means_equal(seed: int) -> None:
    losses, _, _ = random_step(seed, 5)
    mask = (torch.arange(7) < 4).expand(5, 7)
    by_row = aggregate(losses, mask, mode="seq_mean_token_mean")
    torch.testing.assert_close(aggregate(losses, mask, mode="token_mean"), by_row, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_a_step_without_tokens_is_zero(mode: AggregationMode) -> None:
    mask = torch.zeros(2, 3, dtype=torch.bool)
    groups = torch.tensor([0, 1])
    assert aggregate(torch.full((2, 3), math.nan), mask, mode=mode, group_ids=groups, max_length=3).item() == 0.0


def test_what_a_mode_needs_is_asked_for() -> None:
    totals = aggregation_totals(MASK, GROUPS)
    with pytest.raises(ValueError, match="token_mean, seq_mean"):
        token_weights(MASK, mode="mean", totals=totals)
    with pytest.raises(ValueError, match="max_length"):
        token_weights(MASK, mode="seq_mean_token_sum_norm", totals=totals)
    with pytest.raises(ValueError, match="needs group_ids"):
        token_weights(MASK, mode="group_token_mean", totals=totals)
    with pytest.raises(ValueError, match="not in totals"):
        token_weights(MASK, mode="group_token_mean", totals=totals, group_ids=GROUPS + 5)
