"""Shaped rewards, their credit to tokens, the dual step, and what trains on them."""

import math
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.objectives import categorical_entropy, clipped_policy_loss, leave_one_out_advantages
from lit_rl.objectives.max_entropy import optimum
from lit_rl.objectives.shaping import (
    Shaping,
    dual_step,
    entropy_dual_step,
    leave_one_out_to_go,
    response_log_probs,
    shaped_rewards,
    shaped_rewards_to_go,
)

# qempo.md 10.1.
QUALITY = torch.tensor([1.0, 0.9, 0.8, 0.3, 0.1, 0.0], dtype=torch.float64)
REFERENCE = torch.tensor([0.50, 0.05, 0.15, 0.20, 0.08, 0.02], dtype=torch.float64).log()
LAMBDA, FLOOR, MOST_ENTROPY = 4.174165, 0.896234, 1.214877

# qempo.md 10.3: the responses 00, 01, 10, 11.
RESPONSES = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
QUALITY_OF_TWO = torch.tensor([1.0, 0.8, 0.0, 0.9], dtype=torch.float64)
FIRST = torch.tensor([0.7, 0.3], dtype=torch.float64).log()
SECOND = torch.tensor([[0.9, 0.1], [0.4, 0.6]], dtype=torch.float64).log()
BOTH_TOKENS = torch.ones(4, 2, dtype=torch.bool)

Numbers = list[float]


def close(got: Any, expected: Any, atol: float = 1e-6) -> None:
    got = torch.as_tensor(got, dtype=torch.float64)
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=torch.float64), atol=atol, rtol=0)


def test_named_shapings_of_section_3_1() -> None:
    assert Shaping.qempo(4.0) == Shaping(0.25, 0.0)
    assert Shaping.qempo_kl(4.0, 1.0) == Shaping(0.5, 0.25)
    assert Shaping.rlhf(0.5) == Shaping(0.5, 0.5)
    assert Shaping.spl(0.4, 0.2) == Shaping(0.4, 0.2)
    assert Shaping.h_dpo(0.5, 0.2) == Shaping(0.1, 0.2)
    assert (Shaping.qempo(4.0).ratio, Shaping.rlhf(0.5).ratio) == (0.0, 1.0)


