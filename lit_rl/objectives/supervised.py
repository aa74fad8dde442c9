"""Cross-entropy on chosen tokens: demonstrations, predicted critiques, masked answers."""

from torch import Tensor


def masked_cross_entropy(log_probs: Tensor, target_mask: Tensor, target_weights: Tensor | None = None) -> Tensor:
    """``-w log p`` of each target token ``(B, T)``, zero outside ``target_mask``.

    Not averaged: divide by `target_total` of the whole optimizer step, so that the split into micro-batches does not
    matter.

    Args:
        log_probs: Of the tokens that stand in the row, float ``(B, T)``.
        target_mask: True on the tokens to learn, bool ``(B, T)``.
        target_weights: Of each token, float ``(B, T)``; None weighs all alike.

    Returns:
        Loss ``(B, T)``; what stands outside the mask reaches neither it nor a gradient.

    Example:
        >>> import torch
        >>> log_probs, mask = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[False, True, True]])
        >>> masked_cross_entropy(log_probs, mask, torch.tensor([[1.0, 1.0, 0.5]]))
        tensor([[0.0000, 2.0000, 1.5000]])
    """
    loss = -log_probs
    if target_weights is not None:
        loss = loss * target_weights.detach().masked_fill(~target_mask, 0.0)
    return loss.masked_fill(~target_mask, 0.0)


def target_total(target_mask: Tensor, target_weights: Tensor | None = None) -> Tensor:
    """What to divide `masked_cross_entropy` by: the weights of all targets, added up.

    Add it up over ranks, then take ``clamp(min=1)``, our reading of the critique term of arXiv 2602.16066: the term has
    a normaliser of its own, so that long critiques do not change the scale of the policy's loss.

    Args:
        target_mask: Of the whole optimizer step, bool ``(B, T)``.
        target_weights: Float ``(B, T)``, or None.

    Returns:
        A float scalar.

    Example:
        >>> import torch
        >>> target_total(torch.tensor([[True, True, False]]), torch.tensor([[1.0, 0.5, 9.0]]))
        tensor(1.5000)
    """
    if target_weights is None:
        return target_mask.sum().float()
    return target_weights.detach().masked_fill(~target_mask, 0.0).sum()
