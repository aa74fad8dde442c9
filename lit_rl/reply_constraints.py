"""Replies that must say some phrases and must not say others, in whatever tokens they come."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from lit_rl.phrase_automaton import Array, PhraseAutomaton, TokenSteps, fold_case

_MOST_REQUIRED = 8
_FAR = 2**30


def says(text: str, phrase: str, *, ignore_case: bool = True) -> bool:
    """Whether ``text`` holds ``phrase`` as `ReplyConstraint` reads it: anywhere, A to Z like a to z."""
    return fold_case(phrase.encode(), ignore_case) in fold_case(text.encode(), ignore_case)


class ReplyConstraint:
    """A reply says every required phrase and no forbidden one, and ends in time.

    Phrases are text and match anywhere in it ("no" is part of "now"), in whatever tokens: the bytes of each token run
    through an automaton over all phrases.  In GOPO's terms (our reading of arXiv 2602.15854) with ``left`` tokens to
    go, a token may come unless it completes a forbidden phrase or the tokens needed behind it are more than are then
    left; so where all that is left is needed, only tokens that make progress remain.  The end of turn may come exactly
    when nothing is required any more, and alone when nothing is left.  Other special tokens never come.

    States number the automaton's node, the required phrases that were said, and the tokens used.

    Args:
        pieces: Bytes each token adds to the text, None for tokens never said, see `lit_rl.token_pieces.TokenPieces`.
        required: Phrases that must be said, at most 8.
        forbidden: Phrases that must not be said.
        max_tokens: Tokens before the end of turn, at most.
        end_id: The end-of-turn token.
        ignore_case: Whether A to Z match a to z.
        prefill: Text before the reply that counts as part of it (`PolicyConfig.prefill`).

    Raises:
        ValueError: No reply could satisfy this (with the reason), or a phrase is empty or has spaces around it.
    """

    lags: bool = False

    def __init__(
        self,
        pieces: Sequence[bytes | None],
        *,
        required: Sequence[str] = (),
        forbidden: Sequence[str] = (),
        max_tokens: int,
        end_id: int,
        ignore_case: bool = True,
        prefill: str = "",
    ):
        _check(required, forbidden, max_tokens, end_id, len(pieces), ignore_case)
        self.max_tokens, self.end_id = max_tokens, end_id
        for phrase in forbidden:
            if says(prefill, phrase, ignore_case=ignore_case):
                raise ValueError(f"ReplyConstraint: the prefill {prefill!r} says the forbidden {phrase!r}.")
        unsaid = [phrase for phrase in required if not says(prefill, phrase, ignore_case=ignore_case)]
        unsaid = _without_implied(unsaid, ignore_case)
        automaton = PhraseAutomaton(unsaid, forbidden, ignore_case=ignore_case, start=prefill)
        steps = automaton.over(pieces)
        need = _tokens_needed(steps, automaton.sets)
        if (least := int(need[0, 0])) > max_tokens:
            raise ValueError(_reason(pieces, unsaid, forbidden, ignore_case, least, max_tokens))
        self._sets = automaton.sets
        self._kind = torch.from_numpy(steps.kind)  # (V,) which column a token takes
        self._target, self._said = torch.from_numpy(steps.target), torch.from_numpy(steps.said)  # (nodes, kinds)
        self._need = torch.from_numpy(need)  # (nodes + 1, sets): tokens before the end may come

    @property
    def num_states(self) -> int:
        return len(self._target) * self._sets * (self.max_tokens + 1)

    @property
    def longest(self) -> int:
        return self.max_tokens + 1

    def allowed(self, states: Tensor) -> Tensor:
        node, said, used = self._unpacked(states)
        then = self._need[self._target[node].long(), said[:, None] | self._said[node]]  # (K, kinds)
        fits = then < (self.max_tokens - used)[:, None]
        allowed = fits.index_select(1, self._kind)
        allowed[:, self.end_id] = said == self._sets - 1
        return allowed

    def after(self, states: Tensor, tokens: Tensor) -> Tensor:
        node, said, used = self._unpacked(states)
        kind = self._kind[tokens]
        after = self._packed(self._target[node, kind].long(), said | self._said[node, kind], used + 1)
        return torch.where(tokens == self.end_id, states, after)

    def lag(self, states: Tensor) -> Tensor:
        return torch.zeros_like(states)

    def to(self, device: torch.device | str) -> Self:
        for name in ("_kind", "_target", "_said", "_need"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def _packed(self, node: Tensor, said: Tensor, used: Tensor) -> Tensor:
        return (node * self._sets + said) * (self.max_tokens + 1) + used

    def _unpacked(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        row = states // (self.max_tokens + 1)
        return row // self._sets, row % self._sets, states % (self.max_tokens + 1)


def _tokens_needed(steps: TokenSteps, sets: int) -> Array:
    """Least number of tokens until all required phrases are said, int32 ``(nodes + 1, sets)``; `_FAR` if never.

    Exact: backwards from where all are said, one token further each round.
    """
    nodes = len(steps.target)
    code = (np.arange(nodes)[:, None] * (nodes + 1) + steps.target) * sets + steps.said
    edges = np.unique(code)  # in the order of the nodes they leave; each has one at least
    leaves, target, said = edges // sets // (nodes + 1), edges // sets % (nodes + 1), edges % sets
    first = np.searchsorted(leaves, np.arange(nodes))
    then = said[:, None] | np.arange(sets)
    need = np.full((nodes + 1, sets), _FAR, dtype=np.int32)
    need[:nodes, -1] = 0
    while True:
        nearer = np.minimum(need[:-1], 1 + np.minimum.reduceat(need[target[:, None], then], first))
        if np.array_equal(nearer, need[:-1]):
            return need
        need[:-1] = nearer


def _without_implied(required: Sequence[str], ignore_case: bool) -> list[str]:
    """Phrases that no other one says already."""
    kept: list[str] = []
    for phrase in sorted(dict.fromkeys(required), key=len, reverse=True):
        if not any(says(other, phrase, ignore_case=ignore_case) for other in kept):
            kept.append(phrase)
    return kept


def _check(
    required: Sequence[str],
    forbidden: Sequence[str],
    max_tokens: int,
    end_id: int,
    vocabulary: int,
    ignore_case: bool,
) -> None:
    for kind, phrases in (("required", required), ("forbidden", forbidden)):
        if isinstance(phrases, str):
            raise ValueError(f"ReplyConstraint: {kind} is the string {phrases!r}; give a list of phrases.")
        for phrase in phrases:
            if phrase != phrase.strip() or not phrase:
                raise ValueError(
                    f"ReplyConstraint: the {kind} phrase {phrase!r} is empty or has spaces around it; give its words "
                    "alone, since the spaces at the ends of a reply are cut off."
                )
    for phrase in required:
        for other in forbidden:
            if says(phrase, other, ignore_case=ignore_case):
                raise ValueError(
                    f"ReplyConstraint: the required {phrase!r} says the forbidden {other!r}; drop one of them."
                )
    if len(_without_implied(required, ignore_case)) > _MOST_REQUIRED:
        raise ValueError(f"ReplyConstraint: {len(required)} phrases are required; at most {_MOST_REQUIRED} can be.")
    if max_tokens < 0 or not 0 <= end_id < vocabulary:
        raise ValueError(
            f"ReplyConstraint: max_tokens {max_tokens} must be 0 or more and end_id {end_id} a token of the "
            f"{vocabulary} of the vocabulary."
        )


def _reason(
    pieces: Sequence[bytes | None],
    required: Sequence[str],
    forbidden: Sequence[str],
    ignore_case: bool,
    least: int,
    max_tokens: int,
) -> str:
    """Why no reply says ``required`` without ``forbidden`` in ``max_tokens``."""

    def possible(must: Sequence[str], must_not: Sequence[str]) -> bool:
        automaton = PhraseAutomaton(must, must_not, ignore_case=ignore_case)
        return bool(_tokens_needed(automaton.over(pieces), automaton.sets)[0, 0] < _FAR)

    if least < _FAR:
        return (
            f"ReplyConstraint: the shortest reply that says {list(required)} takes {least} tokens before its end, and "
            f"max_tokens is {max_tokens}; raise max_tokens or require less."
        )
    for phrase in required:
        if not possible([phrase], ()):
            return f"ReplyConstraint: the required {phrase!r} cannot be spelled with the tokens that may be said."
        if not possible([phrase], forbidden):
            return (
                f"ReplyConstraint: the required {phrase!r} cannot be said without one of the forbidden "
                f"{list(forbidden)}; drop one of them."
            )
    return (
        f"ReplyConstraint: {list(required)} cannot all be said without one of the forbidden {list(forbidden)}; drop "
        "one of them."
    )
