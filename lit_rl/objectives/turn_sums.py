"""Turns as single actions: what their tokens come to, on the first token of each."""

import torch
from torch import Tensor


def first_tokens(mask: Tensor) -> Tensor:
    """The first token of each run of true ones, bool ``(B, T)``.

    Example:
        >>> first_tokens(torch.tensor([[False, True, True, False, True]])).int().tolist()
        [[0, 1, 0, 0, 1]]
    """
    return mask & ~torch.nn.functional.pad(mask[:, :-1], (1, 0))


def turn_sums(values: Tensor, mask: Tensor) -> Tensor:
    """The sum of each run of tokens on its first one, and 0 elsewhere.

    A turn of one party is such a run of what it sampled: something is inserted before its next one.  With log-probs it
    is the log-prob of the whole turn, of a chain of skills say.

    Args:
        values: Of each token, float ``(B, T)``; anything outside ``mask``.
        mask: Tokens of turns, bool ``(B, T)``.

    Returns:
        ``(B, T)``, dtype of ``values``; differentiable.

    Raises:
        ValueError: Shapes disagree.

    Example:
        >>> mask = torch.tensor([[False, True, True, False, True]])
        >>> turn_sums(torch.tensor([[9.0, 1.0, 2.0, 9.0, 4.0]]), mask)
        tensor([[0., 3., 0., 0., 4.]])
    """
    if values.ndim != 2 or mask.shape != values.shape:
        raise ValueError(
            f"turn_sums: values {tuple(values.shape)} and mask {tuple(mask.shape)} must both be (rows, tokens)."
        )
    first = first_tokens(mask)
    run = first.long().cumsum(1)  # 0 in front of the first one
    sums = values.new_zeros(len(values), values.shape[1] + 1).scatter_add(1, run, values.masked_fill(~mask, 0.0))
    return sums.gather(1, run).masked_fill(~first, 0.0)