@given(lam=st.floats(0.01, 100), mu=st.floats(0, 100))
def test_qempo_kl_pulls_less_to_the_reference_than_rlhf(lam: float, mu: float) -> None:
    shaping = Shaping.qempo_kl(lam, mu)
    assert shaping.ratio == pytest.approx(mu / (1 + mu))
    assert shaping.entropy - shaping.reference == pytest.approx(1 / lam, rel=1e-9)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Shaping(0.0, 0.1), "entropy 0.0 and reference 0.1"),
        (lambda: Shaping(0.1, -0.1), "reference -0.1"),
        (lambda: Shaping(math.nan), "entropy nan"),
        (lambda: Shaping(math.inf), "entropy inf"),
        (lambda: Shaping.qempo(0.0), "Shaping.qempo: lam is 0.0"),
        (lambda: Shaping.qempo_kl(-1.0, 0.5), "Shaping.qempo_kl: lam is -1.0"),
        (lambda: Shaping.qempo_kl(1.0, -0.5), "Shaping.qempo_kl: mu is -0.5"),
        (lambda: Shaping.h_dpo(0.0, 0.5), "entropy 0.0"),
    ],
)
def test_coefficients_out_of_range_are_refused(build: Callable[[], Shaping], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build()


@pytest.mark.parametrize(
    ("entropy", "reference", "shaped", "advantages"),
    [
        (0.05, 0.0, [1.5, 0.6, 1.7, 0.45], [0.583333, -0.616667, 0.85, -0.816667]),
        (0.05, 0.02, [1.28, 0.35, 1.44, 0.25], [0.6, -0.64, 0.813333, -0.773333]),
        (0.05, 0.05, [0.95, -0.025, 1.05, -0.05], [0.625, -0.675, 0.758333, -0.708333]),
    ],
)
def test_group_shaping_of_section_10_4(entropy: float, reference: float, shaped: Numbers, advantages: Numbers) -> None:
    rewards, groups = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.zeros(4, dtype=torch.int64)
    log_probs = torch.tensor([-10.0, -12.0, -14.0, -9.0])
    ref_log_probs = torch.tensor([-11.0, -12.5, -13.0, -10.0])
    got = shaped_rewards(rewards, log_probs, ref_log_probs, entropy=entropy, reference=reference)
    close(got, shaped)
    close(leave_one_out_advantages(got, groups), advantages)
    # The same from coefficients of each row, and with whole numbers as rewards.
    rows = {"entropy": torch.full((4,), entropy), "reference": torch.full((4,), reference)}
    close(shaped_rewards(rewards.long(), log_probs, ref_log_probs, **rows), shaped)
    if reference == 0:
        close(shaped_rewards(rewards, log_probs, None, entropy=torch.tensor(entropy)), shaped)


def test_coefficients_of_rows_reach_their_own_rows() -> None:
    rewards, log_probs = torch.zeros(2), torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    coefficients = {"entropy": torch.tensor([1.0, 0.5]), "reference": torch.tensor([0.0, 0.25])}
    sums = log_probs.sum(-1)
    close(shaped_rewards(rewards, sums, 2 * sums, **coefficients), [3.0, 0.0])  # 0.5 * 7 - 0.25 * 14
    mask = torch.ones(2, 2, dtype=torch.bool)
    to_go = shaped_rewards_to_go(rewards, log_probs, log_probs, mask, **coefficients)
    close(to_go, [[3.0, 2.0], [1.75, 1.0]])


def test_no_gradient_flows_through_shaped_rewards() -> None:
    log_probs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert not shaped_rewards(torch.ones(1), log_probs.sum(-1), None, entropy=0.1).requires_grad
    assert not shaped_rewards_to_go(torch.ones(1), log_probs, None, mask, entropy=0.1).requires_grad


def test_shapes_that_disagree_and_a_missing_reference_are_refused() -> None:
    row, mask = torch.zeros(2), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"rewards \(2,\), log_probs \(2, 1\) and ref_log_probs None"):
        shaped_rewards(row, row[:, None], None, entropy=0.1)
    with pytest.raises(ValueError, match=r"log_probs \(2, 3\) and ref_log_probs \(2, 2\) must be \(B,\) and \(B, T\)"):
        shaped_rewards_to_go(row, torch.zeros(2, 3), torch.zeros(2, 2), mask, entropy=0.1, reference=0.1)
    with pytest.raises(ValueError, match="reference 0.1 and no ref_log_probs"):
        shaped_rewards(row, row, None, entropy=0.1, reference=0.1)
    with pytest.raises(ValueError, match="no ref_log_probs"):
        shaped_rewards(row, row, None, entropy=0.1, reference=torch.tensor([0.0, 0.1]))
    with pytest.raises(ValueError, match=r"to_go \(2, 3\) and group_ids \(3,\)"):
        leave_one_out_to_go(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))


def random_group(seed: int, rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards, log_probs, ref_log_probs = torch.randn(3, rows, generator=generator, dtype=torch.float64)
    return rewards, -10 * log_probs.abs(), -10 * ref_log_probs.abs()


def advantages_of(rewards: Tensor, log_probs: Tensor, ref: Tensor, entropy: float, reference: float) -> Tensor:
    shaped = shaped_rewards(rewards, log_probs, ref, entropy=entropy, reference=reference)
    return leave_one_out_advantages(shaped, torch.zeros(len(rewards), dtype=torch.int64))


@settings(deadline=None)
@given(seed=st.integers(0, 999), shift=st.floats(-5, 5), factor=st.floats(0.1, 10), b=st.sampled_from([0.0, 0.1]))
def test_invariances_of_property_11(seed: int, shift: float, factor: float, b: float) -> None:
    rewards, log_probs, ref = random_group(seed)
    expected = advantages_of(rewards, log_probs, ref, 0.2, b)
    close(advantages_of(rewards + shift, log_probs, ref, 0.2, b), expected, 1e-12)
    close(advantages_of(factor * rewards, log_probs, ref, factor * 0.2, factor * b), factor * expected, 1e-11)
    order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))
    close(advantages_of(rewards[order], log_probs[order], ref[order], 0.2, b), expected[order], 1e-12)


