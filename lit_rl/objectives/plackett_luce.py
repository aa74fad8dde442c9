"""Plackett and Luce: the log-prob of a ranking's first places, chosen one after another without replacement."""

import torch
from torch import Tensor


def plackett_luce_log_probs(
    logits: Tensor, chains: Tensor, admissible: Tensor, *, later: Tensor | None = None
) -> Tensor:
    """Log-prob of each choice of a chain, given those before it.

    ``f(z_i) - logsumexp{f(z) : z admissible, z not in z_1..z_i-1}`` (Plackett, 1975; Luce, 1959).  Summed over the
    chain it is the planner's log-probability in our reading of GOPO (arXiv 2602.15854).

    Args:
        logits: Of each skill, float ``(B, Z)``; one row serves the whole chain.
        chains: Skills in the order chosen, int64 ``(B, m)``; -1 behind the end of a shorter one.
        admissible: Skills that could come first, bool ``(B, Z)``.
        later: Skills that could come second and behind, bool ``(B, Z)``; ``admissible`` by default.

    Returns:
        ``(B, m)``, float32 (float64 for float64 logits), 0 on padding; the gradient of what was not admissible is 0.

    Raises:
        ValueError: Shapes disagree, a skill is chosen twice, or one that was not admissible.

    Example:
        >>> logits, chain = torch.tensor([[1.0, 0.5, 0.0, -1.0]]), torch.tensor([[1, 0]])
        >>> plackett_luce_log_probs(logits, chain, torch.tensor([[True, True, True, False]]))
        tensor([[-1.1803, -0.3133]])
    """
    later = admissible if later is None else later
    if (
        logits.ndim != 2
        or chains.ndim != 2
        or len(chains) != len(logits)
        or not (admissible.shape == later.shape == logits.shape)
    ):
        raise ValueError(
            f"plackett_luce_log_probs: logits {tuple(logits.shape)}, admissible {tuple(admissible.shape)} and later "
            f"{tuple(later.shape)} must be (B, Z), chains {tuple(chains.shape)} (B, m)."
        )
    if bool(((chains[:, :-1] < 0) & (chains[:, 1:] >= 0)).any()):
        raise ValueError("plackett_luce_log_probs: a chain has -1 before a skill; padding stands behind the chain.")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    left, terms = admissible, []
    for place, chosen in enumerate(chains.unbind(1)):
        skill, real = chosen.clamp(min=0)[:, None], chosen >= 0
        if bool((real & ~left.gather(1, skill)[:, 0]).any()):
            raise ValueError(
                f"plackett_luce_log_probs: at place {place} a chain has a skill that was not admissible, or had been "
                "chosen before."
            )
        # Rows that are over may have nothing left, whose logsumexp of -inf would have NaN for a gradient.
        masked = logits.masked_fill(~left & real[:, None], -torch.inf)
        terms.append((masked.gather(1, skill)[:, 0] - masked.logsumexp(1)).masked_fill(~real, 0.0))
        left = (later if place == 0 else left).scatter(1, skill, False)
    return torch.stack(terms, 1)
