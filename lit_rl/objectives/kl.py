"""Estimators of the KL divergence from the log-probs of sampled tokens."""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from lit_rl.objectives.policy_gradient import LOG_RATIO_LIMIT

KLEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(
    log_probs: Tensor, ref_log_probs: Tensor, *, estimator: KLEstimator, loss_mask: Tensor | None = None
) -> Tensor:
    """Estimate ``KL(policy || reference)`` from each sampled token, by one of three formulas.

    With ``d = log_probs - ref_log_probs`` of a token that the policy sampled (J. Schulman, "Approximating KL
    divergence", 2020):

    * ``k1 = d``: unbiased, noisy, may be negative.  Its gradient has mean zero: never a penalty in a loss.
    * ``k2 = d^2 / 2``: biased value, never negative, its gradient is that of the KL divergence on average.
    * ``k3 = exp(-d) - 1 + d``: unbiased, never negative, little noise; GRPO's (arXiv 2402.03300, eq. 4).  Here ``-d``
      is clamped to [-20, 20] in the exponential.

    Args:
        log_probs: Under the policy that sampled the tokens, float ``(B, T)``; carries the gradient.
        ref_log_probs: Under the reference, float ``(B, T)``; no gradient.
        estimator: ``"k1"``, ``"k2"`` or ``"k3"``.
        loss_mask: Bool ``(B, T)``; where False the estimate is 0 and has no gradient, whatever stands there.

    Returns:
        Float ``(B, T)``, in nats.

    Raises:
        ValueError: ``estimator`` is unknown.

    Example:
        >>> import torch
        >>> policy, reference = torch.tensor([[-1.0]]), torch.tensor([[-2.0]])
        >>> [round(kl_estimate(policy, reference, estimator=name).item(), 4) for name in ("k1", "k2", "k3")]
        [1.0, 0.5, 0.3679]
    """
    if estimator not in _ESTIMATORS:
        raise ValueError(f"The KL estimator is {estimator!r}; use one of {', '.join(get_args(KLEstimator))}.")
    difference = log_probs - ref_log_probs.detach()
    if loss_mask is not None:
        difference = difference.masked_fill(~loss_mask, 0.0)
    return _ESTIMATORS[estimator](difference)


def _k1(difference: Tensor) -> Tensor:
    return difference


def _k2(difference: Tensor) -> Tensor:
    return 0.5 * difference.square()


def _k3(difference: Tensor) -> Tensor:
    return (-difference).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).expm1() + difference


_ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {"k1": _k1, "k2": _k2, "k3": _k3}