@settings(deadline=None)
@given(left=st.integers(0, 3), right=st.integers(0, 3), junk=st.sampled_from([0.0, -7.0, math.nan, -math.inf]))
def test_padding_changes_neither_a_log_prob_nor_what_is_to_go(left: int, right: int, junk: float) -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -0.5], [-3.0, -0.25, -9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    padded = torch.nn.functional.pad(log_probs.masked_fill(~mask, junk), (left, right), value=junk)
    padded_mask = torch.nn.functional.pad(mask, (left, right))
    for normalize in (False, True):
        expected = response_log_probs(log_probs, mask, length_normalize=normalize)
        assert torch.equal(response_log_probs(padded, padded_mask, length_normalize=normalize), expected)
    rewards = torch.tensor([1.0, 0.5])
    plain = shaped_rewards_to_go(rewards, log_probs, log_probs, mask, entropy=0.5, reference=0.25)
    got = shaped_rewards_to_go(rewards, padded, padded, padded_mask, entropy=0.5, reference=0.25)
    close(got[:, left : left + 3], plain)
    close(got[:, left + 3 :], rewards[:, None].expand(-1, right))


def test_log_prob_of_a_response_is_a_sum_and_a_mean_only_if_asked() -> None:
    log_probs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]], requires_grad=True)
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    close(response_log_probs(log_probs, mask), [-3.0, -3.0, 0.0])
    means = response_log_probs(log_probs, mask, length_normalize=True)
    close(means, [-1.5, -3.0, 0.0])
    (grad,) = torch.autograd.grad(means.sum(), log_probs)
    close(grad, [[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]])


def test_exact_gradient_at_the_reference_of_section_10_1() -> None:
    logits = REFERENCE.clone().requires_grad_()
    log_probs = logits.log_softmax(-1)
    shaped = shaped_rewards(QUALITY, log_probs, None, entropy=0.25)
    (grad,) = torch.autograd.grad((log_probs.exp().detach() * shaped * log_probs).sum(), logits)
    close(grad, [0.047254, 0.028508, 0.029325, -0.075284, -0.027788, -0.002015])
    close((log_probs.exp() * shaped).sum().detach(), 1.078779)


def two_tokens(first: Tensor, second: Tensor) -> Tensor:
    """Log-prob of each token of the four responses, ``(4, 2)``, from logits ``(2,)`` and ``(2, 2)``."""
    first, second = first.log_softmax(-1), second.log_softmax(-1)
    return torch.stack([first[RESPONSES[:, 0]], second[RESPONSES[:, 0], RESPONSES[:, 1]]], dim=1)


REF_TOKENS = two_tokens(FIRST, SECOND)


def sequence_credit(token_log_probs: Tensor, entropy: float, reference: float) -> Tensor:
    sums = token_log_probs.sum(-1)
    shaped = shaped_rewards(QUALITY_OF_TWO, sums, REF_TOKENS.sum(-1), entropy=entropy, reference=reference)
    return shaped[:, None].expand(4, 2)


def to_go_credit(token_log_probs: Tensor, entropy: float, reference: float) -> Tensor:
    return shaped_rewards_to_go(
        QUALITY_OF_TWO, token_log_probs, REF_TOKENS, BOTH_TOKENS, entropy=entropy, reference=reference
    )


