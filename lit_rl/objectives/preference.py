"""Losses on pairs of responses whose optimum is that of `lit_rl.objectives.shaping`, without sampling.

From the closed form, ``r = a log pi - b log p + a log Z``; between two responses to one prompt ``Z`` cancels.  As
published (QEMPO, arXiv 2602.15894): a DPO-style offline trainer for both variants.  Our derivation: the formulas, of
which ``a = b`` is DPO (arXiv 2305.18290, eq. 7) and ``b = 0`` is QEMPO.
"""

import torch.nn.functional as F
from torch import Tensor

from lit_rl.objectives.shaping import shaping_terms


def preference_margin(
    chosen_log_probs: Tensor,
    rejected_log_probs: Tensor,
    chosen_ref_log_probs: Tensor | None,
    rejected_ref_log_probs: Tensor | None,
    *,
    entropy: float | Tensor,
    reference: float | Tensor = 0.0,
) -> Tensor:
    """By how much the policy's implicit reward of the chosen response exceeds that of the rejected one.

    ``m = a (log pi_w - log pi_l) - b (log p_w - log p_l)``.  With ``a = b`` it is DPO's, bit for bit.

    Args:
        chosen_log_probs: Of whole chosen responses (see `response_log_probs`), float ``(B,)``; carries the gradient.
        rejected_log_probs: Of the rejected ones, float ``(B,)``; carries the gradient.
        chosen_ref_log_probs: Of the chosen ones under the reference, float ``(B,)``; None if ``reference`` is 0.
        rejected_ref_log_probs: Of the rejected ones under the reference; None if ``reference`` is 0.
        entropy: ``a``, a number, a scalar tensor or one per pair ``(B,)``; greater than 0.
        reference: ``b``, likewise; at least 0.

    Returns:
        Float ``(B,)``.

    Raises:
        ValueError: Shapes disagree, or the reference's log-probs are missing.

    Example:
        >>> import torch
        >>> chosen, rejected = torch.tensor([-12.0]), torch.tensor([-15.0])
        >>> preference_margin(chosen, rejected, None, None, entropy=0.2)
        tensor([0.6000])
        >>> ref = torch.tensor([-13.0]), torch.tensor([-14.5])
        >>> preference_margin(chosen, rejected, *ref, entropy=0.2, reference=0.1)
        tensor([0.4500])
    """
    _check_pairs(
        "preference_margin", chosen_log_probs, rejected_log_probs, chosen_ref_log_probs, rejected_ref_log_probs
    )
    if chosen_ref_log_probs is None or rejected_ref_log_probs is None:
        return shaping_terms(rejected_log_probs - chosen_log_probs, None, entropy=entropy, reference=reference)
    # b times DPO's difference, then the rest: long responses cancel against the reference before anything is rounded.
    chosen_ratio = chosen_log_probs - chosen_ref_log_probs.detach()
    rejected_ratio = rejected_log_probs - rejected_ref_log_probs.detach()
    return reference * (chosen_ratio - rejected_ratio) + (entropy - reference) * (chosen_log_probs - rejected_log_probs)


def pairwise_loss(margin: Tensor) -> Tensor:
    """``-log sigmoid(m)`` of each pair, as if the chosen response were certain to be the better one.

    It has no finite optimum on pairs that are always labelled alike: ``m`` grows without bound, and without a reference
    (``b = 0``) nothing holds the text that no pair shows.  `soft_label_loss` and `regression_loss` end at the optimum.

    Args:
        margin: From `preference_margin`, float ``(B,)``; carries the gradient.

    Returns:
        Float ``(B,)``, not averaged.

    Example:
        >>> import torch
        >>> pairwise_loss(torch.tensor([0.6]))
        tensor([0.4375])
    """
    return -F.logsigmoid(margin)


def soft_label_loss(margin: Tensor, preference: Tensor) -> Tensor:
    """Cross-entropy with a probability as label: ``-(P log sigmoid(m) + (1 - P) log sigmoid(-m))``.

    Args:
        margin: From `preference_margin`, float ``(B,)``; carries the gradient.
        preference: ``P``, that the chosen response is the better one, float ``(B,)`` in [0, 1]: given, or the sigmoid
            of the difference of their qualities (Bradley-Terry).  1 gives `pairwise_loss`.

    Returns:
        Float ``(B,)``, not averaged.

    Raises:
        ValueError: Shapes disagree, or a label is no probability.

    Example:
        >>> import torch
        >>> soft_label_loss(torch.tensor([0.6]), torch.tensor([0.5]))
        tensor([0.7375])
    """
    _check_labels("soft_label_loss", "preference", margin, preference)
    preference = preference.detach()
    wrong = ~((preference >= 0) & (preference <= 1))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"soft_label_loss: preference[{row}] is {float(preference[row])}; a label is a probability in [0, 1]."
        )
    return -(preference * F.logsigmoid(margin) + (1 - preference) * F.logsigmoid(-margin))


def regression_loss(margin: Tensor, quality_difference: Tensor) -> Tensor:
    """``(m - (r_w - r_l))^2`` of each pair, where the qualities themselves are known.

    Args:
        margin: From `preference_margin`, float ``(B,)``; carries the gradient.
        quality_difference: ``r_w - r_l``, float ``(B,)``.

    Returns:
        Float ``(B,)``, not averaged.

    Raises:
        ValueError: Shapes disagree.

    Example:
        >>> import torch
        >>> regression_loss(torch.tensor([0.6]), torch.tensor([0.8]))
        tensor([0.0400])
    """
    _check_labels("regression_loss", "quality_difference", margin, quality_difference)
    return (margin - quality_difference.detach()).square()


def _check_pairs(function: str, chosen: Tensor, rejected: Tensor, *references: Tensor | None) -> None:
    shapes = [None if t is None else tuple(t.shape) for t in (chosen, rejected, *references)]
    missing = [reference is None for reference in references]
    if len({shape for shape in shapes if shape is not None}) > 1 or any(missing) != all(missing):
        raise ValueError(
            f"{function}: log-probs of chosen and rejected responses, then of the reference, have the shapes "
            f"{shapes}; all must be (B,), the reference's both or neither."
        )


def _check_labels(function: str, name: str, margin: Tensor, labels: Tensor) -> None:
    # Broadcast, (B,) and (B, 1) would give the loss of every pair with every label.
    if labels.shape != margin.shape:
        raise ValueError(
            f"{function}: margin {tuple(margin.shape)} and {name} {tuple(labels.shape)} must have one shape."
        )
