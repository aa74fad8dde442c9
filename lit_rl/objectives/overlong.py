"""Responses that reach the limit on their length: what they cost, and which of them were cut off."""

from collections.abc import Collection

import torch
from torch import Tensor


def soft_overlong(lengths: Tensor, *, max_length: int, cache_length: int, factor: float = 1.0) -> Tensor:
    """What is added to the reward of a long response, in ``[-factor, 0]`` (DAPO, arXiv 2503.14476, eq. 13).

    With ``s = max_length - cache_length``: 0 up to ``s`` tokens, then ``factor (s - length) / cache_length``, and
    ``-factor`` from ``max_length`` on.

    Args:
        lengths: Sampled tokens of each response, its end-of-turn token included, integer of any shape.
        max_length: Limit of the sampler, in tokens.
        cache_length: Over how many tokens before the limit the punishment grows.
        factor: Punishment at the limit.

    Returns:
        float32 of the shape of ``lengths``.

    Raises:
        ValueError: A number out of range.

    Example:
        >>> soft_overlong(torch.tensor([12, 13, 16, 17]), max_length=16, cache_length=4)
        tensor([ 0.0000, -0.2500, -1.0000, -1.0000])
    """
    if not 0 < cache_length <= max_length:
        raise ValueError(
            f"soft_overlong: cache_length is {cache_length} and max_length {max_length}; 0 < cache_length <= "
            "max_length must hold."
        )
    if factor < 0:
        raise ValueError(f"soft_overlong: factor is {factor}; it must be at least 0.")
    over = (lengths.double() - (max_length - cache_length)).clamp(0, cache_length)
    return (over / -cache_length * factor).float() + 0.0  # or what costs nothing would be -0


def is_truncated(lengths: Tensor, last_tokens: Tensor, *, stop_ids: Collection[int], max_length: int) -> Tensor:
    """Which responses were cut off at the limit, for those that ended there by themselves were not.

    Args:
        lengths: Sampled tokens of each response, integer of any shape.
        last_tokens: The last of them, int64 of the same shape; anything where the length is 0.
        stop_ids: Tokens that end a response.
        max_length: Limit of the sampler, in tokens.

    Returns:
        bool of the shape of ``lengths``.

    Example:
        >>> is_truncated(torch.tensor([3, 4, 4]), torch.tensor([7, 7, 2]), stop_ids=[2], max_length=4)
        tensor([False,  True, False])
    """
    stops = torch.tensor(sorted(stop_ids), dtype=last_tokens.dtype, device=last_tokens.device)
    return (lengths >= max_length) & ~torch.isin(last_tokens, stops)