def gradient(weights: Tensor, token_log_probs: Tensor, logits: Iterable[Tensor]) -> Tensor:
    grads = torch.autograd.grad((weights.detach() * token_log_probs).sum(), list(logits), retain_graph=True)
    return torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize(("entropy", "reference"), [(0.3, 0.0), (0.3, 0.1), (0.3, 0.3)])
@pytest.mark.parametrize("seed", range(3))
def test_reward_to_go_and_sequence_credit_agree_in_expectation_on_10_3(
    seed: int, entropy: float, reference: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(2,), (2, 2)]]
    for tensor in logits:
        tensor.requires_grad_()
    tokens = two_tokens(*logits)
    probs = tokens.sum(-1).exp().detach()
    whole, to_go = (credit(tokens, entropy, reference) for credit in (sequence_credit, to_go_credit))
    assert not torch.allclose(whole, to_go)
    expected = gradient(probs[:, None] * whole, tokens, logits)
    close(gradient(probs[:, None] * to_go, tokens, logits), expected, 1e-14)
    close(moments_over_pairs(to_go, tokens, logits)[0], expected, 1e-14)


def moments_over_pairs(credit: Tensor, tokens: Tensor, logits: list[Tensor]) -> tuple[Tensor, float]:
    """Mean ``(6,)`` and total variance of the gradient of groups of two, each response the other's baseline."""
    probs = tokens.sum(-1).exp().detach()
    chances, grads = [], []
    for i, j in product(range(4), range(4)):
        advantages = leave_one_out_to_go(credit[[i, j]], torch.tensor([3, 3]))
        weights = torch.zeros(4, 2, dtype=torch.float64).index_add(0, torch.tensor([i, j]), advantages)
        chances.append(probs[i] * probs[j])
        grads.append(gradient(weights, tokens, logits) / 2)
    chance, grad = torch.stack(chances)[:, None], torch.stack(grads)
    mean = (chance * grad).sum(0)
    return mean, float((chance * (grad - mean).square()).sum())


def test_at_the_optimum_of_10_3_only_sequence_credit_is_without_noise() -> None:
    joint = optimum(QUALITY_OF_TWO, REF_TOKENS.sum(-1), entropy=0.3, reference=0.1).view(2, 2)
    logits = [joint.logsumexp(-1).requires_grad_(), joint.log_softmax(-1).requires_grad_()]
    tokens = two_tokens(*logits)
    whole, to_go = (
        moments_over_pairs(credit(tokens, 0.3, 0.1), tokens, logits) for credit in (sequence_credit, to_go_credit)
    )
    close(whole[0], torch.zeros(6))
    close(to_go[0], torch.zeros(6))
    assert whole[1] < 1e-25  # the shaped reward is the same for all responses
    assert to_go[1] > 1e-3  # what is to come still differs between the first tokens


@pytest.mark.parametrize("credit", [sequence_credit, to_go_credit])
@pytest.mark.parametrize(
    ("reference", "joint"),
    [
        (0.0, [0.441380, 0.226612, 0.015746, 0.316262]),
        (0.1, [0.574950, 0.141912, 0.011801, 0.271337]),
        (0.3, [0.788293, 0.044969, 0.005356, 0.161382]),
    ],
)
def test_exact_ascent_reaches_the_joint_of_10_3(credit: Any, reference: float, joint: Numbers) -> None:
    logits = [FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()]
    for _ in range(600):
        tokens = two_tokens(*logits)
        probs = tokens.sum(-1).exp().detach()
        loss = -(probs[:, None] * credit(tokens, 0.3, reference) * tokens).sum()
        for tensor, grad in zip(logits, torch.autograd.grad(loss, logits), strict=True):
            tensor.data -= 10.0 * grad
    close(two_tokens(*logits).sum(-1).exp().detach(), joint, 2e-6)


