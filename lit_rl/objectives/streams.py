"""Several decisions in one response, each with its own advantage: whitened by themselves, given to their tokens."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


@torch.no_grad()
def whiten(
    values: Tensor, mask: Tensor, *, epsilon: float = 1e-8, reduce: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Subtract the mean of a set and divide by its population standard deviation, ``+ epsilon``.

    Args:
        values: Any shape, float; those outside ``mask`` are not read and may be NaN.
        mask: Which of them make up the set, bool.
        epsilon: Added to the standard deviation.
        reduce: Adds up a float64 tensor over processes that hold parts of one set; called twice, on every process.

    Returns:
        Same shape and dtype, 0 outside ``mask``; a set of one value gives 0.

    Example:
        >>> whiten(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([True, True, False]))
        tensor([-1.,  1.,  0.])
    """
    reduce = reduce or _alone
    exact = values.double().masked_fill(~mask, 0.0)
    total, count = reduce(torch.stack([exact.sum(), mask.sum().double()])).unbind()
    count = count.clamp(min=1)
    centred = (exact - total / count).masked_fill(~mask, 0.0)
    std = (reduce(centred.square().sum()) / count).sqrt()
    return (centred / (std + epsilon)).to(values.dtype)


def stream_advantages(
    advantages: Mapping[str, Tensor], masks: Mapping[str, Tensor], loss_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Give every token the advantage of the decision it belongs to.

    Args:
        advantages: Of each stream, by name, its advantage in each row, float ``(B,)``.
        masks: Of the same streams their tokens, bool ``(B, T)``, none in two; without rows that decide nothing.
        loss_mask: Tokens that were sampled, bool ``(B, T)``.

    Returns:
        ``(advantages, loss_mask)``: float32 ``(B, T)``, 0 outside the mask, and the sampled tokens of all streams, bool
        ``(B, T)``.

    Raises:
        ValueError: A token belongs to two streams.

    Example:
        >>> masks = {"plan": torch.tensor([[True, False, False]]), "act": torch.tensor([[False, True, False]])}
        >>> advantages = {"plan": torch.tensor([2.0]), "act": torch.tensor([-1.0])}
        >>> stream_advantages(advantages, masks, torch.ones(1, 3, dtype=torch.bool))
        (tensor([[ 2., -1.,  0.]]), tensor([[ True,  True, False]]))
    """
    taken = torch.zeros_like(loss_mask)
    by_token = torch.zeros(loss_mask.shape, device=loss_mask.device)
    for name, of_row in advantages.items():
        own = masks[name] & loss_mask
        if bool((own & taken).any()):
            row, token = (own & taken).nonzero()[0].tolist()
            raise ValueError(
                f"stream_advantages: token {token} of row {row} is in the stream {name!r} and in another; give a token "
                "that two blocks share to the earlier one."
            )
        by_token = torch.where(own, of_row[:, None].float(), by_token)
        taken = taken | own
    return by_token, taken


def _alone(tensor: Tensor) -> Tensor:
    return tensor
