"""The policies of greatest entropy under a floor on quality, exactly, on a finite set of responses.

The closed forms that trained policies are measured by, and the multipliers that meet given constraints.  As published
(QEMPO, arXiv 2602.15894): the two constraint sets, and that the optima are closed forms.  Our derivation: the formulas
and the solvers.

Everywhere ``rewards`` and log-probs are ``(..., N)``: N responses to each of the prompts of the leading dimensions, all
prompts equally likely.  Quality, entropy and divergence are means over prompts; the multipliers are shared by all of
them, as the coefficients of a training run are.  Results are float64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Relative precision of the multipliers, and what two divergences may differ by and still count as one, in nats.
_PRECISION, _SAME_KL = 1e-13, 1e-10


@dataclass(frozen=True, slots=True)
class ConstrainedOptimum:
    """A policy ``pi ~ p^ratio exp(r inverse_temperature)`` that meets constraints on quality and divergence."""

    log_probs: Tensor  # float64 (..., N); -inf only where the quality asked for is the greatest there is
    inverse_temperature: float  # 1 / a; 0 where the floor is slack, infinite at the greatest quality
    ratio: float  # b / a: 0 without pull to the reference, 1 for RLHF

    @property
    def entropy_coef(self) -> float:
        """``a``, as in `lit_rl.objectives.shaping.Shaping`; infinite where the floor is slack."""
        return math.inf if self.inverse_temperature == 0 else 1.0 / self.inverse_temperature

    @property
    def reference_coef(self) -> float:
        """``b``, likewise."""
        return 0.0 if self.ratio == 0 else self.ratio * self.entropy_coef

    @property
    def kl_multiplier(self) -> float:
        """``mu = s / (1 - s)`` with ``s = ratio``; infinite where only RLHF's policy meets both constraints."""
        return math.inf if self.ratio == 1 else self.ratio / (1.0 - self.ratio)

    @property
    def quality_multiplier(self) -> float:
        """``lambda = (1 + mu) / a``, the entropy that the last unit of quality costs; 0 where the floor is slack."""
        return 0.0 if self.inverse_temperature == 0 else self.inverse_temperature * (1.0 + self.kl_multiplier)


def optimum(rewards: Tensor, ref_log_probs: Tensor | None, *, entropy: float, reference: float = 0.0) -> Tensor:
    """Log-probs of the maximiser of ``E[r - a log pi + b log p]``: ``pi ~ p^(b/a) exp(r/a)``.

    Args:
        rewards: ``(..., N)``.
        ref_log_probs: Of the reference, float ``(..., N)``; None if ``reference`` is 0.
        entropy: ``a``, greater than 0.
        reference: ``b``, at least 0.

    Returns:
        float64 ``(..., N)``.

    Raises:
        ValueError: A coefficient is out of range, or the reference is missing.

    Example:
        >>> optimum(torch.tensor([1.0, 0.0]), None, entropy=0.5).exp()
        tensor([0.8808, 0.1192], dtype=torch.float64)
    """
    if not entropy > 0 or not reference >= 0:
        raise ValueError(f"The optimum has entropy {entropy} and reference {reference}; it needs > 0 and >= 0.")
    if ref_log_probs is None and reference:
        raise ValueError(f"The optimum has reference {reference} and no ref_log_probs; give them, or reference=0.")
    rewards, ref_log_probs = _checked(rewards, ref_log_probs)
    return _tilted(rewards, ref_log_probs, 1.0 / entropy, reference / entropy)


def solve_quality(rewards: Tensor, *, quality: float) -> ConstrainedOptimum:
    """QEMPO: the policy of greatest entropy whose mean quality is at least ``quality``.

    ``pi ~ exp(lambda r)``.  A floor no higher than the mean over all responses is slack: the policy is uniform.  The
    greatest quality there is gives the uniform policy over the best responses.

    Args:
        rewards: ``(..., N)``.
        quality: The floor R.

    Returns:
        The policy, with ``ratio`` 0.

    Raises:
        ValueError: No policy is that good, or bad rewards.

    Example:
        >>> solution = solve_quality(torch.tensor([1.0, 0.0]), quality=0.9)
        >>> solution.log_probs.exp(), round(solution.quality_multiplier, 4)
        (tensor([0.9000, 0.1000], dtype=torch.float64), 2.1972)
    """
    rewards, no_reference = _checked(rewards, None)
    return _at_quality(rewards, no_reference, quality, 0.0)