def test_rows_of_a_group_may_end_at_different_places() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False], [True, True, True]])
    log_probs = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, 99.0, 99.0], [-1.0, -1.0, -1.0]])
    to_go = shaped_rewards_to_go(torch.tensor([1.0, 0.0, 5.0]), log_probs, None, mask, entropy=1.0)
    close(to_go, [[7.0, 6.0, 4.0], [4.0, 0.0, 0.0], [8.0, 7.0, 6.0]])
    # A row that is over has its reward and nothing more to come; the third row is alone in its group.
    advantages = leave_one_out_to_go(to_go, torch.tensor([5, 5, -1]))
    close(advantages, [[3.0, 6.0, 4.0], [-3.0, -6.0, -4.0], [0.0, 0.0, 0.0]])


DUAL: dict[str, float] = {"step_size": 0.05, "low": 1e-4, "high": 10.0}


@pytest.mark.parametrize("start", [0.01, 1.0, 10.0])
def test_dual_step_finds_the_multiplier_of_10_1(start: float) -> None:
    log_entropy = math.log(start)
    for _ in range(1500):
        probs = optimum(QUALITY, None, entropy=math.exp(log_entropy)).exp()
        mean = float((probs * QUALITY).sum())
        scale = float((probs * (QUALITY - mean).square()).sum().sqrt())
        log_entropy = dual_step(log_entropy, mean=mean, target=FLOOR, scale=max(scale, 0.05), **DUAL)
    close(math.exp(-log_entropy), LAMBDA, 1e-4)
    close(mean, FLOOR, 1e-4)


@pytest.mark.parametrize("start", [0.01, 10.0])
def test_entropy_dual_step_finds_the_same_multiplier(start: float) -> None:
    log_entropy = math.log(start)
    for _ in range(1000):
        log_probs = optimum(QUALITY, None, entropy=math.exp(log_entropy))
        mean = float(categorical_entropy(log_probs))
        log_entropy = entropy_dual_step(log_entropy, mean=mean, target=MOST_ENTROPY, scale=0.5, **DUAL)
    close(math.exp(-log_entropy), LAMBDA, 1e-3)


def test_dual_step_by_hand_and_its_bounds() -> None:
    close(dual_step(-1.0, mean=0.9, target=0.8, scale=0.5, **DUAL), -0.99)  # + 0.05 * 0.1 / 0.5
    close(entropy_dual_step(-1.0, mean=0.9, target=0.8, scale=0.5, **DUAL), -1.01)
    close(dual_step(2.3, mean=9.0, target=0.0, scale=0.1, **DUAL), math.log(10.0))
    close(dual_step(-9.0, mean=-9.0, target=0.0, scale=0.1, **DUAL), math.log(1e-4))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"scale": 0.0}, "scale 0.0"),
        ({"step_size": -0.1}, "step_size -0.1"),
        ({"low": 0.0}, "low 0.0"),
        ({"low": 2.0, "high": 1.0}, "low 2.0 and high 1.0"),
        ({"mean": math.nan}, "to nan, with mean nan"),
    ],
)
def test_a_dual_step_that_makes_no_sense_is_refused(change: dict[str, float], match: str) -> None:
    for step in (dual_step, entropy_dual_step):
        with pytest.raises(ValueError, match=match if step is dual_step else "dual step"):
            step(**({"log_entropy": 0.0, "mean": 0.5, "target": 0.5, "scale": 1.0} | DUAL | change))


ARMS: dict[str, tuple[Shaping, str]] = {
    "rlhf": (Shaping.rlhf(0.5), "as it is"),
    "qempo": (Shaping.qempo(LAMBDA), "as it is"),
    "qempo_kl": (Shaping.qempo_kl(4.735063, 0.318136), "as it is"),
    "spl": (Shaping.spl(0.4, 0.2), "as it is"),
    "quality over std": (Shaping.qempo(LAMBDA), "scaled, then shaped"),
    "shaped over std": (Shaping.qempo(LAMBDA), "shaped, then scaled"),
}
GROUP, STEP, ITERATIONS, WATCHED = 16, 0.2, 6000, 1000


