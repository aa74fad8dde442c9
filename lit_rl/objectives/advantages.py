"""From returns to advantages: baselines and scales taken from a group of episodes of one task."""

from typing import Literal, overload

import torch
from torch import Tensor

TurnNormalization = Literal["turn", "pooled", "center"]


@overload
def group_advantages(
    returns: Tensor, group_ids: Tensor, *, ddof: int, epsilon: float, scale_by_std: bool = True
) -> Tensor: ...
@overload
def group_advantages(returns: Tensor, group_ids: Tensor, *, scale_by_std: Literal[False]) -> Tensor: ...
def group_advantages(
    returns: Tensor,
    group_ids: Tensor,
    *,
    ddof: int | None = None,
    epsilon: float | None = None,
    scale_by_std: bool = True,
) -> Tensor:
    """Returns standardised within their group, ``(R - mean) / (std + epsilon)`` (GRPO, arXiv 2402.03300, section 4.1).

    A group whose returns are all equal, one of a single row included, gives exactly 0: the test is
    ``max - min == 0``, because a standard deviation of equal floats need not come out as 0.

    Args:
        returns: One per row, float ``(B,)``.
        group_ids: Rows of one task share a value, any int64 values in any order, ``(B,)``.
        ddof: 0 for the population's standard deviation, 1 for the sample's.  No default, for published
            implementations differ.
        epsilon: Added to the standard deviation.  No default, for the same reason.
        scale_by_std: False only centres (Dr. GRPO, arXiv 2503.20783); ``ddof`` and ``epsilon`` are then not needed.

    Returns:
        Advantages ``(B,)`` in the dtype of ``returns`` (float32 for integers), without gradient.

    Raises:
        ValueError: Shapes disagree, or the standard deviation is wanted and not defined.

    Example:
        >>> returns, groups = torch.tensor([1.0, 0.0, 5.0, 5.0]), torch.tensor([7, 7, 2, 2])
        >>> group_advantages(returns, groups, ddof=0, epsilon=0.0)
        tensor([ 1., -1.,  0.,  0.])
        >>> group_advantages(returns, groups, scale_by_std=False)
        tensor([ 0.5000, -0.5000,  0.0000,  0.0000])
    """
    segments = _segments(returns, group_ids)
    scale = _scale("group_advantages", ddof, epsilon) if scale_by_std else None
    return _standardize(returns, segments, scale).to(_float_dtype(returns))


def leave_one_out_advantages(returns: Tensor, group_ids: Tensor) -> Tensor:
    """Each return less the mean of the *others* of its group (RLOO, arXiv 2402.14740, section 3).

    ``R_k - sum(R_j, j != k) / (n - 1) = (R_k - mean) n / (n - 1)``; a row alone in its group gets 0.

    Args:
        returns: One per row, float ``(B,)``.
        group_ids: Rows of one task share a value, int64 ``(B,)``.

    Returns:
        Advantages ``(B,)`` in the dtype of ``returns`` (float32 for integers), without gradient.

    Raises:
        ValueError: Shapes disagree.

    Example:
        >>> leave_one_out_advantages(torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0, 0, 1]))
        tensor([ 1., -1.,  0.])
    """
    segments = _segments(returns, group_ids)
    count = torch.bincount(segments)[segments].double()
    centred = _standardize(returns, segments, None)
    return (centred * count / (count - 1).clamp(min=1)).to(_float_dtype(returns))


@overload
def turn_advantages(
    returns: Tensor,
    turn_valid: Tensor,
    group_ids: Tensor,
    *,
    ddof: int,
    epsilon: float,
    normalization: TurnNormalization = "turn",
) -> Tensor: ...
@overload
def turn_advantages(
    returns: Tensor, turn_valid: Tensor, group_ids: Tensor, *, normalization: Literal["center"]
) -> Tensor: ...
def turn_advantages(
    returns: Tensor,
    turn_valid: Tensor,
    group_ids: Tensor,
    *,
    ddof: int | None = None,
    epsilon: float | None = None,
    normalization: TurnNormalization = "turn",
) -> Tensor:
    """Returns of turns against a baseline over the episodes of the group that *reached* that turn.

    Our reading of the per-turn variant of social meta-learning (arXiv 2602.16488): a dialogue that is over is no zero
    in the mean of the turns after it.  Where one episode reached a turn, or all returns are equal, the advantage is 0.

    Args:
        returns: Of each turn (see `turn_returns`), float ``(B, N)``; anything where a turn does not exist.
        turn_valid: True where the row took the turn, bool ``(B, N)``.
        group_ids: Rows of one task share a value, int64 ``(B,)``.
        ddof: 0 for the population's standard deviation, 1 for the sample's; needed unless ``"center"``.
        epsilon: Added to the standard deviation; needed unless ``"center"``.
        normalization: ``"turn"``: mean and standard deviation of each turn index; ``"pooled"``: one mean and one
            standard deviation over all turns of the group; ``"center"``: the mean of each turn index, no division.

    Returns:
        Advantages ``(B, N)`` of the dtype of ``returns``, 0 where ``turn_valid`` is False, without gradient.

    Raises:
        ValueError: Shapes disagree, ``normalization`` is unknown, or a needed number is missing.

    Example:
        >>> returns, valid = torch.tensor([[1.0, 9.0], [0.0, 1.0]]), torch.tensor([[True, False], [True, True]])
        >>> turn_advantages(returns, valid, torch.tensor([0, 0]), ddof=0, epsilon=0.0)
        tensor([[ 1.,  0.],
                [-1.,  0.]])
    """
    if returns.ndim != 2 or turn_valid.shape != returns.shape:
        raise ValueError(
            f"turn_advantages: returns {tuple(returns.shape)} and turn_valid {tuple(turn_valid.shape)} must both be "
            "(rows, turns)."
        )
    if normalization not in ("turn", "pooled", "center"):
        raise ValueError(f"turn_advantages: normalization is {normalization!r}; use 'turn', 'pooled' or 'center'.")
    scale = None if normalization == "center" else _scale("turn_advantages", ddof, epsilon)
    rows = _segments(returns[:, 0], group_ids)[:, None].expand_as(returns)
    turns = torch.arange(returns.shape[1], device=returns.device).expand_as(returns)
    segments = rows if normalization == "pooled" else rows * returns.shape[1] + turns
    advantages = torch.zeros_like(returns, dtype=_float_dtype(returns))
    advantages[turn_valid] = _standardize(returns[turn_valid], segments[turn_valid], scale).to(advantages.dtype)
    return advantages