def rlhf_at_quality(rewards: Tensor, ref_log_probs: Tensor, *, quality: float) -> ConstrainedOptimum:
    """RLHF: the policy nearest the reference whose mean quality is at least ``quality``, to compare QEMPO with.

    ``pi ~ p exp(r / beta)`` (paper's proposition 1, as reviews quote it); ``1 / beta`` is ``inverse_temperature``.

    Args:
        rewards: ``(..., N)``.
        ref_log_probs: Of the reference, finite ``(..., N)``.
        quality: The floor R.

    Returns:
        The policy, with ``ratio`` 1.

    Raises:
        ValueError: No policy is that good, or bad rewards or log-probs.

    Example:
        >>> reference = torch.tensor([0.5, 0.5]).log()
        >>> rlhf_at_quality(torch.tensor([1.0, 0.0]), reference, quality=0.9).log_probs.exp()
        tensor([0.9000, 0.1000], dtype=torch.float64)
    """
    rewards, checked_reference = _checked(rewards, ref_log_probs)
    return _at_quality(rewards, checked_reference, quality, 1.0)


def solve_quality_and_kl(
    rewards: Tensor, ref_log_probs: Tensor, *, quality: float, max_kl: float
) -> ConstrainedOptimum:
    """QEMPO-KL: the greatest entropy with mean quality at least ``quality`` and divergence at most ``max_kl``.

    ``pi ~ p^s exp(t r)``.  A ceiling no lower than the divergence of `solve_quality` is slack and gives that policy.
    RLHF's policy is the only one of its quality that is as near to the reference: with *both* constraints set to its
    values, so is this one (``ratio`` 1, multipliers infinite).  A useful ceiling lies above RLHF's by some tenth.

    Args:
        rewards: ``(..., N)``.
        ref_log_probs: Of the reference, finite ``(..., N)``.
        quality: The floor R.
        max_kl: The ceiling K on ``KL(pi || p)``, in nats.

    Returns:
        The policy, with ``ratio`` from 0 (ceiling slack) to 1 (RLHF).

    Raises:
        ValueError: No policy meets the floor or both constraints, or bad rewards or log-probs.

    Example:
        >>> rewards, reference = torch.tensor([1.0, 0.9, 0.0]), torch.tensor([0.6, 0.1, 0.3]).log()
        >>> solve_quality_and_kl(rewards, reference, quality=0.85, max_kl=0.3).log_probs.exp()
        tensor([0.5151, 0.3721, 0.1128], dtype=torch.float64)
    """
    rewards, checked_reference = _checked(rewards, ref_log_probs)

    def solution(ratio: float) -> ConstrainedOptimum:
        return _at_quality(rewards, checked_reference, quality, ratio)

    def excess(ratio: float) -> float:
        return float(categorical_kl(solution(ratio).log_probs, checked_reference).mean()) - max_kl

    if excess(0.0) <= _SAME_KL:
        return solution(0.0)
    least = excess(1.0)
    if not least <= _SAME_KL:
        raise ValueError(
            f"No policy of quality {quality} has a divergence of at most {max_kl} from the reference: the least is "
            f"{least + max_kl}, that of RLHF. Raise max_kl above it, or lower quality."
        )
    if least >= -_SAME_KL:
        return solution(1.0)
    return solution(_first(lambda ratio: excess(ratio) <= 0.0, 0.0, 1.0))


