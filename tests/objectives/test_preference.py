"""Losses on pairs: golden values, DPO as the case ``a = b``, and where they end."""

import math
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.objectives.max_entropy import optimum
from lit_rl.objectives.preference import (
    pairwise_loss,
    preference_margin,
    regression_loss,
    soft_label_loss,
)

# qempo.md 10.1.
QUALITY = torch.tensor([1.0, 0.9, 0.8, 0.3, 0.1, 0.0], dtype=torch.float64)
REFERENCE = torch.tensor([0.50, 0.05, 0.15, 0.20, 0.08, 0.02], dtype=torch.float64).log()
CHOSEN, REJECTED = torch.triu_indices(6, 6, offset=1)
DIFFERENCE = QUALITY[CHOSEN] - QUALITY[REJECTED]


def close(got: Tensor, expected: Any, atol: float = 1e-6) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64).expand(got.shape)
    torch.testing.assert_close(got.detach().double(), expected, atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("entropy", "reference", "margin", "loss", "slope", "regression"),
    [
        (0.2, 0.0, 0.60, 0.437488, -0.070869, 0.04),
        (0.2, 0.1, 0.45, 0.493249, -0.077872, 0.1225),
        (0.1, 0.1, 0.15, 0.620957, -0.046257, 0.4225),
        (0.1, 0.3, -0.15, 0.770957, -0.053743, 0.9025),
    ],
)
def test_losses_of_section_10_4(
    entropy: float, reference: float, margin: float, loss: float, slope: float, regression: float
) -> None:
    chosen, rejected = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (-12.0, -15.0))
    ref = torch.tensor([-13.0]).double(), torch.tensor([-14.5]).double()
    got = preference_margin(chosen, rejected, *ref, entropy=entropy, reference=reference)
    close(got, margin, 1e-12)
    close(pairwise_loss(got), loss)
    close(regression_loss(got, torch.tensor([0.8]).double()), regression)
    grads = torch.autograd.grad(pairwise_loss(got).sum(), (chosen, rejected), retain_graph=True)
    close(grads[0], slope)
    close(grads[1], -slope)
    close(grads[0], -entropy / (1 + math.exp(margin)), 1e-12)  # - a sigmoid(-m), section 5
    if reference == 0:
        assert torch.equal(preference_margin(chosen, rejected, None, None, entropy=entropy), got)


@settings(deadline=None)
@given(margin=st.floats(-30, 30), label=st.floats(0, 1))
def test_soft_label_loss_is_the_cross_entropy_written_out(margin: float, label: float) -> None:
    m, p = torch.tensor([margin], dtype=torch.float64), torch.tensor([label], dtype=torch.float64)
    expected = label * math.log1p(math.exp(-margin)) + (1 - label) * math.log1p(math.exp(margin))
    close(soft_label_loss(m, p), expected, 1e-9)
    assert torch.equal(soft_label_loss(m, torch.ones_like(p)), pairwise_loss(m))
    close(soft_label_loss(-m, 1 - p), expected, 1e-9)  # the two responses swapped


def test_losses_stay_finite_far_from_zero() -> None:
    margin = torch.tensor([-1000.0, 1000.0], requires_grad=True)
    loss = soft_label_loss(margin, torch.tensor([0.5, 0.5]))
    close(loss, [500.0, 500.0])
    (grad,) = torch.autograd.grad(loss.sum() + pairwise_loss(margin).sum(), margin)
    close(grad, [-1.5, 0.5])


def random_pairs(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-100 * torch.rand(8, generator=generator) for _ in range(4)]


def loss_and_gradients(loss: Callable[[Tensor, Tensor], Tensor], policy: list[Tensor]) -> list[Tensor]:
    chosen, rejected = (log_probs.clone().requires_grad_() for log_probs in policy)
    value = loss(chosen, rejected).mean()
    return [value.detach(), *torch.autograd.grad(value, (chosen, rejected))]


