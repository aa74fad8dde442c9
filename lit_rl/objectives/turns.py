"""What estimators over the turns of episodes share: which turns exist, and sums that run backwards through them."""

import torch
from torch import Tensor


def turn_mask(lengths: Tensor, turns: int) -> Tensor:
    """Which of ``turns`` padded turns an episode has.

    Args:
        lengths: Turns of each episode, integer ``(E,)``.
        turns: ``N``, at least the greatest length.

    Returns:
        Bool ``(E, N)``.

    Raises:
        ValueError: An episode is longer than ``turns``, or has a negative length.

    Example:
        >>> turn_mask(torch.tensor([2, 0]), 3)
        tensor([[ True,  True, False],
                [False, False, False]])
    """
    if bool(((lengths < 0) | (lengths > turns)).any()):
        raise ValueError(
            f"lengths has {lengths.tolist()[:8]}; every length lies between 0 and the {turns} padded turns."
        )
    return torch.arange(turns, device=lengths.device) < lengths[:, None]


def backward_scan(terms: Tensor, decay: Tensor) -> Tensor:
    """``x_t = terms_t + decay_t x_(t + 1)`` for all ``t`` at once, with 0 after the last.

    Takes ``log2(N)`` steps over whole tensors: each joins all stretches of 1, 2, 4, ... turns with those behind them.
    Padding on the right with ``terms`` and ``decay`` 0 changes no bit of the result.

    Args:
        terms: Float ``(E, N)``, finite.
        decay: Float ``(E, N)``, finite; that of the last turn is never used.

    Returns:
        Float ``(E, N)``.

    Example:
        >>> backward_scan(torch.tensor([[1.0, 1.0, 4.0]]), torch.tensor([[0.5, 0.5, 0.5]]))
        tensor([[2.5000, 3.0000, 4.0000]])
    """
    stretch = 1
    while stretch < terms.shape[1]:
        terms = terms + decay * shifted(terms, stretch)
        decay = decay * shifted(decay, stretch)
        stretch *= 2
    return terms


def shifted(values: Tensor, by: int = 1) -> Tensor:
    """What stands ``by`` columns further right, 0 (False) past the end; ``(E, N)``.

    Example:
        >>> shifted(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[2., 3., 0.]])
    """
    return torch.nn.functional.pad(values[:, by:], (0, min(by, values.shape[1])))
