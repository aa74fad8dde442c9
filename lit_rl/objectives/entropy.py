"""Entropy of the distributions tokens are drawn from."""

import torch
from torch import Tensor


def categorical_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy in nats, ``-sum p log p`` with ``p = softmax(logits)``.

    Args:
        logits: Float ``(..., V)``; -inf is a token that cannot come, at least one must be finite.

    Returns:
        ``(...)``, float32 (float64 for float64 logits); its gradient is finite beside -inf.

    Example:
        >>> categorical_entropy(torch.tensor([[0.0, 0.0], [0.0, -torch.inf]]))
        tensor([0.6931, 0.0000])
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_probs = logits.log_softmax(-1)
    # 0 * -inf is NaN where the limit of p log p is 0.
    return -(log_probs.exp() * log_probs.masked_fill(log_probs == -torch.inf, 0.0)).sum(-1) + 0.0
