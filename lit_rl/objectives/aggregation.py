"""From the losses of tokens to one number, the same for any split into micro-batches and ranks.

Every way of averaging in use is a weight per token.  The weights' denominators belong to the *whole* optimizer step:
count once with `aggregation_totals`, add `AggregationTotals.counts` over ranks, then weigh each micro-batch with
`token_weights`.  The sum of ``weights * token_loss`` over all micro-batches and ranks is the loss.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

AggregationMode = Literal[
    "token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm", "group_token_mean"
]


@dataclass(frozen=True, slots=True)
class AggregationTotals:
    """What an optimizer step contains."""

    counts: Tensor  # int64 (3,): tokens, rows with a token, groups with a token; the caller adds it up over ranks
    group_ids: Tensor  # int64 (G,), sorted: the groups of this rank
    group_tokens: Tensor  # int64 (G,): their tokens; complete, because a group never spans ranks

    def with_counts(self, counts: Tensor) -> "AggregationTotals":
        """The same with ``counts`` summed over ranks."""
        return replace(self, counts=counts)


def aggregation_totals(loss_mask: Tensor, group_ids: Tensor | None = None) -> AggregationTotals:
    """Count the tokens, rows and groups of all rows of this rank's optimizer step.

    Rows and groups without a token in ``loss_mask`` count nowhere.

    Args:
        loss_mask: Of the whole optimizer step, bool ``(B, T)``.
        group_ids: int64 ``(B,)``; needed for ``"group_token_mean"`` only.  All rows of a group are on one rank.

    Returns:
        The totals of this rank.

    Example:
        >>> mask = torch.tensor([[True, True], [True, False], [False, False]])
        >>> aggregation_totals(mask, torch.tensor([0, 0, 1])).counts
        tensor([3, 2, 1])
    """
    row_tokens = loss_mask.sum(-1)
    if group_ids is None:
        groups = group_tokens = row_tokens.new_zeros(0)
    else:
        groups, index = torch.unique(group_ids, return_inverse=True)
        group_tokens = row_tokens.new_zeros(groups.numel()).index_add(0, index, row_tokens)
    counts = torch.stack([row_tokens.sum(), (row_tokens > 0).sum(), (group_tokens > 0).sum()])
    return AggregationTotals(counts, groups, group_tokens)


def token_weights(
    loss_mask: Tensor,
    *,
    mode: AggregationMode,
    totals: AggregationTotals,
    group_ids: Tensor | None = None,
    max_length: int | None = None,
) -> Tensor:
    """Weight of each token of a micro-batch in the loss of its optimizer step.

    With ``n_i`` tokens in row i, B rows, P groups, all of the optimizer step:

    ===========================  ======================  ================================
    ``mode``                     weight of a token       named after
    ===========================  ======================  ================================
    ``token_mean``               ``1 / sum(n)``          DAPO (arXiv 2503.14476, eq. 12)
    ``seq_mean_token_mean``      ``1 / (B n_i)``         GRPO (arXiv 2402.03300, eq. 3)
    ``seq_mean_token_sum``       ``1 / B``               REINFORCE on whole rows
    ``seq_mean_token_sum_norm``  ``1 / (B max_length)``  Dr. GRPO (arXiv 2503.20783)
    ``group_token_mean``         ``1 / (P sum_g(n))``    DAPO's eq. 12 read to the letter
    ===========================  ======================  ================================

    Rows without a token count in no denominator.

    Args:
        loss_mask: Of the micro-batch, bool ``(b, T)``.
        mode: One of the five above.
        totals: Of the whole optimizer step, its ``counts`` summed over ranks.
        group_ids: Of the micro-batch's rows, int64 ``(b,)``; for ``"group_token_mean"``.
        max_length: The constant of ``"seq_mean_token_sum_norm"``, in tokens.

    Returns:
        float32 ``(b, T)``, 0 outside ``loss_mask``; all 0 if the step holds no token.

    Raises:
        ValueError: ``mode`` is unknown, or what it needs is missing.

    Example:
        >>> mask = torch.tensor([[True, True, True], [True, False, False]])
        >>> token_weights(mask, mode="seq_mean_token_sum", totals=aggregation_totals(mask))
        tensor([[0.5000, 0.5000, 0.5000],
                [0.5000, 0.0000, 0.0000]])
    """
    if mode not in _DENOMINATORS:
        raise ValueError(f"The loss aggregation is {mode!r}; use one of {', '.join(get_args(AggregationMode))}.")
    denominators = _DENOMINATORS[mode](loss_mask, totals, group_ids, max_length)
    # What is empty has no token to weigh either: 1 only keeps the division finite.
    weights = 1.0 / denominators.clamp(min=1).double()
    return weights.float()[:, None].expand(loss_mask.shape).masked_fill(~loss_mask, 0.0)


def aggregate(
    token_loss: Tensor,
    loss_mask: Tensor,
    *,
    mode: AggregationMode,
    group_ids: Tensor | None = None,
    max_length: int | None = None,
) -> Tensor:
    """The loss of one optimizer step that is all here, neither split nor spread over ranks.

    Args:
        token_loss: Float ``(B, T)``; anything outside ``loss_mask``.
        loss_mask: Bool ``(B, T)``.
        mode: See `token_weights`.
        group_ids: int64 ``(B,)``; for ``"group_token_mean"``.
        max_length: For ``"seq_mean_token_sum_norm"``.

    Returns:
        A scalar.

    Raises:
        ValueError: As `token_weights`.

    Example:
        >>> losses, mask = torch.tensor([[1.0, 3.0], [8.0, 99.0]]), torch.tensor([[True, True], [True, False]])
        >>> aggregate(losses, mask, mode="token_mean"), aggregate(losses, mask, mode="seq_mean_token_mean")
        (tensor(4.), tensor(5.))
    """
    totals = aggregation_totals(loss_mask, group_ids)
    weights = token_weights(loss_mask, mode=mode, totals=totals, group_ids=group_ids, max_length=max_length)
    return (weights * token_loss.masked_fill(~loss_mask, 0.0)).sum()


# Denominators of a row's tokens, (b,) int64, by mode.
_Denominator = Callable[[Tensor, AggregationTotals, Tensor | None, int | None], Tensor]


def _token_mean(
    loss_mask: Tensor, totals: AggregationTotals, group_ids: Tensor | None, max_length: int | None
) -> Tensor:
    return totals.counts[0].expand(len(loss_mask))


def _row_mean(loss_mask: Tensor, totals: AggregationTotals, group_ids: Tensor | None, max_length: int | None) -> Tensor:
    return totals.counts[1] * loss_mask.sum(-1)


def _row_sum(loss_mask: Tensor, totals: AggregationTotals, group_ids: Tensor | None, max_length: int | None) -> Tensor:
    return totals.counts[1].expand(len(loss_mask))


def _row_norm(loss_mask: Tensor, totals: AggregationTotals, group_ids: Tensor | None, max_length: int | None) -> Tensor:
    if max_length is None or max_length < 1:
        raise ValueError(f"seq_mean_token_sum_norm needs max_length, a number of tokens >= 1; got {max_length}.")
    return (totals.counts[1] * max_length).expand(len(loss_mask))


def _group_mean(
    loss_mask: Tensor, totals: AggregationTotals, group_ids: Tensor | None, max_length: int | None
) -> Tensor:
    if group_ids is None:
        raise ValueError("group_token_mean needs group_ids, one per row; None was given.")
    place = torch.searchsorted(totals.group_ids, group_ids).clamp(max=max(totals.group_ids.numel() - 1, 0))
    if totals.group_ids.numel() == 0 or not bool((totals.group_ids[place] == group_ids).all()):
        raise ValueError(
            "group_token_mean: a row's group is not in totals; count the whole optimizer step's group_ids."
        )
    return totals.counts[2] * totals.group_tokens[place]


_DENOMINATORS: dict[str, _Denominator] = {
    "token_mean": _token_mean,
    "seq_mean_token_mean": _row_mean,
    "seq_mean_token_sum": _row_sum,
    "seq_mean_token_sum_norm": _row_norm,
    "group_token_mean": _group_mean,
}
