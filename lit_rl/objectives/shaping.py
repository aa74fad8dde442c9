"""Rewards with whole-response entropy and a pull to the reference in them: ``r - a log pi + b log p``.

QEMPO (arXiv 2602.15894) maximises the entropy of the policy under a floor on quality and, as QEMPO-KL, a ceiling on the
divergence from the reference.  As published: the two constraint sets, that each optimum has a closed form, online and
offline trainers.  The body of the paper could not be read: the formulas here are our derivation, in which the published
variants, RLHF, SPL and H-DPO differ in the two coefficients ``a`` and ``b`` alone.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_rl.objectives.advantages import leave_one_out_advantages


@dataclass(frozen=True, slots=True)
class Shaping:
    """The coefficients of ``E[r - a log pi + b log p]``; its maximiser is ``pi ~ p^(b/a) exp(r/a)``.

    Args:
        entropy: ``a``, on minus the log-prob of the policy; greater than 0.
        reference: ``b``, on the log-prob of the reference; 0 needs no reference.

    Raises:
        ValueError: A coefficient out of range.

    Example:
        >>> Shaping.qempo(10.0), Shaping.qempo_kl(4.0, 1.0)
        (Shaping(entropy=0.1, reference=0.0), Shaping(entropy=0.5, reference=0.25))
    """

    entropy: float
    reference: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.entropy < math.inf or not 0.0 <= self.reference < math.inf:
            raise ValueError(
                f"The shaping has entropy {self.entropy} and reference {self.reference}; it needs a finite entropy > 0 "
                "and a finite reference >= 0."
            )

    @property
    def ratio(self) -> float:
        """``b / a``, the power of the reference in the optimum: 0 is QEMPO, 1 is RLHF, between them is QEMPO-KL."""
        return self.reference / self.entropy

    @classmethod
    def qempo(cls, lam: float) -> "Shaping":
        """Most entropy under a floor on quality whose multiplier is ``lam > 0``: ``a = 1 / lam, b = 0``."""
        _check_multipliers("qempo", lam)
        return cls(1.0 / lam)

    @classmethod
    def qempo_kl(cls, lam: float, mu: float) -> "Shaping":
        """The same under a ceiling on the divergence, multiplier ``mu >= 0``: ``a = (1 + mu) / lam, b = mu / lam``."""
        _check_multipliers("qempo_kl", lam, mu)
        return cls((1.0 + mu) / lam, mu / lam)

    @classmethod
    def rlhf(cls, beta: float) -> "Shaping":
        """RLHF and DPO with temperature ``beta``: ``a = b = beta``."""
        return cls(beta, beta)

    @classmethod
    def spl(cls, alpha: float, beta: float) -> "Shaping":
        """Soft preference learning (arXiv 2511.08594): ``a = alpha, b = beta``, free of each other."""
        return cls(alpha, beta)

    @classmethod
    def h_dpo(cls, alpha: float, beta: float) -> "Shaping":
        """H-DPO (arXiv 2411.07595): ``a = alpha beta, b = beta``."""
        return cls(alpha * beta, beta)


def response_log_probs(log_probs: Tensor, loss_mask: Tensor, *, length_normalize: bool = False) -> Tensor:
    """Log-prob of each whole response: the sum over its tokens.

    Args:
        log_probs: Of each token, float ``(B, T)``; anything outside ``loss_mask``.
        loss_mask: True on the tokens of the response, its end-of-sequence token included, bool ``(B, T)``.
        length_normalize: Take the mean instead.  It turns ``a`` into ``a`` times the length, as in SimPO, and the
            closed form no longer holds.

    Returns:
        Float ``(B,)``, 0 for a row without a token; carries the gradient.

    Example:
        >>> log_probs, mask = torch.tensor([[-9.0, -1.0, -2.0]]), torch.tensor([[False, True, True]])
        >>> response_log_probs(log_probs, mask), response_log_probs(log_probs, mask, length_normalize=True)
        (tensor([-3.]), tensor([-1.5000]))
    """
    sums = log_probs.masked_fill(~loss_mask, 0.0).sum(-1)
    return sums / loss_mask.sum(-1).clamp(min=1) if length_normalize else sums


def shaping_terms(
    log_probs: Tensor, ref_log_probs: Tensor | None, *, entropy: float | Tensor, reference: float | Tensor = 0.0
) -> Tensor:
    """What the shaping adds to a reward, ``-a log pi + b log p``, of whatever the log-probs belong to.

    Args:
        log_probs: Under the policy, any shape, float.
        ref_log_probs: Under the reference, same shape; None if ``reference`` is 0.
        entropy: ``a``, a number or a tensor that broadcasts.
        reference: ``b``, likewise.

    Returns:
        Same shape; carries the gradient.

    Raises:
        ValueError: ``ref_log_probs`` is missing.

    Example:
        >>> shaping_terms(torch.tensor([-2.0]), torch.tensor([-4.0]), entropy=1.0, reference=0.25)
        tensor([1.])
    """
    terms = -entropy * log_probs
    if ref_log_probs is not None:
        return terms + reference * ref_log_probs
    if bool(torch.as_tensor(reference != 0).any()):
        raise ValueError(f"The shaping has reference {reference} and no ref_log_probs; give them, or reference=0.")
    return terms


def shaped_rewards(
    rewards: Tensor,
    log_probs: Tensor,
    ref_log_probs: Tensor | None,
    *,
    entropy: float | Tensor,
    reference: float | Tensor = 0.0,
) -> Tensor:
    """What a policy gradient maximises for QEMPO and its kin: ``r - a log pi + b log p`` of each response.

    The gradient of ``E[r - a log pi + b log p]`` is that of a policy gradient with this reward, held fixed.  Take
    `leave_one_out_advantages` of it, without dividing by the group's standard deviation: divided before shaping, the
    entropy term vanishes as the policy sharpens; divided after, updates do not shrink at the optimum, where the shaped
    reward is constant.

    Args:
        rewards: Quality of each response, ``(B,)``.
        log_probs: Of whole responses (see `response_log_probs`) under the policy that sampled them, at temperature 1
            and without truncation, float ``(B,)``.
        ref_log_probs: The same under the reference, float ``(B,)``; None if ``reference`` is 0.
        entropy: ``a``, a number, a scalar tensor or one per row ``(B,)``.
        reference: ``b``, likewise.

    Returns:
        Float ``(B,)``, without gradient.

    Raises:
        ValueError: Shapes disagree, or ``ref_log_probs`` is missing.

    Example:
        >>> rewards, log_probs, ref_log_probs = torch.tensor([1.0]), torch.tensor([-10.0]), torch.tensor([-11.0])
        >>> shaped_rewards(rewards, log_probs, ref_log_probs, entropy=0.05, reference=0.02)
        tensor([1.2800])
    """
    _check_shapes("shaped_rewards", rewards, log_probs, ref_log_probs, 1)
    return (rewards + shaping_terms(log_probs, ref_log_probs, entropy=entropy, reference=reference)).detach()


def shaped_rewards_to_go(
    rewards: Tensor,
    log_probs: Tensor,
    ref_log_probs: Tensor | None,
    loss_mask: Tensor,
    *,
    entropy: float | Tensor,
    reference: float | Tensor = 0.0,
) -> Tensor:
    """The part of `shaped_rewards` that a token can still change: ``r - sum over u >= t of (a log pi_u - b log p_u)``.

    Its expected gradient is that of `shaped_rewards`, and earlier tokens add no noise to later ones.  But near the
    optimum, where the whole shaped reward is constant and its advantages vanish, these do not.  Past its response a row
    has ``r``, before it the whole shaped reward, so that `leave_one_out_to_go` can compare rows of different length.

    Args:
        rewards: Quality of each response, ``(B,)``.
        log_probs: Of each token under the policy that sampled it, float ``(B, T)``.
        ref_log_probs: The same under the reference, float ``(B, T)``; None if ``reference`` is 0.
        loss_mask: True on the tokens of the response, bool ``(B, T)``.
        entropy: ``a``, a number, a scalar tensor or one per row ``(B,)``.
        reference: ``b``, likewise.

    Returns:
        Float ``(B, T)``, without gradient.

    Raises:
        ValueError: Shapes disagree, or ``ref_log_probs`` is missing.

    Example:
        >>> log_probs, mask = torch.tensor([[-9.0, -1.0, -2.0, -9.0]]), torch.tensor([[False, True, True, False]])
        >>> shaped_rewards_to_go(torch.tensor([1.0]), log_probs, None, mask, entropy=0.5)
        tensor([[2.5000, 2.5000, 2.0000, 1.0000]])
    """
    _check_shapes("shaped_rewards_to_go", rewards, log_probs, ref_log_probs, 2)
    terms = shaping_terms(log_probs, ref_log_probs, entropy=_per_row(entropy), reference=_per_row(reference))
    terms = terms.masked_fill(~loss_mask, 0.0)
    return (rewards[:, None] + terms.flip(-1).cumsum(-1).flip(-1)).detach()


def leave_one_out_to_go(to_go: Tensor, group_ids: Tensor) -> Tensor:
    """`leave_one_out_advantages` of each column on its own: the baseline of a token is what others had still to come.

    Our choice: any function of the *other* rows leaves the expected gradient as it is, and rows of a group begin their
    responses in the same column.

    Args:
        to_go: From `shaped_rewards_to_go`, float ``(B, T)``.
        group_ids: Rows of one task share a value, int64 ``(B,)``.

    Returns:
        Float ``(B, T)``, outside the response too: mask what is made of it.

    Raises:
        ValueError: Shapes disagree.

    Example:
        >>> leave_one_out_to_go(torch.tensor([[2.5, 2.0], [1.5, 1.0]]), torch.tensor([7, 7]))
        tensor([[ 1.,  1.],
                [-1., -1.]])
    """
    if to_go.ndim != 2 or group_ids.shape != to_go.shape[:1]:
        raise ValueError(
            f"leave_one_out_to_go: to_go {tuple(to_go.shape)} and group_ids {tuple(group_ids.shape)} must be (B, T) "
            "and (B,)."
        )
    groups = torch.unique(group_ids, return_inverse=True)[1]
    columns = torch.arange(to_go.shape[1], device=to_go.device)
    cells = groups[:, None] * to_go.shape[1] + columns
    return leave_one_out_advantages(to_go.flatten(), cells.flatten()).view_as(to_go)


def dual_step(
    log_entropy: float, *, mean: float, target: float, scale: float, step_size: float, low: float, high: float
) -> float:
    """One step on the logarithm of a coefficient: up while ``mean`` lies above ``target``, down while below.

    ``clip(log a + step_size (mean - target) / scale, log low, log high)``.  With the mean quality and its floor it is
    the step on the entropy coefficient ``a = 1 / lambda``: quality to spare buys entropy.  With the divergence from the
    reference and its ceiling it is the step on ``mu``.  For a target of entropy see `entropy_dual_step`.  Our choice:
    the paper's own update is not known.

    Args:
        log_entropy: Logarithm of the coefficient now.
        mean: Running mean of the unshaped quality.
        target: Its floor.
        scale: Standard deviation of one response's quality, or another fixed unit; greater than 0.
        step_size: Of the dual step; at least 0.
        low: Least value of the coefficient itself, greater than 0.
        high: Its greatest value.

    Returns:
        The new logarithm of the coefficient.

    Raises:
        ValueError: A number out of range or not finite.

    Example:
        >>> round(dual_step(0.0, mean=0.9, target=0.8, scale=0.5, step_size=0.05, low=1e-4, high=10.0), 4)
        0.01
    """
    if not (scale > 0 and step_size >= 0 and 0 < low <= high):
        raise ValueError(
            f"The dual step has scale {scale}, step_size {step_size}, low {low} and high {high}; it needs scale > 0, "
            "step_size >= 0 and 0 < low <= high."
        )
    moved = log_entropy + step_size * (mean - target) / scale
    if not math.isfinite(moved):
        raise ValueError(
            f"The dual step leads from {log_entropy} to {moved}, with mean {mean}, target {target} and scale {scale}; "
            "all must be finite numbers."
        )
    return min(max(moved, math.log(low)), math.log(high))


def entropy_dual_step(
    log_entropy: float, *, mean: float, target: float, scale: float, step_size: float, low: float, high: float
) -> float:
    """`dual_step` towards a target of entropy: ``a`` goes up while the mean entropy lies *below* its target.

    Args:
        log_entropy: Logarithm of the entropy coefficient now.
        mean: Running mean of the entropy of whole responses, in nats.
        target: The entropy wanted, in nats.
        scale: Standard deviation of one response's ``-log pi``, or another fixed unit; greater than 0.
        step_size: As in `dual_step`, and so are the others.
        low: Of the coefficient itself.
        high: Of the coefficient itself.

    Returns:
        The new logarithm of the coefficient.

    Raises:
        ValueError: A number out of range or not finite.

    Example:
        >>> round(entropy_dual_step(0.0, mean=0.9, target=0.8, scale=0.5, step_size=0.05, low=1e-4, high=10.0), 4)
        -0.01
    """
    return dual_step(log_entropy, mean=target, target=mean, scale=scale, step_size=step_size, low=low, high=high)


def _check_multipliers(constructor: str, lam: float, mu: float = 0.0) -> None:
    if not lam > 0 or not mu >= 0:
        given = f"lam is {lam}" if not lam > 0 else f"mu is {mu}"
        raise ValueError(f"Shaping.{constructor}: {given}; the multipliers need lam > 0 and mu >= 0.")


def _check_shapes(function: str, rewards: Tensor, log_probs: Tensor, ref_log_probs: Tensor | None, ndim: int) -> None:
    same = ref_log_probs is None or ref_log_probs.shape == log_probs.shape
    if rewards.ndim != 1 or log_probs.ndim != ndim or len(log_probs) != len(rewards) or not same:
        ref_shape = None if ref_log_probs is None else tuple(ref_log_probs.shape)
        raise ValueError(
            f"{function}: rewards {tuple(rewards.shape)}, log_probs {tuple(log_probs.shape)} and ref_log_probs "
            f"{ref_shape} must be (B,) and {'(B,)' if ndim == 1 else '(B, T)'} twice."
        )


def _per_row(coefficient: float | Tensor) -> float | Tensor:
    return coefficient[:, None] if isinstance(coefficient, Tensor) and coefficient.ndim == 1 else coefficient