@settings(deadline=None)
@given(seed=st.integers(0, 999), beta=st.floats(0.01, 5))
def test_equal_coefficients_are_dpo_bit_for_bit(seed: int, beta: float) -> None:
    chosen, rejected, chosen_ref, rejected_ref = random_pairs(seed)

    def ours(w: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        return pairwise_loss(preference_margin(w, l, chosen_ref, rejected_ref, entropy=beta, reference=beta))

    def dpo(w: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        return -F.logsigmoid(beta * ((w - chosen_ref) - (l - rejected_ref)))

    for got, expected in zip(*(loss_and_gradients(loss, [chosen, rejected]) for loss in (ours, dpo)), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.peer
@pytest.mark.parametrize("beta", [0.05, 0.1, 0.7])
def test_equal_coefficients_are_the_dpo_of_trl(beta: float) -> None:
    """TRL's own loss code, on a trainer that has everything but a model; each response is one token."""
    from trl.trainer.dpo_trainer import DPOTrainer

    chosen, rejected, chosen_ref, rejected_ref = random_pairs(7)

    def theirs(w: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        log_probs = torch.cat([w, l])[:, None]
        zeros = torch.zeros_like(log_probs)
        outputs = SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
        same: Callable[[Tensor], Tensor] = lambda x: x  # noqa: E731
        model: Any = lambda **kwargs: outputs  # noqa: E731
        trainer = SimpleNamespace(
            model=SimpleNamespace(training=True),
            accelerator=SimpleNamespace(device="cpu", gather=same, gather_for_metrics=same),
            aux_loss_enabled=False,
            ld_alpha=None,
            precompute_ref_logps=True,
            f_divergence_type="reverse_kl",
            loss_types=["sigmoid"],
            loss_weights=[1.0],
            beta=beta,
            use_weighting=False,
            _metrics=defaultdict(lambda: defaultdict(list)),
            _total_train_tokens=0,
            _tp_size=1,
        )
        mask = torch.ones(16, 2, dtype=torch.int64)
        batch = {
            "input_ids": mask,
            "attention_mask": mask,
            "completion_mask": mask,
            "ref_chosen_logps": chosen_ref,
            "ref_rejected_logps": rejected_ref,
        }
        compute_loss: Any = DPOTrainer._compute_loss
        loss: Tensor = compute_loss(trainer, model, batch, return_outputs=False)
        return loss

    def ours(w: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        return pairwise_loss(preference_margin(w, l, chosen_ref, rejected_ref, entropy=beta, reference=beta))

    for got, expected in zip(*(loss_and_gradients(loss, [chosen, rejected]) for loss in (ours, theirs)), strict=True):
        assert torch.equal(got, expected)


@settings(deadline=None)
@given(seed=st.integers(0, 999), a=st.floats(0.01, 5), b=st.floats(0, 5), factor=st.floats(0.1, 10))
def test_margin_is_the_formula_of_section_5_and_scales_with_both_coefficients(
    seed: int, a: float, b: float, factor: float
) -> None:
    pairs = [values.double() for values in random_pairs(seed)]
    chosen, rejected, chosen_ref, rejected_ref = pairs
    margin = preference_margin(*pairs, entropy=a, reference=b)
    close(margin, a * (chosen - rejected) - b * (chosen_ref - rejected_ref), 1e-10)
    close(preference_margin(*pairs, entropy=factor * a, reference=factor * b), factor * margin, 1e-9)
    close(preference_margin(rejected, chosen, rejected_ref, chosen_ref, entropy=a, reference=b), -margin, 1e-10)
    rows = {"entropy": torch.full((8,), a).double(), "reference": torch.full((8,), b).double()}
    close(preference_margin(*pairs, **rows), margin, 1e-4)


# Every pair of responses, and every method of section 3.1.
COEFFICIENTS = torch.tensor([[0.5, 0.5], [0.239569, 0.0], [0.278378, 0.067187], [0.4, 0.2]], dtype=torch.float64)


def margins(logits: Tensor) -> Tensor:
    """``(4, 15)``: of each pair under the policy of each method."""
    log_probs = logits.log_softmax(-1)
    entropy, reference = COEFFICIENTS.unbind(-1)
    ref = REFERENCE.expand_as(logits)
    pairs = (values[:, index].T for values in (log_probs, ref) for index in (CHOSEN, REJECTED))
    return preference_margin(*pairs, entropy=entropy, reference=reference).T


def descend(loss: Callable[[Tensor], Tensor], step: float, iterations: int) -> Tensor:
    """Probs ``(4, 6)`` after gradient descent from the reference on the loss of all pairs."""
    logits = REFERENCE.repeat(4, 1).requires_grad_()
    # The curvature of the losses grows with the square of a.
    steps = step / COEFFICIENTS[:, :1].square()
    for _ in range(iterations):
        (grad,) = torch.autograd.grad(loss(margins(logits)).sum(), logits)
        logits.data -= steps * grad
    return logits.detach().softmax(-1)


@pytest.mark.parametrize(
    ("loss", "step"),
    [
        (lambda m: soft_label_loss(m, DIFFERENCE.sigmoid().expand_as(m)), 0.5),
        (lambda m: regression_loss(m, DIFFERENCE.expand_as(m)), 0.08),
    ],
)
def test_soft_labels_and_regression_reach_the_closed_form(loss: Callable[[Tensor], Tensor], step: float) -> None:
    probs = descend(loss, step, 200)
    for got, (entropy, reference) in zip(probs, COEFFICIENTS.tolist(), strict=True):
        close(got, optimum(QUALITY, REFERENCE, entropy=entropy, reference=reference).exp())


def test_hard_labels_leave_the_closed_form_behind() -> None:
    """qempo.md 12: pairs that are always labelled alike push the margin on and on."""
    probs = [descend(pairwise_loss, 0.5, iterations)[:, 0] for iterations in (100, 1000)]
    assert (probs[1] > probs[0]).all()
    assert (probs[1] > 0.99).all()


def test_no_gradient_flows_into_the_reference_or_the_labels() -> None:
    policy = [torch.tensor([-1.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)]
    reference = [torch.tensor([-1.5], requires_grad=True), torch.tensor([-2.5], requires_grad=True)]
    labels = torch.tensor([0.7], requires_grad=True)
    margin = preference_margin(*policy, *reference, entropy=0.2, reference=0.1)
    loss = soft_label_loss(margin, labels) + regression_loss(margin, labels)
    loss.sum().backward()
    assert all(tensor.grad is not None for tensor in policy)
    assert all(tensor.grad is None for tensor in (*reference, labels))


def test_bad_input_is_refused() -> None:
    row = torch.zeros(3)
    with pytest.raises(ValueError, match=r"\[\(3,\), \(2,\), None, None\]; all must be \(B,\)"):
        preference_margin(row, row[:2], None, None, entropy=0.1)
    with pytest.raises(ValueError, match="the reference's both or neither"):
        preference_margin(row, row, row, None, entropy=0.1, reference=0.1)
    with pytest.raises(ValueError, match="reference 0.1 and no ref_log_probs"):
        preference_margin(row, row, None, None, entropy=0.1, reference=0.1)
    with pytest.raises(ValueError, match=r"margin \(3,\) and preference \(3, 1\) must have one shape"):
        soft_label_loss(row, row[:, None])
    with pytest.raises(ValueError, match=r"margin \(3,\) and quality_difference \(1,\)"):
        regression_loss(row, row[:1])
    for wrong in (1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match=rf"preference\[2\] is {wrong}"):
            soft_label_loss(row, torch.tensor([0.0, 1.0, wrong], dtype=torch.float64))
