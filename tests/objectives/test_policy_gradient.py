"""The clipped surrogate: worked examples, gradients, and padding that must not matter."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.objectives import clip_fractions, clipped_policy_loss

# ratio: loss for A = 1, its gradient, for A = -1, its gradient; for A = 1 with clip_high .2; A = -1, dual clip 10, 3
DAPO = {
    0.50: (-0.50, -0.50, 0.80, 0.0, -0.50, 0.80, 0.80),
    0.79: (-0.79, -0.79, 0.80, 0.0, -0.79, 0.80, 0.80),
    1.00: (-1.00, -1.00, 1.00, 1.0, -1.00, 1.00, 1.00),
    1.25: (-1.25, -1.25, 1.25, 1.25, -1.20, 1.25, 1.25),
    1.30: (-1.28, 0.0, 1.30, 1.30, -1.20, 1.30, 1.30),
    2.00: (-1.28, 0.0, 2.00, 2.00, -1.20, 2.00, 2.00),
    12.0: (-1.28, 0.0, 12.0, 12.0, -1.20, 10.0, 3.0),
}


def loss_and_grad(ratio: float, advantage: float, **clips: Any) -> tuple[float, float]:
    log_probs = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss = clipped_policy_loss(log_probs, torch.zeros_like(log_probs), torch.tensor([[advantage]]), mask, **clips)
    loss.sum().backward()
    assert log_probs.grad is not None
    return loss.item(), log_probs.grad.item()


@pytest.mark.parametrize("ratio", DAPO)
def test_dapo_golden_values(ratio: float) -> None:
    up, up_grad, down, down_grad, narrow, dual_10, dual_3 = DAPO[ratio]
    clips = {"clip_low": 0.2, "clip_high": 0.28}
    assert loss_and_grad(ratio, 1.0, **clips) == pytest.approx((up, up_grad))
    assert loss_and_grad(ratio, -1.0, **clips) == pytest.approx((down, down_grad))
    assert loss_and_grad(ratio, 1.0, clip_low=0.2, clip_high=0.2)[0] == pytest.approx(narrow)
    for clip, loss in ((10.0, dual_10), (3.0, dual_3)):
        grad = 0.0 if ratio > clip else down_grad
        assert loss_and_grad(ratio, -1.0, dual_clip=clip, **clips) == pytest.approx((loss, grad))
        assert loss_and_grad(ratio, 1.0, dual_clip=clip, **clips) == pytest.approx((up, up_grad))


def test_clipped_objective_of_arxiv_2602_16488_golden_values() -> None:
    log_probs, mask = torch.tensor([[0.3, -0.1]]), torch.ones(1, 2, dtype=torch.bool)
    for advantage, expected in ((1.2, [1.44, 1.085805]), (-0.5, [-0.674929, -0.452419])):
        loss = clipped_policy_loss(log_probs, torch.zeros(1, 2), torch.tensor([[advantage]]), mask)
        torch.testing.assert_close(-loss, torch.tensor([expected]), atol=1e-6, rtol=0)


def random_tokens(seed: int, rows: int = 3, tokens: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    old = torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    new = old + 0.5 * torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    advantages = torch.randn(rows, 1, generator=generator, dtype=torch.float64)
    return new, old, advantages, torch.rand(rows, tokens, generator=generator) < 0.6


@given(seed=st.integers(0, 500), dual=st.sampled_from([None, 1.4, 3.0]))
def test_loss_and_counts_equal_a_slow_loop(seed: int, dual: float | None) -> None:
    new, old, advantages, mask = random_tokens(seed)
    loss = clipped_policy_loss(new, old, advantages, mask, clip_low=0.1, clip_high=0.3, dual_clip=dual)
    counts = clip_fractions(new, old, advantages, mask, clip_low=0.1, clip_high=0.3, dual_clip=dual)
    high = low = far = 0
    for row, token in torch.cartesian_prod(torch.arange(3), torch.arange(6)).tolist():
        ratio = math.exp(new[row, token].item() - old[row, token].item())
        advantage = advantages[row, 0].item()
        expected = -min(ratio * advantage, min(max(ratio, 0.9), 1.3) * advantage)
        if dual and advantage < 0:
            expected = min(expected, -advantage * dual)
        learned = bool(mask[row, token])
        assert loss[row, token].item() == pytest.approx(expected if learned else 0.0, abs=1e-12)
        high += learned and advantage > 0 and ratio > 1.3
        low += learned and advantage < 0 and ratio < 0.9
        far += learned and advantage < 0 and dual is not None and ratio > dual
    assert [int(c) for c in counts] == [high, low, far, int(mask.sum())]


@given(seed=st.integers(0, 50), junk=st.sampled_from([0.0, -1e4, math.inf, -math.inf, math.nan]))
def test_junk_outside_the_mask_changes_neither_loss_nor_gradient(seed: int, junk: float) -> None:
    new, old, advantages, mask = random_tokens(seed)

    def run(filler: float) -> tuple[Tensor, Tensor | None, list[int]]:
        log_probs = new.masked_fill(~mask, filler).requires_grad_()
        others = (old.masked_fill(~mask, filler), advantages.expand_as(new).masked_fill(~mask, filler), mask)
        loss = clipped_policy_loss(log_probs, *others, dual_clip=3.0)
        loss.sum().backward()
        return loss, log_probs.grad, [int(c) for c in clip_fractions(log_probs, *others, dual_clip=3.0)]

    torch.testing.assert_close(run(junk), run(1.0), rtol=0, atol=0)


@given(seed=st.integers(0, 50), factor=st.sampled_from([0.25, 3.0]))
def test_loss_is_linear_in_positive_scale_of_advantages(seed: int, factor: float) -> None:
    new, old, advantages, mask = random_tokens(seed)
    loss = clipped_policy_loss(new, old, advantages, mask, dual_clip=2.0)
    torch.testing.assert_close(clipped_policy_loss(new, old, advantages * factor, mask, dual_clip=2.0), loss * factor)
    assert not clipped_policy_loss(new, old, advantages * 0, mask, dual_clip=2.0).any()


def test_log_ratio_is_clamped_so_that_nothing_overflows() -> None:
    log_probs = torch.tensor([[500.0, -500.0]], requires_grad=True)
    loss = clipped_policy_loss(log_probs, torch.zeros(1, 2), torch.tensor([[-1.0]]), torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(loss, torch.tensor([[math.exp(20.0), 0.8]]))
    loss.sum().backward()
    torch.testing.assert_close(log_probs.grad, torch.zeros(1, 2))


def test_no_gradient_through_sampler_and_advantages() -> None:
    old, advantages = torch.zeros(1, 1, requires_grad=True), torch.ones(1, 1, requires_grad=True)
    log_probs = torch.zeros(1, 1, requires_grad=True)
    clipped_policy_loss(log_probs, old, advantages, torch.ones(1, 1, dtype=torch.bool)).sum().backward()
    assert old.grad is None and advantages.grad is None


@pytest.mark.parametrize("clips", [{"clip_low": -0.1}, {"clip_low": 1.5}, {"clip_high": -1.0}, {"dual_clip": 1.0}])
def test_clips_out_of_range_are_refused(clips: dict[str, float]) -> None:
    zeros, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    for function in (clipped_policy_loss, clip_fractions):
        with pytest.raises(ValueError, match=next(iter(clips))):
            function(zeros, zeros, zeros, mask, **clips)
