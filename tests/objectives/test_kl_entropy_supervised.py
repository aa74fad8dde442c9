"""KL estimators, entropy and cross-entropy against exact sums over a small vocabulary."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.objectives import KLEstimator, categorical_entropy, kl_estimate, masked_cross_entropy, target_total


def distributions(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.log_softmax(-1)[0], logits.log_softmax(-1)[1]


@given(seed=st.integers(0, 200), estimator=st.sampled_from(["k1", "k3"]))
def test_k1_and_k3_are_unbiased(seed: int, estimator: KLEstimator) -> None:
    policy, reference = distributions(seed)
    expected = (policy.exp() * (policy - reference)).sum()
    mean = (policy.exp() * kl_estimate(policy, reference, estimator=estimator)).sum()
    torch.testing.assert_close(mean, expected)


@given(seed=st.integers(0, 200))
def test_gradient_of_k2_is_that_of_the_divergence_and_of_k1_is_nothing(seed: int) -> None:
    def gradient(estimator: KLEstimator | None) -> torch.Tensor:
        logits = distributions(seed)[0].clone().requires_grad_()
        policy, reference = logits.log_softmax(-1), distributions(seed)[1]
        if estimator is None:
            (policy.exp() * (policy - reference)).sum().backward()
        else:  # tokens are drawn from the policy, then differentiated as given
            (policy.detach().exp() * kl_estimate(policy, reference, estimator=estimator)).sum().backward()
        assert logits.grad is not None
        return logits.grad

    torch.testing.assert_close(gradient("k2"), gradient(None))
    torch.testing.assert_close(gradient("k1"), torch.zeros(5, dtype=torch.float64))


def test_kl_is_zero_without_gradient_outside_the_mask() -> None:
    log_probs = torch.tensor([[-1.0, math.nan, -math.inf]], requires_grad=True)
    mask = torch.tensor([[True, False, False]])
    reference = torch.tensor([[-2.0, 0.0, math.nan]])
    values: dict[KLEstimator, float] = {"k1": 1.0, "k2": 0.5, "k3": math.exp(-1)}
    for estimator, value in values.items():
        log_probs.grad = None
        got = kl_estimate(log_probs, reference, estimator=estimator, loss_mask=mask)
        torch.testing.assert_close(got, torch.tensor([[value, 0.0, 0.0]]))
        got.sum().backward()
        assert log_probs.grad is not None and not log_probs.grad[0, 1:].any() and log_probs.grad[0, 0] != 0


def test_unknown_estimator_is_refused() -> None:
    with pytest.raises(ValueError, match="k1, k2, k3"):
        kl_estimate(torch.zeros(1, 1), torch.zeros(1, 1), estimator="k4")


def test_entropy_and_its_gradient_beside_forbidden_tokens() -> None:
    logits = torch.tensor([[1.0, -0.5, -math.inf], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    entropy = categorical_entropy(logits)
    p = 1 / (1 + math.exp(-1.5))
    torch.testing.assert_close(
        entropy, torch.tensor([-p * math.log(p) - (1 - p) * math.log(1 - p), math.log(3)], dtype=torch.float64)
    )
    entropy.sum().backward()
    slope = -p * (math.log(p) + entropy[0].item())
    expected = torch.tensor([[slope, -slope, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(logits.grad, expected, atol=1e-12, rtol=1e-9)


def test_entropy_of_half_precision_logits_is_float32() -> None:
    assert categorical_entropy(torch.zeros(2, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_critique_loss_of_arxiv_2602_16066_golden_values() -> None:
    logits = torch.tensor([[2.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    log_probs = logits.log_softmax(-1).gather(1, torch.tensor([[0], [2], [1]]))[:, 0][None]
    mask = torch.ones(1, 3, dtype=torch.bool)
    loss = masked_cross_entropy(log_probs, mask)
    torch.testing.assert_close(loss, torch.tensor([[0.3407529539, 1.7436683806, 1.3862943611]]))
    torch.testing.assert_close(loss.sum() / target_total(mask), torch.tensor(1.1569052319))
    weights = torch.tensor([[1.0, 1.0, 0.0]])
    first_two = masked_cross_entropy(log_probs, mask, weights).sum() / target_total(mask, weights)
    torch.testing.assert_close(first_two, torch.tensor(1.0422106673))


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_cross_entropy_ignores_what_is_no_target(junk: float) -> None:
    log_probs = torch.tensor([[-2.0, junk]], requires_grad=True)
    mask, weights = torch.tensor([[True, False]]), torch.tensor([[0.5, junk]])
    loss = masked_cross_entropy(log_probs, mask, weights)
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(log_probs.grad, torch.tensor([[-0.5, 0.0]]))
    assert target_total(mask, weights).item() == 0.5
