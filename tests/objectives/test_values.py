"""Clipped value losses (hiper.md 5.3 and 10) and explained variance."""

import math

import pytest
import torch

from lit_rl.objectives.values import clipped_value_loss, explained_variance, variance_sums

ALL = torch.ones(6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("old", "returns", "wanted"),
    [  # hiper.md 10 A and B, at v = v_old
        ([0.2, 0.3, 0.4, 0.35, 0.5, 0.6], [0.45, 0.45, 0.6, 0.6, 0.7, 1.0], 0.06458333),
        ([0.25, 0.45, 0.7], [0.86325, 0.885, 1.0], 0.21843352),
        ([0.22, 0.28, 0.42, 0.33, 0.48, 0.66], [0.45, 0.45, 0.6, 0.6, 0.7, 1.0], 0.05851667),
        ([0.25, 0.45, 0.7], [0.66292114, 0.74951437, 1.0], 0.11673758),
    ],
)
def test_golden_critic_losses(old: list[float], returns: list[float], wanted: float) -> None:
    values = torch.tensor(old)
    loss = clipped_value_loss(values, values, torch.tensor(returns), ALL[: len(old)], clip_range=0.5)
    assert float(loss.mean()) == pytest.approx(wanted, abs=1e-7)


def test_the_larger_error_counts_and_a_clipped_value_has_no_gradient() -> None:
    values = torch.tensor([2.0, 2.0, 0.5], requires_grad=True)
    old, returns = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([3.0, 0.0, 3.0])
    loss = clipped_value_loss(values, old, returns, ALL[:3], clip_range=0.5)
    # held at 1.5: (1.5 - 3)^2 > (2 - 3)^2, but (2 - 0)^2 > (1.5 - 0)^2; at the edge of the clip both are (0.5 - 3)^2
    torch.testing.assert_close(loss, torch.tensor([2.25, 4.0, 6.25]))
    loss[:2].sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([0.0, 4.0, 0.0]))
    free = clipped_value_loss(values, old, returns, ALL[:3], clip_range=None)
    torch.testing.assert_close(free.detach(), torch.tensor([1.0, 4.0, 6.25]))


def test_what_is_outside_the_mask_reaches_nothing() -> None:
    values = torch.tensor([1.0, math.nan], requires_grad=True)
    junk, mask = torch.tensor([2.0, math.inf]), torch.tensor([True, False])
    loss = clipped_value_loss(values, junk, junk, mask, clip_range=0.5)
    loss.sum().backward()
    assert loss.tolist() == [1.0, 0.0] and values.grad is not None and values.grad.isfinite().all()
    assert variance_sums(values, junk, mask).tolist() == [1.0, 2.0, 4.0, 1.0, 1.0]


@pytest.mark.parametrize("clip_range", [0.0, -1.0, math.nan])
def test_bad_clip(clip_range: float) -> None:
    with pytest.raises(ValueError, match="clip_range is"):
        clipped_value_loss(ALL.float(), ALL.float(), ALL.float(), ALL, clip_range=clip_range)


def test_explained_variance_adds_up_over_batches() -> None:
    values, returns = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = 1 - float((returns - values).var() / returns.var())
    first = torch.arange(50) < 20
    sums = variance_sums(values, returns, first) + variance_sums(values, returns, ~first)
    assert explained_variance(sums) == pytest.approx(wanted, abs=1e-12)
    everywhere = torch.ones(50, dtype=torch.bool)
    assert explained_variance(variance_sums(returns, returns, everywhere)) == 1
    assert math.isnan(explained_variance(variance_sums(values, torch.full((50,), 0.1), everywhere)))
    assert math.isnan(explained_variance(variance_sums(values, returns, everywhere & False)))
