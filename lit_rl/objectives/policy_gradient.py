"""The clipped surrogate of a policy gradient, token by token."""

from typing import NamedTuple

import torch
from torch import Tensor

# exp(20) is about 5e8: beyond, a ratio says only that policy and sampler have nothing in common.
LOG_RATIO_LIMIT = 20.0


class ClipCounts(NamedTuple):
    """How many tokens a clip holds back: add up over micro-batches and ranks, then divide by ``tokens``."""

    high: Tensor  # int64 (); A > 0 and ratio > 1 + clip_high
    low: Tensor  # int64 (); A < 0 and ratio < 1 - clip_low
    dual: Tensor  # int64 (); A < 0 and ratio > dual_clip
    tokens: Tensor  # int64 (); in the loss mask


def clipped_policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    loss_mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> Tensor:
    """PPO's clipped surrogate of each token ``(B, T)``, zero outside ``loss_mask``.

    ``max(-r A, -clip(r, 1 - clip_low, 1 + clip_high) A)`` with ``r = exp(log_probs - old_log_probs)`` (PPO,
    arXiv 1707.06347, eq. 7; unequal bounds: DAPO, arXiv 2503.14476, eq. 10).  With ``dual_clip = c``, where ``A < 0``
    the loss is at most ``-c A`` (arXiv 1912.09729, eq. 5).  The log ratio is clamped to [-20, 20].  Not averaged: what
    to divide by is the algorithm's choice, see `token_weights`.

    Args:
        log_probs: Of each token under the policy being trained, float ``(B, T)``.
        old_log_probs: Under the policy that sampled the tokens, float ``(B, T)``; no gradient.
        advantages: Per token ``(B, T)`` or per row ``(B, 1)``, float; no gradient.
        loss_mask: True on the tokens to learn from, bool ``(B, T)``.
        clip_low: How far below 1 the ratio still counts.
        clip_high: How far above 1 the ratio still counts.
        dual_clip: Greater than 1, or None for no second clip.

    Returns:
        Loss ``(B, T)``; whatever stands outside the mask, NaN and infinity too, reaches neither it nor a gradient.

    Raises:
        ValueError: A clip out of range.

    Example:
        >>> same = torch.zeros(1, 2)
        >>> clipped_policy_loss(same, same, torch.tensor([[3.0]]), torch.tensor([[True, False]]))
        tensor([[-3.,  0.]])
    """
    _check_clips(clip_low, clip_high, dual_clip)
    ratio = _ratio(log_probs, old_log_probs, loss_mask)
    advantages = advantages.detach().masked_fill(~loss_mask, 0.0)
    token_loss = torch.maximum(-ratio * advantages, -ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
    if dual_clip is not None:
        token_loss = torch.where(advantages < 0, token_loss.minimum(-dual_clip * advantages), token_loss)
    return token_loss.masked_fill(~loss_mask, 0.0)


@torch.no_grad()
def clip_fractions(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    loss_mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> ClipCounts:
    """Which tokens `clipped_policy_loss` takes the gradient from, counted by cause.

    Counts, not shares, so that they add up over micro-batches and ranks; divide by ``tokens`` at the end.

    Args:
        log_probs: As in `clipped_policy_loss`, and so are all others.
        old_log_probs: Float ``(B, T)``.
        advantages: ``(B, T)`` or ``(B, 1)``.
        loss_mask: Bool ``(B, T)``.
        clip_low: Lower clip.
        clip_high: Upper clip.
        dual_clip: Second clip for negative advantages; None counts 0.

    Returns:
        Four int64 scalars.

    Raises:
        ValueError: A clip out of range.

    Example:
        >>> log_probs, mask = torch.tensor([[1.0, -1.0, 0.0]]), torch.ones(1, 3, dtype=torch.bool)
        >>> counts = clip_fractions(log_probs, torch.zeros(1, 3), torch.tensor([[1.0, -1.0, 1.0]]), mask)
        >>> [int(count) for count in counts]
        [1, 1, 0, 3]
    """
    _check_clips(clip_low, clip_high, dual_clip)
    ratio = _ratio(log_probs, old_log_probs, loss_mask)
    gains, losses = loss_mask & (advantages > 0), loss_mask & (advantages < 0)
    high = (gains & (ratio > 1 + clip_high)).sum()
    low = (losses & (ratio < 1 - clip_low)).sum()
    dual = torch.zeros_like(low) if dual_clip is None else (losses & (ratio > dual_clip)).sum()
    return ClipCounts(high, low, dual, loss_mask.sum())


def _ratio(log_probs: Tensor, old_log_probs: Tensor, loss_mask: Tensor) -> Tensor:
    # Mask before exp(): masking the result leaves inf * 0 = NaN in the gradient.
    log_ratio = (log_probs - old_log_probs.detach()).masked_fill(~loss_mask, 0.0)
    return log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def _check_clips(clip_low: float, clip_high: float, dual_clip: float | None) -> None:
    if not 0.0 <= clip_low <= 1.0 or clip_high < 0.0:
        raise ValueError(
            f"clip_low is {clip_low}, clip_high {clip_high}; they need 0 <= clip_low <= 1 and clip_high >= 0."
        )
    if dual_clip is not None and dual_clip <= 1.0:
        raise ValueError(f"dual_clip is {dual_clip}; give a number greater than 1, or None for no second clip.")
