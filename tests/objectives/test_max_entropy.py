"""Closed forms on finite sets of responses, and the multipliers that meet constraints."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.objectives import categorical_entropy
from lit_rl.objectives.max_entropy import (
    ConstrainedOptimum,
    categorical_kl,
    optimum,
    rlhf_at_quality,
    rlhf_quality,
    solve_quality,
    solve_quality_and_kl,
)
from lit_rl.objectives.shaping import Shaping

# qempo.md 10.1.
QUALITY = torch.tensor([1.0, 0.9, 0.8, 0.3, 0.1, 0.0], dtype=torch.float64)
REFERENCE = torch.tensor([0.50, 0.05, 0.15, 0.20, 0.08, 0.02], dtype=torch.float64).log()
FLOOR, CEILING = 0.896234, 0.307929

RLHF = [0.707479, 0.057923, 0.142271, 0.069785, 0.018711, 0.003830]
QEMPO = [0.457609, 0.301448, 0.198578, 0.024633, 0.010690, 0.007042]
QEMPO_KL = [0.535344, 0.214423, 0.195172, 0.034716, 0.013566, 0.006779]
SPL = [0.572420, 0.140975, 0.190164, 0.062911, 0.024133, 0.009397]

Numbers = list[float]


def close(got: Any, expected: Any, atol: float = 2e-6) -> None:
    got = torch.as_tensor(got, dtype=torch.float64)
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=torch.float64), atol=atol, rtol=0)


def objective(log_probs: Tensor, rewards: Tensor, ref_log_probs: Tensor, entropy: float, reference: float) -> Tensor:
    """``J = E[r - a log pi + b log p]``."""
    return (log_probs.exp() * (rewards - entropy * log_probs + reference * ref_log_probs)).sum(-1)


def quality_of(solution: ConstrainedOptimum, rewards: Tensor = QUALITY) -> float:
    return float((solution.log_probs.exp() * rewards).sum(-1).mean())


def entropy_of(solution: ConstrainedOptimum) -> float:
    return float(categorical_entropy(solution.log_probs).mean())


def kl_of(solution: ConstrainedOptimum, reference: Tensor = REFERENCE) -> float:
    return float(categorical_kl(solution.log_probs, reference).mean())


@pytest.mark.parametrize(
    ("entropy", "reference", "probs", "value"),
    [
        (0.5, 0.5, RLHF, 0.826450),
        (0.239569, 0.0, QEMPO, 1.187281),
        (0.278378, 0.067187, QEMPO_KL, 1.127372),
        (0.4, 0.2, SPL, 1.084524),
    ],
)
def test_optima_of_section_10_1(entropy: float, reference: float, probs: Numbers, value: float) -> None:
    log_probs = optimum(QUALITY, REFERENCE, entropy=entropy, reference=reference)
    close(log_probs.exp(), probs)
    close(objective(log_probs, QUALITY, REFERENCE, entropy, reference), value)
    # From the definition, in plain numbers.
    weights = [math.exp(b * reference / entropy + r / entropy) for r, b in zip(QUALITY, REFERENCE, strict=True)]
    close(log_probs.exp(), [weight / math.fsum(weights) for weight in weights], 1e-12)
    close(entropy * math.log(math.fsum(weights)), value)  # a log Z


def test_distinct_responses_among_the_best_of_section_10_1() -> None:
    for probs, few, many in ((RLHF, 1.663755, 2.529251), (QEMPO, 2.262814, 2.967770)):
        solve = (
            rlhf_at_quality(QUALITY, REFERENCE, quality=FLOOR)
            if probs is RLHF
            else solve_quality(QUALITY, quality=FLOOR)
        )
        best = solve.log_probs.exp()[:3]
        close((1 - (1 - best) ** 4).sum(), few, 5e-6)
        close((1 - (1 - best) ** 16).sum(), many, 5e-6)


def test_matched_qempo_of_section_10_1() -> None:
    solution = solve_quality(QUALITY, quality=FLOOR)
    probs = solution.log_probs.exp()
    close(probs, QEMPO)
    close([solution.quality_multiplier, 1 / solution.entropy_coef], [4.174165, 4.174165], 2e-5)
    assert (solution.ratio, solution.reference_coef, solution.kl_multiplier) == (0.0, 0.0, 0.0)
    close([quality_of(solution), kl_of(solution), entropy_of(solution)], [FLOOR, 0.476291, 1.214877])
    close((probs * (QUALITY - FLOOR).square()).sum(), 0.0279608)  # the slope of quality in lambda
    close(solution.log_probs, optimum(QUALITY, None, entropy=solution.entropy_coef), 1e-9)


def test_matched_qempo_kl_of_section_10_1() -> None:
    solution = solve_quality_and_kl(QUALITY, REFERENCE, quality=FLOOR, max_kl=CEILING)
    close(solution.log_probs.exp(), QEMPO_KL, 5e-6)
    close([solution.ratio, solution.kl_multiplier], [0.241353, 0.318136], 1e-5)
    close(solution.quality_multiplier, 4.735063, 5e-5)
    close([solution.entropy_coef, solution.reference_coef], [0.278378, 0.067187], 5e-6)
    close([quality_of(solution), kl_of(solution), entropy_of(solution)], [FLOOR, CEILING, 1.192417], 3e-6)
    shaping = Shaping.qempo_kl(solution.quality_multiplier, solution.kl_multiplier)
    close([shaping.entropy, shaping.reference], [solution.entropy_coef, solution.reference_coef], 1e-12)


@pytest.mark.parametrize(
    ("ratio", "inverse_temperature", "kl", "entropy"),
    [(0.25, 3.572135, 0.303190, 1.190874), (0.5, 3.011913, 0.200517, 1.130483), (0.75, 2.489521, 0.152094, 1.051697)],
)
def test_policies_between_qempo_and_rlhf_of_section_10_1(
    ratio: float, inverse_temperature: float, kl: float, entropy: float
) -> None:
    solution = solve_quality_and_kl(QUALITY, REFERENCE, quality=FLOOR, max_kl=kl)
    close(solution.ratio, ratio, 1e-5)
    close(solution.inverse_temperature, inverse_temperature, 2e-5)
    close(entropy_of(solution), entropy, 5e-6)


@pytest.mark.parametrize(
    ("quality", "qempo", "rlhf"),
    [
        (0.75, (1.707449, 1.606379, 0.332458), (0.147292, 1.354731, 0.001243)),
        (0.80, (2.251584, 1.507979, 0.357383), (0.629151, 1.254839, 0.020301)),
        (0.85, (3.003474, 1.377855, 0.407133), (1.229236, 1.125344, 0.066093)),
        (0.90, (4.314075, 1.198896, 0.482633), (2.079027, 0.953929, 0.147248)),
        (0.95, (8.615639, 0.903296, 0.532568), (3.710042, 0.705073, 0.285860)),
    ],
)
def test_frontier_of_section_10_1(quality: float, qempo: tuple[float, ...], rlhf: tuple[float, ...]) -> None:
    for expected, solution in (
        (qempo, solve_quality(QUALITY, quality=quality)),
        (rlhf, rlhf_at_quality(QUALITY, REFERENCE, quality=quality)),
    ):
        close(quality_of(solution), quality, 1e-12)
        close([solution.inverse_temperature, entropy_of(solution), kl_of(solution)], expected)


def test_binary_quality_of_section_10_2() -> None:
    rewards = torch.tensor([1.0] * 3 + [0.0] * 5)
    solution = solve_quality(rewards, quality=0.9)
    close(solution.log_probs.exp(), [0.3] * 3 + [0.02] * 5, 1e-12)
    close([solution.quality_multiplier, entropy_of(solution)], [2.708050, 1.474778])
    # 3.2: nearness to the ideal policy is entropy and quality, and QEMPO with lambda = delta is that policy.
    ideal, delta = solution.log_probs, math.log(0.9 * 5 / (0.1 * 3))
    close(ideal, optimum(rewards, None, entropy=1 / delta), 1e-9)
    other = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
    expected = -categorical_entropy(other) - other[:3].exp().sum() * delta - math.log(0.1 / 5)
    close(categorical_kl(other, ideal), expected, 1e-12)


@pytest.mark.parametrize(
    ("reference", "joint", "first", "second", "soft_values", "quality", "entropy"),
    [
        (
            0.0,
            [0.441380, 0.226612, 0.015746, 0.316262],
            0.667992,
            [0.660756, 0.047426],
            [1.124311, 0.914576],
            0.907306,
            1.126831,
        ),
        (
            0.1,
            [0.574950, 0.141912, 0.011801, 0.271337],
            0.716862,
            [0.802037, 0.041680],
            [1.055644, 0.861690],
            0.932683,
            1.001632,
        ),
        (
            0.3,
            [0.788293, 0.044969, 0.005356, 0.161382],
            0.833262,
            [0.946032, 0.032125],
            [0.985035, 0.756548],
            0.969511,
            0.649377,
        ),
    ],
)
def test_two_tokens_of_section_10_3(
    reference: float,
    joint: Numbers,
    first: float,
    second: Numbers,
    soft_values: Numbers,
    quality: float,
    entropy: float,
) -> None:
    rewards = torch.tensor([[1.0, 0.8], [0.0, 0.9]], dtype=torch.float64)
    ref_first = torch.tensor([0.7, 0.3], dtype=torch.float64).log()
    ref_second = torch.tensor([[0.9, 0.1], [0.4, 0.6]], dtype=torch.float64).log()
    ref = (ref_first[:, None] + ref_second).flatten()
    log_probs = optimum(rewards.flatten(), ref, entropy=0.3, reference=reference)
    close(log_probs.exp(), joint)
    close([(log_probs.exp() * rewards.flatten()).sum(), categorical_entropy(log_probs)], [quality, entropy])
    table = log_probs.exp().view(2, 2)
    close(table.sum(-1)[0], first)
    close(table[:, 0] / table.sum(-1), second)
    # Token by token: the second is an optimum in itself, whose value is the first one's quality.
    given_first = optimum(rewards, ref_second, entropy=0.3, reference=reference)
    close(given_first.exp(), table / table.sum(-1, keepdim=True), 1e-12)
    values = objective(given_first, rewards, ref_second, 0.3, reference)
    close(values, soft_values)
    close(optimum(values, ref_first, entropy=0.3, reference=reference).exp(), table.sum(-1), 1e-12)


COEFFICIENTS = [(0.5, 0.5), (0.239569, 0.0), (0.278378, 0.067187), (0.4, 0.2)]


def test_exact_gradient_ascent_reaches_the_closed_forms() -> None:
    """Property 1, for RLHF, QEMPO, QEMPO-KL and SPL side by side."""
    entropy, reference = torch.tensor(COEFFICIENTS, dtype=torch.float64)[..., None].unbind(1)
    logits = REFERENCE.repeat(4, 1).requires_grad_()
    for _ in range(4000):
        log_probs = logits.log_softmax(-1)
        value = (log_probs.exp() * (QUALITY - entropy * log_probs + reference * REFERENCE)).sum()
        (grad,) = torch.autograd.grad(value, logits)
        logits.data += 5.0 * grad
    for got, (a, b) in zip(logits.detach().softmax(-1), COEFFICIENTS, strict=True):
        close(got, optimum(QUALITY, REFERENCE, entropy=a, reference=b).exp(), 1e-6)


SEEDS = st.integers(0, 10_000)


@settings(deadline=None)
@given(
    seed=SEEDS, entropy=st.floats(0.05, 5), reference=st.floats(0, 5), shift=st.floats(-5, 5), factor=st.floats(0.1, 9)
)
def test_value_of_any_policy_and_invariances(
    seed: int, entropy: float, reference: float, shift: float, factor: float
) -> None:
    """Properties 2 and 11: ``J = a log Z - a KL(pi || optimum)``; only ratios of r, a and b matter."""
    rewards, ref, policy = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ref, policy = ref.log_softmax(-1), policy.log_softmax(-1)
    best = optimum(rewards, ref, entropy=entropy, reference=reference)
    top = entropy * ((rewards + reference * ref) / entropy).logsumexp(-1)
    close(objective(best, rewards, ref, entropy, reference), top, 1e-10)
    close(objective(policy, rewards, ref, entropy, reference), top - entropy * categorical_kl(policy, best), 1e-10)
    scaled = optimum(factor * rewards + shift, ref, entropy=factor * entropy, reference=factor * reference)
    close(scaled, best, 1e-9)


def random_problem(seed: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand(size, generator=generator, dtype=torch.float64)
    return rewards, (2 * torch.randn(size, generator=generator, dtype=torch.float64)).log_softmax(-1)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, size=st.integers(3, 8), height=st.floats(0.05, 0.95), width=st.floats(0.05, 0.95))
def test_at_equal_quality_entropies_are_ordered(seed: int, size: int, height: float, width: float) -> None:
    """Property 4, with both constraints met."""
    rewards, reference = random_problem(seed, size)
    start = max(float(rewards.mean()), float((reference.exp() * rewards).sum()))
    quality = start + height * (float(rewards.max()) - start)
    qempo, rlhf = solve_quality(rewards, quality=quality), rlhf_at_quality(rewards, reference, quality=quality)
    far, near = kl_of(qempo, reference), kl_of(rlhf, reference)
    max_kl = near + width * (far - near)
    middle = solve_quality_and_kl(rewards, reference, quality=quality, max_kl=max_kl)
    for solution in (qempo, middle, rlhf):
        assert quality_of(solution, rewards) >= quality - 1e-9
        # Between the ends, a power of the reference may be better than the floor asks.
        assert quality_of(solution, rewards) <= quality + 1e-9 or solution.inverse_temperature == 0
    close(kl_of(middle, reference), max_kl, 1e-8)
    assert entropy_of(qempo) >= entropy_of(middle) - 1e-12 >= entropy_of(rlhf) - 2e-12
    assume(far - near > 1e-3)
    assert entropy_of(qempo) > entropy_of(middle) > entropy_of(rlhf)
    assert 0 < middle.ratio < 1


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, height=st.floats(0.1, 0.9))
def test_no_policy_that_meets_the_constraints_has_more_entropy(seed: int, height: float) -> None:
    rewards, reference = random_problem(seed, 4)
    quality = float(rewards.mean()) + height * float(rewards.max() - rewards.mean())
    qempo = solve_quality(rewards, quality=quality)
    least = kl_of(rlhf_at_quality(rewards, reference, quality=quality), reference)
    both = solve_quality_and_kl(rewards, reference, quality=quality, max_kl=least + 0.05)
    others = torch.randn(2000, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    others = torch.cat([(2 * others).log_softmax(-1), (both.log_probs + 0.2 * others).log_softmax(-1)])
    good = (others.exp() * rewards).sum(-1) >= quality
    near = categorical_kl(others, reference) <= least + 0.05
    entropies = categorical_entropy(others)
    assert good.any()
    assert entropies[good].max() <= entropy_of(qempo) + 1e-9
    assert (entropies[good & near] <= entropy_of(both) + 1e-9).all()


@pytest.mark.parametrize("rounding", [0.0, 1e-12, -1e-12])
def test_both_constraints_at_the_values_of_rlhf_leave_rlhf_alone(rounding: float) -> None:
    """Property 5 and section 3.4."""
    rlhf = optimum(QUALITY, REFERENCE, entropy=0.5, reference=0.5)
    values: dict[str, float] = {
        "quality": float((rlhf.exp() * QUALITY).sum()),
        "max_kl": float(categorical_kl(rlhf, REFERENCE)) + rounding,
    }
    solution = solve_quality_and_kl(QUALITY, REFERENCE, **values)
    assert (solution.ratio, solution.kl_multiplier, solution.quality_multiplier) == (1.0, math.inf, math.inf)
    close(solution.log_probs, rlhf, 1e-9)
    close([solution.entropy_coef, solution.reference_coef], [0.5, 0.5], 1e-9)


def test_a_ceiling_a_tenth_above_that_of_rlhf_leaves_something_to_gain() -> None:
    rlhf = rlhf_at_quality(QUALITY, REFERENCE, quality=FLOOR)
    wider = solve_quality_and_kl(QUALITY, REFERENCE, quality=FLOOR, max_kl=1.1 * kl_of(rlhf))
    assert 0 < wider.ratio < 1
    assert entropy_of(wider) > entropy_of(rlhf) + 0.05


def test_constraints_that_nothing_meets_are_refused() -> None:
    with pytest.raises(ValueError, match="No policy has a quality of 1.01: the best response gives 1.0"):
        solve_quality(QUALITY, quality=1.01)
    with pytest.raises(ValueError, match="the best response gives 1.0"):
        rlhf_at_quality(QUALITY, REFERENCE, quality=1.01)
    with pytest.raises(ValueError, match="divergence of at most 0.1 from the reference: the least is 0.1395"):
        solve_quality_and_kl(QUALITY, REFERENCE, quality=FLOOR, max_kl=0.1)
    with pytest.raises(ValueError, match="No policy has a quality of nan"):
        solve_quality(QUALITY, quality=math.nan)
    with pytest.raises(ValueError, match="at most nan"):
        solve_quality_and_kl(QUALITY, REFERENCE, quality=FLOOR, max_kl=math.nan)


@pytest.mark.parametrize("quality", [-1.0, 0.2, float(QUALITY.mean())])
def test_a_slack_floor_leaves_every_response_equally_likely(quality: float) -> None:
    """Property 6."""
    solution = solve_quality(QUALITY, quality=quality)
    close(solution.log_probs.exp(), [1 / 6] * 6, 1e-12)
    assert (solution.quality_multiplier, solution.entropy_coef, solution.reference_coef) == (0.0, math.inf, 0.0)
    assert torch.equal(
        solve_quality_and_kl(QUALITY, REFERENCE, quality=quality, max_kl=9.0).log_probs, solution.log_probs
    )


def test_a_floor_below_the_reference_leaves_rlhf_at_the_reference() -> None:
    rlhf = rlhf_at_quality(QUALITY, REFERENCE, quality=0.7)
    close(rlhf.log_probs, REFERENCE, 1e-12)
    assert (rlhf.inverse_temperature, rlhf.quality_multiplier) == (0.0, 0.0)
    # With a slack floor the ceiling alone decides: a power of the reference.
    solution = solve_quality_and_kl(QUALITY, REFERENCE, quality=0.5, max_kl=0.05)
    close(kl_of(solution), 0.05, 1e-9)
    close(solution.log_probs, (solution.ratio * REFERENCE).log_softmax(-1), 1e-12)
    assert (solution.inverse_temperature, solution.quality_multiplier) == (0.0, 0.0)
    assert quality_of(solution) > 0.5


def test_the_greatest_quality_is_shared_by_the_best_responses() -> None:
    rewards = torch.tensor([1.0, 0.5, 1.0, 0.0], dtype=torch.float64)
    reference = torch.tensor([0.1, 0.5, 0.3, 0.1], dtype=torch.float64).log()
    solution = solve_quality(rewards, quality=1.0)
    close(solution.log_probs.exp(), [0.5, 0.0, 0.5, 0.0], 0.0)
    assert (solution.quality_multiplier, solution.entropy_coef) == (math.inf, 0.0)
    close(entropy_of(solution), math.log(2), 1e-12)
    rlhf = rlhf_at_quality(rewards, reference, quality=1.0)
    close(rlhf.log_probs.exp(), [0.25, 0.0, 0.75, 0.0], 1e-12)
    middle = solve_quality_and_kl(
        rewards, reference, quality=1.0, max_kl=(kl_of(rlhf, reference) + kl_of(solution, reference)) / 2
    )
    assert 0.5 < float(middle.log_probs[2].exp()) < 0.75
    # Just below, the limit is near and lambda finite.
    below = solve_quality(rewards, quality=1.0 - 1e-9)
    close(below.log_probs.exp(), solution.log_probs.exp(), 1e-8)
    assert math.isfinite(below.quality_multiplier)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, height=st.floats(0.05, 0.95))
def test_with_a_uniform_reference_qempo_is_rlhf(seed: int, height: float) -> None:
    """Property 6: then divergence is entropy, but for a constant."""
    rewards, _ = random_problem(seed, 5)
    uniform = torch.full((5,), 0.2, dtype=torch.float64).log()
    quality = float(rewards.mean()) + height * float(rewards.max() - rewards.mean())
    qempo, rlhf = solve_quality(rewards, quality=quality), rlhf_at_quality(rewards, uniform, quality=quality)
    close(qempo.log_probs, rlhf.log_probs, 1e-9)
    close(
        solve_quality_and_kl(rewards, uniform, quality=quality, max_kl=kl_of(rlhf, uniform)).log_probs,
        qempo.log_probs,
        1e-9,
    )


def test_fixed_multipliers_order_nothing_as_section_3_4_shows() -> None:
    """Property 7: entropies compare at equal quality only."""
    reference = torch.tensor([0.02, 0.08, 0.30, 0.60], dtype=torch.float64).log()
    rewards = torch.tensor([2.0, 1.0, 0.2, 0.0], dtype=torch.float64)
    rlhf, qempo = Shaping.rlhf(0.5), Shaping.qempo(2.0)
    log_probs = [
        optimum(rewards, reference, entropy=shaping.entropy, reference=shaping.reference) for shaping in (rlhf, qempo)
    ]
    close([categorical_entropy(policy) for policy in log_probs], [1.327175, 0.540860])
    qualities = [float((policy.exp() * rewards).sum()) for policy in log_probs]
    close(qualities, [1.049045, 1.812740])
    matched = solve_quality(rewards, quality=qualities[0])
    close([matched.quality_multiplier, entropy_of(matched)], [0.380904, 1.338230])


def test_prompts_share_the_multipliers_and_average_the_constraints() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    reference = torch.randn(3, 4, generator=generator, dtype=torch.float64).log_softmax(-1)
    solution = solve_quality(rewards, quality=0.7)
    close(quality_of(solution, rewards), 0.7, 1e-9)
    close(solution.log_probs, optimum(rewards, None, entropy=solution.entropy_coef), 1e-9)
    both = solve_quality_and_kl(rewards, reference, quality=0.7, max_kl=kl_of(solution, reference) - 0.1)
    close([quality_of(both, rewards), kl_of(both, reference)], [0.7, kl_of(solution, reference) - 0.1], 1e-8)
    close(both.log_probs, optimum(rewards, reference, entropy=both.entropy_coef, reference=both.reference_coef), 1e-9)
    with pytest.raises(ValueError, match="the best response gives"):
        solve_quality(rewards, quality=float(rewards.amax(-1).mean()) + 1e-6)


def test_quality_of_rlhf_from_samples_of_the_reference() -> None:
    draws = torch.multinomial(REFERENCE.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    close(rlhf_quality(QUALITY[draws], beta=0.5), FLOOR, 2e-3)
    # Exactly, where every response was sampled as often as the reference says; one floor for each prompt.
    exactly = QUALITY.repeat_interleave(torch.tensor([50, 5, 15, 20, 8, 2]))
    close(rlhf_quality(torch.stack([exactly, 0 * exactly]).float(), beta=0.5), [FLOOR, 0.0])
    with pytest.raises(ValueError, match="beta is 0.0"):
        rlhf_quality(QUALITY, beta=0.0)


def test_divergence_of_distributions_with_zeros() -> None:
    certain, even = torch.tensor([1.0, 0.0]).log(), torch.tensor([0.5, 0.5]).log()
    close(
        categorical_kl(torch.stack([certain, even, even]), torch.stack([even, even, certain])),
        [math.log(2), 0.0, math.inf],
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"entropy": 0.0}, "entropy 0.0"),
        ({"entropy": 0.1, "reference": -0.1}, "reference -0.1"),
        ({"entropy": 0.1, "reference": 0.1, "ref_log_probs": None}, "no ref_log_probs"),
        ({"entropy": 0.1, "ref_log_probs": REFERENCE[:3]}, r"rewards \(6,\) and ref_log_probs \(3,\)"),
        ({"entropy": 0.1, "ref_log_probs": REFERENCE.masked_fill(QUALITY == 0, -math.inf)}, "ref_log_probs has -inf"),
        ({"entropy": 0.1, "rewards": QUALITY * math.nan}, "rewards has nan"),
        ({"entropy": 0.1, "rewards": torch.zeros(0), "ref_log_probs": None}, r"rewards \(0,\)"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        optimum(**({"rewards": QUALITY, "ref_log_probs": REFERENCE} | arguments))
