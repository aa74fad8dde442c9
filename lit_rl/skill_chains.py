"""Chains of skills, named by one label token each, all chosen from the logits of the chain's first position."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

_MOST_STATES = 2**31


class SkillChain:
    """A planner's turn: ``length`` different skill labels and then the end of turn.

    Without replacement, from one row of logits: the log-probs of the labels are the terms of Plackett and Luce (our
    reading of GOPO, arXiv 2602.15854; the paper's own formulas could not be read),
    ``log p(z) = sum_i [f(z_i) - logsumexp{f(z): z admissible, z not in z_1..z_i-1}]``.  So the state behind ``c``
    labels has lag ``c``; the end of turn is the only token allowed there, with log-prob 0.  Where fewer skills are
    left than ``length``, the chain ends with the last one.

    A state is the chain so far: its i-th skill, counted from 1, is the i-th digit to base ``skills + 1``.

    Args:
        labels: Token id of each skill, all different.
        admissible: Skills the chain may begin with, bool ``(Z,)``; one at least.
        length: Labels of a chain.
        end_id: The end-of-turn token.
        vocabulary: Width of the model's logits.
        later: Skills for the second place and behind, bool ``(Z,)``; ``admissible`` by default.

    Raises:
        ValueError: Sizes disagree, a token lies outside the vocabulary, labels repeat, nothing is admissible, or the
            chains are too many to be numbered.
    """

    lags: bool = True

    def __init__(
        self,
        labels: Sequence[int],
        *,
        admissible: Sequence[bool] | Tensor,
        length: int,
        end_id: int,
        vocabulary: int,
        later: Sequence[bool] | Tensor | None = None,
    ):
        first = torch.as_tensor(admissible, dtype=torch.bool).cpu()
        then = first if later is None else torch.as_tensor(later, dtype=torch.bool).cpu()
        _check(labels, first, then, length, end_id, vocabulary)
        self.length, self.end_id, self.vocabulary, self._base = length, end_id, vocabulary, len(labels) + 1
        self._labels = torch.tensor(labels)
        self._masks = torch.stack([first, then])
        self._places = self._base ** torch.arange(length)
        self._skill_of = torch.zeros(vocabulary, dtype=torch.int64)  # counted from 1; 0 is no label
        self._skill_of[self._labels] = torch.arange(1, self._base)

    @property
    def num_states(self) -> int:
        return self._base**self.length

    @property
    def longest(self) -> int:
        return self.length + 1

    def allowed(self, states: Tensor) -> Tensor:
        chosen = self._chosen(states)
        count = (chosen > 0).sum(1)
        left = self._masks[(count > 0).long()]  # (K, Z)
        taken = torch.zeros(len(states), self._base, dtype=torch.bool, device=states.device).scatter_(1, chosen, True)
        left = left & ~taken[:, 1:] & (count < self.length)[:, None]
        allowed = torch.zeros(len(states), self.vocabulary, dtype=torch.bool, device=states.device)
        allowed[:, self._labels] = left
        allowed[:, self.end_id] = ~left.any(1)
        return allowed

    def after(self, states: Tensor, tokens: Tensor) -> Tensor:
        place = self.lag(states).clamp(max=self.length - 1)  # behind a full chain comes its end, which adds nothing
        return states + self._skill_of[tokens] * self._places[place]

    def lag(self, states: Tensor) -> Tensor:
        return (self._chosen(states) > 0).sum(1)

    def to(self, device: torch.device | str) -> Self:
        self._labels, self._masks = self._labels.to(device), self._masks.to(device)
        self._places, self._skill_of = self._places.to(device), self._skill_of.to(device)
        return self

    def _chosen(self, states: Tensor) -> Tensor:
        """Skills of the chain so far, counted from 1, int64 ``(K, length)``; 0 where none is yet."""
        return states[:, None] // self._places % self._base


def _check(labels: Sequence[int], first: Tensor, later: Tensor, length: int, end_id: int, vocabulary: int) -> None:
    skills = len(labels)
    for name, mask in (("admissible", first), ("later", later)):
        if mask.shape != (skills,):
            raise ValueError(
                f"SkillChain: {name} has shape {tuple(mask.shape)}; wanted one bool for each of {skills} labels."
            )
    if not first.any():
        raise ValueError("SkillChain: admissible allows no skill; keep one that is always safe, such as a handoff.")
    if len({*labels, end_id}) != skills + 1:
        raise ValueError(f"SkillChain: labels {list(labels)} and end_id {end_id} must all be different tokens.")
    if outside := [token for token in (*labels, end_id) if not 0 <= token < vocabulary]:
        raise ValueError(f"SkillChain: token {outside[0]} lies outside the vocabulary of {vocabulary}.")
    if not 1 <= length <= skills:
        raise ValueError(f"SkillChain: length is {length}; with {skills} labels it must be 1 to {skills}.")
    if (skills + 1) ** length >= _MOST_STATES:
        raise ValueError(
            f"SkillChain: chains of {length} of {skills} skills are 2^31 or more, too many to be numbered; plan fewer "
            "skills at once."
        )
