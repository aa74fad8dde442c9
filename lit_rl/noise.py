"""Sampling noise as a pure function of (key, position): no state to save, no neighbour can change it."""

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """One round of integer hashing on int64 tensors that hold 32-bit values; equal on every device."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _LOW
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _LOW
    return x ^ (x >> 16)


def uniform(keys: Tensor, positions: Tensor) -> Tensor:
    """One uniform number in (0, 1) per (key, position).

    Args:
        keys: int64, see `lit_rl.stream_keys.stream_key`.
        positions: Token positions in the row, int64; keys and positions are broadcast.

    Returns:
        float64, of the shape they have together.
    """
    high = _mix((keys & _LOW) ^ _mix(((keys >> 32) & _LOW) ^ 0x9E3779B9) ^ _mix(positions + 0x85EBCA6B))
    low = _mix(high ^ _mix(positions ^ 0xC2B2AE35)) >> 16
    return ((high << 16 | low).double() + 0.5) * 2.0**-48


def draw(logits: Tensor, noise: Tensor) -> Tensor:
    """Token ids by inverting the cumulative distribution: one number per row instead of one per token.

    Args:
        logits: float32 ``(B, V)``; -inf is never drawn.
        noise: float64 ``(B,)`` in (0, 1).

    Returns:
        int64 ``(B,)``.
    """
    cumulative = (logits - logits.amax(-1, keepdim=True)).exp().cumsum(-1)
    total = cumulative[:, -1:]
    # A number near 1 may round up to the total and fall behind the last token that has any mass.
    target = torch.minimum(noise.to(logits.dtype)[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True)[:, 0]