def rlhf_quality(rewards: Tensor, *, beta: float) -> Tensor:
    """The quality RLHF would reach, from responses that the *reference* sampled: a floor to give QEMPO.

    ``sum w r / sum w`` with ``w = exp(r / beta)``, the reweighting of ``p`` to ``p exp(r / beta)``.  With few samples,
    or a ``beta`` small beside the spread of ``r``, it is too low: no weight can find a response nobody sampled.

    Args:
        rewards: Of M samples for each prompt, ``(..., M)``.
        beta: RLHF's temperature, greater than 0.

    Returns:
        One per prompt, float64 ``(...)``.

    Raises:
        ValueError: ``beta`` out of range.

    Example:
        >>> rlhf_quality(torch.tensor([1.0, 0.0]), beta=0.5)
        tensor(0.8808, dtype=torch.float64)
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}; RLHF's temperature is greater than 0.")
    rewards = rewards.double()
    return ((rewards / beta).softmax(-1) * rewards).sum(-1)


def categorical_kl(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """``KL(pi || p) = sum pi (log pi - log p)`` of distributions written out, in nats.

    Args:
        log_probs: Of the policy, float ``(..., N)``; -inf where it is 0.
        ref_log_probs: Of the reference, float ``(..., N)``.

    Returns:
        Float ``(...)``; infinite where the policy does what the reference never does.

    Example:
        >>> categorical_kl(torch.tensor([1.0, 0.0]).log(), torch.tensor([0.5, 0.5]).log())
        tensor(0.6931)
    """
    never = log_probs == -torch.inf
    # 0 * -inf is NaN where the limit of p log p is 0.
    return (log_probs.exp() * (log_probs - ref_log_probs).masked_fill(never, 0.0)).sum(-1)


def _checked(rewards: Tensor, ref_log_probs: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both in float64; a reference that is not given is never weighed, and 0 stands for it."""
    rewards = rewards.detach().double()
    reference = torch.zeros_like(rewards) if ref_log_probs is None else ref_log_probs.detach().double()
    if rewards.ndim == 0 or rewards.numel() == 0 or reference.shape != rewards.shape:
        raise ValueError(
            f"rewards {tuple(rewards.shape)} and ref_log_probs {tuple(reference.shape)} must both be (..., N), N > 0."
        )
    for name, values in (("rewards", rewards), ("ref_log_probs", reference)):
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name} has {values[~values.isfinite()][0]}; a closed form needs finite numbers.")
    return rewards, reference


def _tilted(rewards: Tensor, ref_log_probs: Tensor, inverse_temperature: float, ratio: float) -> Tensor:
    """Log-probs of ``p^ratio exp(r inverse_temperature)``, normalised."""
    gaps = rewards - rewards.amax(-1, keepdim=True)
    if math.isinf(inverse_temperature):
        logits = (ratio * ref_log_probs).masked_fill(gaps < 0, -torch.inf)
    else:
        logits = ratio * ref_log_probs + inverse_temperature * gaps
    return logits.log_softmax(-1)


def _at_quality(rewards: Tensor, ref_log_probs: Tensor, quality: float, ratio: float) -> ConstrainedOptimum:
    inverse_temperature = _inverse_temperature(rewards, ref_log_probs, quality, ratio)
    return ConstrainedOptimum(_tilted(rewards, ref_log_probs, inverse_temperature, ratio), inverse_temperature, ratio)


def _inverse_temperature(rewards: Tensor, ref_log_probs: Tensor, quality: float, ratio: float) -> float:
    """The least ``t`` at which ``p^ratio exp(t r)`` is good enough: quality grows with ``t``, by the variance of r."""
    gaps = rewards - rewards.amax(-1, keepdim=True)
    best = float(rewards.amax(-1).mean())
    if not quality <= best:
        raise ValueError(f"No policy has a quality of {quality}: the best response gives {best}. Lower quality.")

    # Of the gaps, because near the best quality the rewards themselves round the differences away.
    def good_enough(inverse_temperature: float) -> bool:
        probs = _tilted(rewards, ref_log_probs, inverse_temperature, ratio).exp()
        return float((probs * gaps).sum(-1).mean()) >= quality - best

    if good_enough(0.0):
        return 0.0
    if quality == best:
        return math.inf
    high = 1.0 / -float(gaps.min())
    while not good_enough(high):
        high *= 2.0
    return _first(good_enough, 0.0, high)


def _first(reached: Callable[[float], bool], low: float, high: float) -> float:
    """The least number from which on ``reached`` holds, which it does not at ``low`` and does at ``high``."""
    while high - low > _PRECISION * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
