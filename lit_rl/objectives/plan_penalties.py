"""Penalties against never switching, rewriting and breaking the format of plan and action (HiPER, arXiv 2602.16165)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_rl.objectives.turns import turn_mask

KeepMode = Literal["fixed", "normalized"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanPenalties:
    """What is added to the reward of a turn for its form.

    Not potential-based: they change what is best, so report returns without them too.

    Args:
        keep: Added to turns that keep their subgoal, at most 0.  Scale it with the reward of success: the
            authors' logged runs have -0.3 where success pays 10.
        keep_mode: "fixed" adds ``keep`` to each such turn; "normalized" divides it by the number of turns that could
            have it, and leaves episodes of one turn alone.
        keep_skip_first: Never in an episode's first turn, which begins a segment whatever it says.
        rewritten: Added to turns that keep their subgoal but write another, at most 0; never in the first turn.
        invalid: Taken from the reward of turns that cannot be parsed, at least 0.

    Raises:
        ValueError: A penalty that would be a bonus, or an unknown ``keep_mode``.
    """

    keep: float = 0.0
    keep_mode: KeepMode = "fixed"
    keep_skip_first: bool = True
    rewritten: float = 0.0
    invalid: float = 0.0

    def __post_init__(self) -> None:
        if self.keep > 0 or self.rewritten > 0 or self.invalid < 0:
            raise ValueError(
                f"PlanPenalties: keep is {self.keep}, rewritten {self.rewritten}, invalid {self.invalid}; the first "
                "two are added to rewards and at most 0, the last is subtracted and at least 0."
            )
        if self.keep_mode not in ("fixed", "normalized"):
            raise ValueError(f"PlanPenalties: keep_mode is {self.keep_mode!r}; use 'fixed' or 'normalized'.")


def shape_rewards(
    rewards: Tensor,
    lengths: Tensor,
    penalties: PlanPenalties,
    *,
    kept: Tensor | None = None,
    valid: Tensor | None = None,
    rewritten: Tensor | None = None,
) -> Tensor:
    """Rewards with `PlanPenalties` in them, as in the authors' code.

    Args:
        rewards: Of each turn, float ``(E, N)``.
        lengths: Turns of each episode, integer ``(E,)``.
        penalties: How much; 0 for a penalty needs no tensor.
        kept: True where the turn said KEEP, bool ``(E, N)``; for ``keep`` and ``rewritten``.
        valid: True where the turn could be parsed, bool ``(E, N)``; for ``invalid``.
        rewritten: True where the turn's subgoal is not that of the turn before, word for word and neither empty;
            bool ``(E, N)``.

    Returns:
        Float ``(E, N)``, unchanged where a turn does not exist.

    Raises:
        ValueError: A tensor that a penalty needs is missing.

    Example:
        >>> kept = torch.tensor([[True, True, False]])
        >>> shape_rewards(torch.zeros(1, 3), torch.tensor([3]), PlanPenalties(keep=-0.5), kept=kept)
        tensor([[ 0.0000, -0.5000,  0.0000]])
    """
    exists = turn_mask(lengths, rewards.shape[1])
    later = exists.clone()
    later[:, :1] = False
    if penalties.keep:
        counted = later if penalties.keep_skip_first else exists
        terms = _keep_terms(counted, lengths, penalties).to(rewards.dtype)
        rewards = rewards + terms.masked_fill(~(_need(kept, "kept") & counted), 0.0)
    if penalties.invalid:
        rewards = rewards - penalties.invalid * (exists & ~_need(valid, "valid")).to(rewards.dtype)
    if penalties.rewritten:
        wrong = later & _need(kept, "kept") & _need(rewritten, "rewritten")
        rewards = rewards + penalties.rewritten * wrong.to(rewards.dtype)
    return rewards


def _keep_terms(counted: Tensor, lengths: Tensor, penalties: PlanPenalties) -> Tensor:
    """What keeping costs in a turn, float ``(E, 1)``."""
    if penalties.keep_mode == "fixed":
        return torch.full_like(lengths, 1, dtype=torch.float64)[:, None] * penalties.keep
    terms = penalties.keep / counted.sum(1, keepdim=True).clamp(min=1).double()
    return terms.masked_fill(lengths[:, None] < 2, 0.0)


def _need(tensor: Tensor | None, name: str) -> Tensor:
    if tensor is None:
        raise ValueError(f"shape_rewards: a penalty needs {name}, which is None; give it, or set the penalty to 0.")
    return tensor.bool()
