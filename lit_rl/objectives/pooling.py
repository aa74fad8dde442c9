"""One vector of a row's hidden states: the mean over its last real tokens."""

import torch
from torch import Tensor


def pool_last_k(hidden: Tensor, mask: Tensor, *, k: int | None) -> Tensor:
    """Mean of the states of the last ``k`` real tokens of each row, float32 ``(B, H)``.

    ``c_t = sum of m_u over u >= t``, ``w_t = m_t [c_t <= k]``, ``r = sum of w_t h_t / sum of w_t`` (arXiv 2602.15849,
    section 5.2; that the pooling is a mean is our reading).  So it does not matter on which side a row is padded, nor
    what stands in the padding.  Where fewer than ``k`` tokens are real, all of them count.

    Args:
        hidden: Of every position, float ``(B, T, H)``.
        mask: True on real tokens, bool ``(B, T)``; at least one in each row.
        k: How many tokens; 1 is the last token, None all of them.

    Raises:
        ValueError: ``k`` is below 1, or a row has no real token.

    Example:
        >>> states = torch.tensor([[[0.0], [1.0], [3.0], [99.0]]])
        >>> pool_last_k(states, torch.tensor([[True, True, True, False]]), k=2)
        tensor([[2.]])
    """
    if k is not None and k < 1:
        raise ValueError(f"pool_last_k: k is {k}; it must be at least 1, or None for all tokens.")
    if not bool(mask.any(1).all()):
        raise ValueError("pool_last_k: a row of the mask has no real token; every row needs one.")
    to_the_end = mask.flip(1).cumsum(1).flip(1)
    window = mask if k is None else mask & (to_the_end <= k)
    # Masked and not multiplied: padding may hold NaN.
    states = hidden.masked_fill(~window[..., None], 0.0).to(torch.promote_types(hidden.dtype, torch.float32))
    return states.sum(1) / window.sum(1, keepdim=True)
