"""Learning from which of two dialogues came to more, both with one customer (gopo.md section 5).

As published (GOPO, arXiv 2602.15854): the planner learns from preferences between whole dialogues.  Our reading: the
loss, DPO's (arXiv 2305.18290, eq. 7) with the log-probs of all plans of a dialogue in place of those of one reply.
"""

from torch import Tensor


def dialogue_log_ratios(log_probs: Tensor, ref_log_probs: Tensor, turn_mask: Tensor) -> Tensor:
    """``s = sum_t (log pi(z_t) - log pi_ref(z_t))``, over the plans of each dialogue.

    A sum, not a mean, as the objective has it: long dialogues weigh more, so look at the margin by length.

    Args:
        log_probs: Of each turn's plan under the policy, float ``(B, N)``; carries the gradient.
        ref_log_probs: Under the reference, with the same masks on skills, float ``(B, N)``; no gradient.
        turn_mask: True on real turns, bool ``(B, N)``; elsewhere anything may stand, infinities too.

    Returns:
        Float ``(B,)``.

    Raises:
        ValueError: Shapes disagree.

    Example:
        >>> import torch
        >>> log_probs, mask = torch.tensor([[-0.2, -0.5, 9.0]]), torch.tensor([[True, True, False]])
        >>> dialogue_log_ratios(log_probs, torch.tensor([[-0.4, -0.5, 0.0]]), mask)
        tensor([0.2000])
    """
    if log_probs.ndim != 2 or ref_log_probs.shape != log_probs.shape or turn_mask.shape != log_probs.shape:
        raise ValueError(
            f"dialogue_log_ratios: log_probs {tuple(log_probs.shape)}, ref_log_probs {tuple(ref_log_probs.shape)} and "
            f"turn_mask {tuple(turn_mask.shape)} must all be (dialogues, turns)."
        )
    # Mask before subtracting: -inf less -inf is NaN, in the gradient too.
    masked = log_probs.masked_fill(~turn_mask, 0.0) - ref_log_probs.detach().masked_fill(~turn_mask, 0.0)
    return masked.sum(1)


def trajectory_margin(
    chosen_log_ratios: Tensor,
    rejected_log_ratios: Tensor,
    chosen_returns: Tensor,
    rejected_returns: Tensor,
    *,
    kl_coef: float = 0.1,
    return_margin: float = 0.0,
) -> Tensor:
    """``m = b (s+ - s-) - z (R+ - R-)`` of each pair, ``b = kl_coef`` and ``z = return_margin``.

    Its loss is `lit_rl.objectives.preference.pairwise_loss`, ``-log sigmoid(m)``.  That over-trains: pairs told apart
    become more while the return of the policy falls.  Stop by a held-out return.

    Args:
        chosen_log_ratios: ``s+``, see `dialogue_log_ratios`, float ``(P,)``; carries the gradient.
        rejected_log_ratios: ``s-``, likewise.
        chosen_returns: ``R+``, float ``(P,)``; no gradient.
        rejected_returns: ``R-``, likewise.
        kl_coef: Greater than 0; the greater it is, the nearer the policy stays to the reference.
        return_margin: At least 0; how much more is demanded of pairs that are further apart.

    Returns:
        Float ``(P,)``.

    Raises:
        ValueError: Shapes disagree, or an option out of range.

    Example:
        >>> import torch
        >>> chosen, rejected, worth = torch.tensor([0.5]), torch.tensor([-0.1]), torch.zeros(1)
        >>> trajectory_margin(chosen, rejected, worth, worth, kl_coef=0.1)
        tensor([0.0600])
    """
    shapes = [tuple(x.shape) for x in (chosen_log_ratios, rejected_log_ratios, chosen_returns, rejected_returns)]
    if len(set(shapes)) > 1 or chosen_log_ratios.ndim != 1:
        raise ValueError(
            f"trajectory_margin: log-ratios and returns of chosen and rejected dialogues have the shapes {shapes}; all "
            "must be (pairs,)."
        )
    if not kl_coef > 0 or not return_margin >= 0:
        raise ValueError(
            f"trajectory_margin: kl_coef is {kl_coef} and return_margin {return_margin}; the first must be above 0, "
            "the second at least 0."
        )
    further_apart = (chosen_returns - rejected_returns).detach()
    return kl_coef * (chosen_log_ratios - rejected_log_ratios) - return_margin * further_apart


def preference_pairs(returns: Tensor, group_ids: Tensor, *, min_gap: float = 0.02) -> Tensor:
    """All pairs of dialogues of one group whose returns differ by more than ``min_gap``.

    Args:
        returns: Of each dialogue, float ``(B,)``.
        group_ids: Dialogues with one customer share a value, int64 ``(B,)``.
        min_gap: At least 0.

    Returns:
        Rows of the better and of the worse dialogue, int64 ``(P, 2)``, ordered by the better one's row, then by the
        other's.

    Raises:
        ValueError: Shapes disagree, or ``min_gap`` is below 0.

    Example:
        >>> import torch
        >>> preference_pairs(torch.tensor([0.5, 0.9, 0.89, 0.1]), torch.tensor([0, 0, 0, 1])).tolist()
        [[1, 0], [2, 0]]
    """
    if returns.ndim != 1 or group_ids.shape != returns.shape:
        raise ValueError(
            f"preference_pairs: returns {tuple(returns.shape)} and group_ids {tuple(group_ids.shape)} must both be "
            "(dialogues,)."
        )
    if not min_gap >= 0:
        raise ValueError(f"preference_pairs: min_gap is {min_gap}; it must be at least 0.")
    better = returns[:, None] - returns[None, :] > min_gap
    return (better & (group_ids[:, None] == group_ids[None, :])).nonzero()
