"""Chunked log-probs against plain autograd in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_rl.objectives import chunked_log_probs, log_probs_from_logits

M, H, V = 11, 6, 13
ALLOWED = torch.arange(V) % torch.tensor([[2], [3]]) == 0  # state 0: even ids, state 1: multiples of 3
STATES = torch.tensor([0, 1, -1, 0, 1, -1, -1, 0, 1, 0, -1])
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "softcap": {"softcap": 2.0},
    "scale": {"scale": 0.25},
    "bias": {"bias": True},
    "allowed": {"allowed": ALLOWED, "allowed_index": STATES},
    "all": {
        "temperature": 1.3,
        "softcap": 1.5,
        "scale": 1.7,
        "bias": True,
        "allowed": ALLOWED,
        "allowed_index": STATES,
    },
}


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weight, bias, and targets that are allowed in every state."""
    generator = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(M, H, generator=generator), torch.randn(V, H, generator=generator)
    bias = torch.randn(V, generator=generator)
    targets = 6 * torch.randint(0, 3, (M,), generator=generator)
    return hidden.to(dtype), weight.to(dtype), bias.to(dtype), targets


def naive(hidden: Tensor, weight: Tensor, targets: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    logits = (hidden @ weight.T + options.get("bias", 0.0)) * options.get("scale", 1.0)
    if "softcap" in options:
        logits = options["softcap"] * torch.tanh(logits / options["softcap"])
    logits = logits / options.get("temperature", 1.0)
    log_probs, entropies = [], []
    for row, target in enumerate(targets.tolist()):
        keep = torch.ones(V, dtype=torch.bool)
        if "allowed" in options and options["allowed_index"][row] >= 0:
            keep = options["allowed"][options["allowed_index"][row]]
        log_p = logits[row][keep].log_softmax(-1)
        log_probs.append(log_p[int(keep[:target].sum())])
        entropies.append(-(log_p.exp() * log_p).sum())
    return torch.stack(log_probs), torch.stack(entropies)


def values_and_grads(function: Any, tensors: tuple[Tensor, ...], options: dict[str, Any]) -> list[Tensor]:
    """Log-probs, entropies and the gradients of a mixture of both."""
    hidden, weight, bias, targets = tensors
    leaves = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
    options = dict(options, bias=leaves[2]) if options.get("bias") else options
    log_probs, entropy = function(leaves[0], leaves[1], targets, **options)
    mix = torch.linspace(-1, 2, M, dtype=log_probs.dtype)
    ((mix * log_probs).sum() + (mix.flip(0) * entropy).sum()).backward()
    used = leaves if options.get("bias") is not None else leaves[:2]
    return [log_probs.detach(), entropy.detach(), *[leaf.grad for leaf in used if leaf.grad is not None]]


@pytest.mark.parametrize("chunk_elements", [1, 3 * V, 10**6])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_naive_autograd_in_float64(case: str, chunk_elements: int) -> None:
    got = values_and_grads(
        chunked_log_probs, inputs(), {**CASES[case], "with_entropy": True, "chunk_elements": chunk_elements}
    )
    expected = values_and_grads(naive, inputs(), CASES[case])
    assert len(got) == (5 if CASES[case].get("bias") else 4)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_float32_against_float64(case: str) -> None:
    got = values_and_grads(chunked_log_probs, inputs(torch.float32), {**CASES[case], "with_entropy": True})
    assert all(x.dtype == torch.float32 for x in got)
    expected = values_and_grads(naive, inputs(), CASES[case])
    torch.testing.assert_close(got, [x.float() for x in expected], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs(dtype: torch.dtype) -> None:
    tensors = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs())
    got = values_and_grads(chunked_log_probs, tensors, {"with_entropy": True, "chunk_elements": 2 * V})
    assert [x.dtype for x in got] == [torch.float32, torch.float32, dtype, dtype]
    exact = tuple(x.double() if x.is_floating_point() else x for x in tensors)
    expected = values_and_grads(naive, exact, {})
    for ours, right in zip(got, expected, strict=True):
        assert (ours.double() - right).norm() / right.norm() < 1e-2


def test_half_precision_values_are_those_of_the_models_own_head() -> None:
    hidden, weight, _, targets = inputs(torch.bfloat16)
    got, _ = chunked_log_probs(hidden, weight, targets)
    logits = torch.nn.functional.linear(hidden, weight).float()
    torch.testing.assert_close(got, logits.log_softmax(-1).gather(1, targets[:, None])[:, 0], atol=1e-6, rtol=0)


def test_half_precision_states_with_a_float32_head() -> None:
    hidden, weight, _, targets = inputs(torch.float32)
    hidden = hidden.bfloat16().requires_grad_()
    got, _ = chunked_log_probs(hidden, weight, targets)
    expected, _ = naive(hidden.double(), weight.double(), targets)
    torch.testing.assert_close(got, expected.float(), atol=1e-5, rtol=1e-5)
    got.sum().backward()
    assert hidden.grad is not None and hidden.grad.dtype == torch.bfloat16


def test_autocast_is_followed_in_forward_and_backward() -> None:
    hidden, weight, _, targets = inputs(torch.float32)
    states = hidden.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        got, _ = chunked_log_probs(states, weight, targets)
        logits = torch.nn.functional.linear(hidden, weight).float()
    got.sum().backward()  # outside autocast, as a training loop does
    torch.testing.assert_close(got, logits.log_softmax(-1).gather(1, targets[:, None])[:, 0], atol=1e-6, rtol=0)
    slope = torch.nn.functional.one_hot(targets, V) - logits.softmax(-1)
    assert states.grad is not None and (states.grad - slope @ weight).norm() / states.grad.norm() < 1e-2


def test_only_what_requires_a_gradient_gets_one() -> None:
    hidden, weight, _, targets = inputs(torch.float32)
    states, head = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    chunked_log_probs(states, weight, targets)[0].sum().backward()
    assert states.grad is not None and weight.grad is None
    chunked_log_probs(hidden, head, targets)[0].sum().backward()
    assert head.grad is not None and hidden.grad is None


@pytest.mark.parametrize("wanted", [0, 1])
def test_a_gradient_of_one_output_alone(wanted: int) -> None:
    hidden, weight, _, targets = inputs()
    grads = []
    pairs: list[tuple[Any, dict[str, Any]]] = [(chunked_log_probs, {"with_entropy": True}), (naive, {})]
    for function, options in pairs:
        states = hidden.clone().requires_grad_()
        function(states, weight, targets, **options)[wanted].sum().backward()
        grads.append(states.grad)
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_without_gradients(mode: Any) -> None:
    hidden, weight, _, targets = inputs(torch.float32)
    with mode():
        got, entropy = chunked_log_probs(hidden.requires_grad_(), weight, targets, with_entropy=True)
    expected, expected_entropy = naive(hidden.detach(), weight, targets)
    assert entropy is not None and not got.requires_grad
    torch.testing.assert_close((got, entropy), (expected, expected_entropy), atol=1e-5, rtol=1e-5)


def test_no_positions_at_all() -> None:
    hidden = torch.zeros(0, H, requires_grad=True)
    got, entropy = chunked_log_probs(hidden, torch.zeros(V, H), torch.zeros(0, dtype=torch.int64))
    got.sum().backward()
    assert got.shape == (0,) and entropy is None
    assert hidden.grad is not None and hidden.grad.shape == (0, H)


def test_a_forbidden_target_is_impossible_and_gradients_stay_finite() -> None:
    hidden, weight, _, _ = inputs(torch.float32)
    states = hidden[:2].clone().requires_grad_()
    targets, index = torch.tensor([1, 2]), torch.tensor([0, 0])  # state 0 allows even ids only
    got, _ = chunked_log_probs(states, weight, targets, allowed=ALLOWED, allowed_index=index)
    assert got[0] == -math.inf and math.isfinite(got[1].item())
    got[1].backward()
    assert states.grad is not None and bool(states.grad.isfinite().all())


def test_large_logits_keep_the_entropy_exact() -> None:
    weight = torch.tensor([[3000.0], [3000.0], [0.0]])
    _, entropy = chunked_log_probs(torch.ones(1, 1), weight, torch.tensor([0]), with_entropy=True)
    torch.testing.assert_close(entropy, torch.tensor([math.log(2)]))


@pytest.mark.parametrize("case", ["plain", "temperature", "allowed"])
def test_the_fall_back_from_logits_is_the_same(case: str) -> None:
    def from_logits(hidden: Tensor, weight: Tensor, targets: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        return log_probs_from_logits(hidden @ weight.T, targets, **options)

    got = values_and_grads(from_logits, inputs(), CASES[case])
    torch.testing.assert_close(got, values_and_grads(naive, inputs(), CASES[case]), atol=1e-12, rtol=1e-10)


def test_bad_input_is_refused() -> None:
    hidden, weight, _, targets = inputs(torch.float32)
    with pytest.raises(ValueError, match=r"\(M, H\), \(V, H\) and \(M,\)"):
        chunked_log_probs(hidden, weight, targets[1:])
    with pytest.raises(ValueError, match="temperature is 0"):
        chunked_log_probs(hidden, weight, targets, temperature=0.0)
    with pytest.raises(ValueError, match="softcap is -1"):
        chunked_log_probs(hidden, weight, targets, softcap=-1.0)
    with pytest.raises(ValueError, match="chunk_elements is 0"):
        chunked_log_probs(hidden, weight, targets, chunk_elements=0)
    with pytest.raises(ValueError, match="both allowed"):
        log_probs_from_logits(hidden @ weight.T, targets, allowed=ALLOWED)
    with pytest.raises(ValueError, match=r"allowed \(2, 12\)"):
        chunked_log_probs(hidden, weight, targets, allowed=ALLOWED[:, 1:], allowed_index=STATES)
    with pytest.raises(ValueError, match="log_probs_from_logits: logits"):
        log_probs_from_logits(hidden, targets[1:])