def over_std(values: Tensor) -> Tensor:
    """Each group ``(A, G)`` divided by its standard deviation, as GRPO does."""
    return values / (values.std(-1, keepdim=True) + 1e-6)


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[Tensor, float]]:
    """The policy of each arm after training on its own samples, and its mean distance to the optimum at the end."""
    generator, arms = torch.Generator().manual_seed(0), len(ARMS)
    scaled_first, scaled_last = (
        torch.tensor([arm[1] == name for arm in ARMS.values()])[:, None]
        for name in ("scaled, then shaped", "shaped, then scaled")
    )
    coefficients = torch.tensor([(arm[0].entropy, arm[0].reference) for arm in ARMS.values()], dtype=torch.float64)
    entropy, reference = coefficients.repeat_interleave(GROUP, 0).unbind(-1)
    targets = torch.stack([optimum(QUALITY, REFERENCE, entropy=a, reference=b) for a, b in coefficients.tolist()]).exp()
    groups, mask = torch.arange(arms).repeat_interleave(GROUP), torch.ones(arms * GROUP, 1, dtype=torch.bool)
    logits, distance = REFERENCE.repeat(arms, 1).requires_grad_(), torch.zeros(arms, dtype=torch.float64)
    for iteration in range(ITERATIONS):
        log_probs = logits.log_softmax(-1)
        probs = log_probs.detach().exp()
        drawn = torch.multinomial(probs, GROUP, replacement=True, generator=generator)
        rewards = QUALITY[drawn]
        rewards = torch.where(scaled_first, over_std(rewards), rewards).flatten()
        sampled = log_probs.gather(1, drawn).flatten()
        shaped = shaped_rewards(rewards, sampled, REFERENCE[drawn].flatten(), entropy=entropy, reference=reference)
        shaped = torch.where(scaled_last, over_std(shaped.view(arms, GROUP)), shaped.view(arms, GROUP)).flatten()
        advantages = leave_one_out_advantages(shaped, groups)[:, None]
        loss = clipped_policy_loss(sampled[:, None], sampled.detach()[:, None], advantages, mask).sum() / GROUP
        logits.data -= STEP * torch.autograd.grad(loss, logits)[0]
        if iteration >= ITERATIONS - WATCHED:
            distance += (probs - targets).abs().sum(-1) / 2 / WATCHED
    return {name: (probs[arm], float(distance[arm])) for arm, name in enumerate(ARMS)}


@pytest.mark.parametrize("name", ["rlhf", "qempo", "qempo_kl", "spl"])
def test_sampled_trainer_reaches_the_closed_form_of_10_1(name: str, trained: dict[str, tuple[Tensor, float]]) -> None:
    shaping, (probs, distance) = ARMS[name][0], trained[name]
    expected = optimum(QUALITY, REFERENCE, entropy=shaping.entropy, reference=shaping.reference)
    assert float((probs - expected.exp()).abs().sum() / 2) < 1e-2
    assert distance < 1e-2
    close(categorical_entropy(probs.log()), categorical_entropy(expected), 0.01)


def test_quality_divided_by_the_std_of_its_group_collapses(trained: dict[str, tuple[Tensor, float]]) -> None:
    """qempo.md 12: the effective temperature is ``a`` times a spread that vanishes as the policy sharpens."""
    probs, _ = trained["quality over std"]
    assert float(categorical_entropy(probs.log())) < 0.05  # the constrained optimum has 1.2149
    assert float((probs * QUALITY).sum()) > 0.99


def test_shaped_reward_divided_by_the_std_of_its_group_never_settles(
    trained: dict[str, tuple[Tensor, float]],
) -> None:
    """qempo.md 12: the shaped reward is constant at the optimum, so dividing by its spread keeps updates large."""
    assert trained["shaped over std"][1] > 20 * trained["qempo"][1]