def token_advantages(advantages: Tensor, turn_ids: Tensor, loss_mask: Tensor) -> Tensor:
    """Give every token to learn from the advantage of its row or of its turn; 0 elsewhere.

    Args:
        advantages: Per row ``(B,)`` or per turn ``(B, N)``, float.
        turn_ids: Turn of each token, integer ``(B, T)``; -1 where there is none.
        loss_mask: True on the tokens to learn from, bool ``(B, T)``.

    Returns:
        ``(B, T)``, dtype of ``advantages``.

    Raises:
        ValueError: A token to learn from belongs to no turn of ``advantages``.

    Example:
        >>> turns, mask = torch.tensor([[-1, 0, 1]]), torch.tensor([[False, True, True]])
        >>> token_advantages(torch.tensor([[2.0, 3.0]]), turns, mask)
        tensor([[0., 2., 3.]])
        >>> token_advantages(torch.tensor([5.0]), turns, mask)
        tensor([[0., 5., 5.]])
    """
    if advantages.ndim == 1:
        return advantages[:, None].expand(loss_mask.shape).masked_fill(~loss_mask, 0.0)
    outside = loss_mask & ((turn_ids < 0) | (turn_ids >= advantages.shape[1]))
    if bool(outside.any()):
        row, token = outside.nonzero()[0].tolist()
        raise ValueError(
            f"token_advantages: turn_ids[{row}, {token}] is {int(turn_ids[row, token])} where loss_mask is True; "
            f"advantages has the turns 0 to {advantages.shape[1] - 1}."
        )
    turns = turn_ids.long().masked_fill(~loss_mask, 0)
    return advantages.gather(1, turns).masked_fill(~loss_mask, 0.0)


def _float_dtype(returns: Tensor) -> torch.dtype:
    return returns.dtype if returns.is_floating_point() else torch.float32


def _scale(function: str, ddof: int | None, epsilon: float | None) -> tuple[int, float]:
    if ddof not in (0, 1) or epsilon is None or epsilon < 0:
        raise ValueError(
            f"{function}: dividing by the standard deviation needs ddof (0 or 1) and epsilon (>= 0), got ddof={ddof}, "
            f"epsilon={epsilon}."
        )
    return ddof, epsilon


def _segments(returns: Tensor, group_ids: Tensor) -> Tensor:
    """Group ids as 0, 1, ..., int64 ``(B,)``."""
    if returns.ndim != 1 or group_ids.shape != returns.shape:
        raise ValueError(
            f"Advantages need one return and one group id per row, got returns {tuple(returns.shape)} and group_ids "
            f"{tuple(group_ids.shape)}."
        )
    index: Tensor = torch.unique(group_ids, return_inverse=True)[1]
    return index


def _standardize(values: Tensor, segments: Tensor, scale: tuple[int, float] | None) -> Tensor:
    """Centre ``values (K,)`` within equal ``segments (K,)``; with ``scale = (ddof, epsilon)`` also divide.  float64."""
    # In float64 the order in which a device adds up a group does not show in the float32 that comes out.
    exact = values.detach().double()
    count = torch.bincount(segments)
    zeros = exact.new_zeros(count.numel())
    mean = zeros.index_add(0, segments, exact) / count
    centred = exact - mean[segments]
    spread = zeros.scatter_reduce(0, segments, exact, "amax", include_self=False)
    spread = spread - zeros.scatter_reduce(0, segments, exact, "amin", include_self=False)
    result = centred
    if scale is not None:
        ddof, epsilon = scale
        variance = zeros.index_add(0, segments, centred.square()) / (count - ddof).clamp(min=1)
        result = centred / (variance.sqrt() + epsilon)[segments]
    return result.masked_fill(spread[segments] == 0, 0.0)
