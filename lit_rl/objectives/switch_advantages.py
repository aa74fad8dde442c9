"""Three estimates of what it was worth to keep or to switch the subgoal (HiPER, arXiv 2602.16165)."""

from torch import Tensor

from lit_rl.objectives.turns import turn_mask


def return_switch_advantages(segment_returns: Tensor, switch_values: Tensor, lengths: Tensor) -> Tensor:
    """The return to the end of the segment against a value head of its own, ``R - V_switch`` (the authors' code).

    Errors of ``V_switch`` never bias the gradient.

    Args:
        segment_returns: From `hierarchical_advantages`, float ``(E, N)``.
        switch_values: Of the state and the subgoal so far, float ``(E, N)``.
        lengths: Turns of each episode, integer ``(E,)``.

    Returns:
        Float ``(E, N)``, the first turn included, 0 where a turn does not exist; without gradient.

    Example:
        >>> import torch
        >>> return_switch_advantages(torch.tensor([[0.5, 1.0]]), torch.tensor([[0.25, torch.nan]]), torch.tensor([1]))
        tensor([[0.2500, 0.0000]])
    """
    exists = turn_mask(lengths, segment_returns.shape[1])
    return (segment_returns - switch_values.detach()).masked_fill(~exists, 0.0)


def critic_switch_advantages(
    low_values: Tensor, high_values: Tensor, switch_values: Tensor, boundaries: Tensor, lengths: Tensor
) -> Tensor:
    """The value of what was decided less that of having to decide: ``V_high`` or ``V_low``, less ``V_switch``.

    Our addition: with exact values it equals `gain_switch_advantages`, and every value is read where its head is
    trained.  Far less variance than `return_switch_advantages`; errors of the values bias the gradient.

    Args:
        low_values: Float ``(E, N)``.
        high_values: Float ``(E, N)``; read at boundaries alone.
        switch_values: Float ``(E, N)``.
        boundaries: Bool ``(E, N)``.
        lengths: Integer ``(E,)``.

    Returns:
        Float ``(E, N)``; 0 at the first turn, where nothing is decided, and where a turn does not exist; no gradient.

    Example:
        >>> import torch
        >>> low_values, high_values = torch.tensor([[0.5, 0.5, 0.5]]), torch.tensor([[1.0, torch.nan, 1.0]])
        >>> boundaries = torch.tensor([[True, False, True]])
        >>> critic_switch_advantages(low_values, high_values, torch.full((1, 3), 0.75), boundaries, torch.tensor([3]))
        tensor([[ 0.0000, -0.2500,  0.2500]])
    """
    decided = high_values.where(boundaries, low_values) - switch_values
    return decided.detach().masked_fill(~_decides(lengths, low_values.shape[1]), 0.0)


def gain_switch_advantages(
    high_values: Tensor, keep_values: Tensor, switch_probs: Tensor, boundaries: Tensor, lengths: Tensor
) -> Tensor:
    """How much better than chance was decided: ``(q - p) (V_high - V_keep)`` with ``q`` 1 at boundaries (the paper).

    Args:
        high_values: Of the state before a subgoal is chosen, at every turn but the first; float ``(E, N)``.
        keep_values: Low-level values of the state with the subgoal so far, on turns that switched too; ``(E, N)``.
        switch_probs: Of switching, ``p``, float ``(E, N)``.
        boundaries: Bool ``(E, N)``.
        lengths: Integer ``(E,)``.

    Returns:
        Float ``(E, N)``; 0 at the first turn, where nothing is decided, and where a turn does not exist; no gradient.

    Example:
        >>> import torch
        >>> high_values, keep_values = torch.tensor([[torch.nan, 0.5]]), torch.tensor([[torch.nan, 0.25]])
        >>> switch_probs, boundaries = torch.tensor([[torch.nan, 0.5]]), torch.tensor([[True, True]])
        >>> gain_switch_advantages(high_values, keep_values, switch_probs, boundaries, torch.tensor([2]))
        tensor([[0.0000, 0.1250]])
    """
    gain = (boundaries.to(high_values.dtype) - switch_probs) * (high_values - keep_values)
    return gain.detach().masked_fill(~_decides(lengths, high_values.shape[1]), 0.0)


def _decides(lengths: Tensor, turns: int) -> Tensor:
    """Turns that may keep a subgoal: all but the first; bool ``(E, N)``."""
    exists = turn_mask(lengths, turns)
    exists[:, :1] = False
    return exists
