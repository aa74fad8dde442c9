"""Token constraints: finite automata whose states say which tokens may come next."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from lit_rl.token_automata import StackedAutomata, TokenAutomaton

__all__ = ["ConstraintTable", "OneOf", "TokenAutomaton", "TokenConstraint"]


class TokenConstraint:
    """An automaton written out as two tables.

    Args:
        allowed: Tokens that may be sampled in each state, bool ``(S, V)``.
        transitions: State after each token, int64 ``(S, V)``; read only where ``allowed``.

    Raises:
        ValueError: Shapes disagree, a state allows nothing, or a transition leads nowhere.
    """

    longest: int | None = None
    lags: bool = False

    def __init__(self, allowed: Tensor, transitions: Tensor):
        if allowed.shape != transitions.shape or allowed.ndim != 2:
            raise ValueError(
                f"TokenConstraint: allowed {tuple(allowed.shape)} and transitions {tuple(transitions.shape)} must both "
                "be (states, vocabulary)."
            )
        dead = (~allowed.any(1)).nonzero().flatten().tolist()
        if dead:
            raise ValueError(f"TokenConstraint: state {dead[0]} allows no token; every state needs at least one.")
        targets = transitions[allowed]
        if bool(((targets < 0) | (targets >= len(allowed))).any()):
            raise ValueError(f"TokenConstraint: a transition leads outside the {len(allowed)} states.")
        self.table, self.transitions = allowed, transitions

    @property
    def num_states(self) -> int:
        return len(self.table)

    def allowed(self, states: Tensor) -> Tensor:
        return self.table[states]

    def after(self, states: Tensor, tokens: Tensor) -> Tensor:
        return self.transitions[states, tokens]

    def lag(self, states: Tensor) -> Tensor:
        return torch.zeros_like(states)

    def to(self, device: torch.device | str) -> Self:
        self.table, self.transitions = self.table.to(device), self.transitions.to(device)
        return self


class OneOf:
    """A first token chooses the automaton that the rest of the reply follows.

    For a flat policy, say, that names a skill and words its reply in one turn.

    Args:
        automata: By the token that chooses each.

    Raises:
        ValueError: There are none, they differ in vocabulary, or a token lies outside it.
    """

    def __init__(self, automata: Mapping[int, TokenAutomaton]):
        if not automata:
            raise ValueError("OneOf: no automata were given; name one at least by the token that chooses it.")
        self._parts = StackedAutomata()
        starts = [1 + self._parts.append(f"token {token}", automaton) for token, automaton in automata.items()]
        if outside := [token for token in automata if not 0 <= token < self._parts.vocabulary]:
            raise ValueError(f"OneOf: token {outside[0]} lies outside the vocabulary of {self._parts.vocabulary}.")
        self._first = torch.zeros(self._parts.vocabulary, dtype=torch.int64)  # 0: does not choose any
        self._first[list(automata)] = torch.tensor(starts)

    @property
    def num_states(self) -> int:
        return 1 + self._parts.num_states

    @property
    def longest(self) -> int | None:
        lengths = [automaton.longest for automaton in self._parts.automata]
        known = [length for length in lengths if length is not None]
        return 1 + max(known) if len(known) == len(lengths) else None

    @property
    def lags(self) -> bool:
        return any(automaton.lags for automaton in self._parts.automata)

    def allowed(self, states: Tensor) -> Tensor:
        allowed = self._parts.allowed(states - 1)
        return torch.where((states == 0)[:, None], self._first > 0, allowed)

    def after(self, states: Tensor, tokens: Tensor) -> Tensor:
        return torch.where(states == 0, self._first[tokens], 1 + self._parts.after(states - 1, tokens))

    def lag(self, states: Tensor) -> Tensor:
        return self._parts.lag(states - 1)

    def to(self, device: torch.device | str) -> Self:
        self._first = self._first.to(device)
        self._parts.to(device)
        return self


class ConstraintTable:
    """Named constraints, so that rows under different ones share one lookup.

    A *state* here counts through the states of all constraints, in the order they came; -1 means unconstrained.

    Args:
        constraints: By name, all over one vocabulary.

    Raises:
        ValueError: There are none, or `add` objects to one.
    """

    def __init__(self, constraints: Mapping[str, TokenAutomaton]):
        if not constraints:
            raise ValueError("ConstraintTable: no constraints were given.")
        self.offsets: dict[str, int] = {}
        self.automata: dict[str, TokenAutomaton] = {}
        self._stack = StackedAutomata()
        for name, constraint in constraints.items():
            self.add(name, constraint)

    def add(self, name: str, automaton: TokenAutomaton) -> None:
        """One more constraint; the states of those present stay what they are.  Adding the same again does nothing.

        Raises:
            ValueError: Another automaton has that name, the vocabularies differ, or there are too many states.
        """
        if name not in self.automata:
            self.offsets[name] = self._stack.append(repr(name), automaton)
            self.automata[name] = automaton
        elif self.automata[name] is not automaton:
            raise ValueError(f"ConstraintTable: {name!r} is the name of another automaton already; choose a new one.")

    def __contains__(self, name: object) -> bool:
        return name in self.offsets

    @property
    def lags(self) -> bool:
        """Whether any automaton has tokens that earlier logits choose."""
        return any(automaton.lags for automaton in self.automata.values())

    def start(self, name: str | None) -> int:
        """The state a reply under constraint ``name`` begins in."""
        if name is None:
            return -1
        if name not in self.offsets:
            raise ValueError(f"No token constraint is called {name!r}; known: {sorted(self.offsets)}.")
        return self.offsets[name]

    def longest(self, name: str) -> int | None:
        """Tokens of the longest reply under constraint ``name``, its end included; None if it does not count them."""
        return self.automata[name].longest

    def allowed(self, states: Tensor) -> Tensor:
        """Tokens that may be sampled in each state, int64 ``(K,)`` to bool ``(K, V)``; all where it is -1."""
        return self._stack.allowed(states)

    def after(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The state behind each token, int64 ``(K,)``; -1 stays -1."""
        return self._stack.after(states, tokens)

    def lag(self, states: Tensor) -> Tensor:
        """See `TokenAutomaton.lag`, int64 ``(K,)``; 0 where the state is -1."""
        return self._stack.lag(states)

    def may_lag(self, states: Tensor) -> Tensor:
        """Whether later tokens of the reply may be chosen by logits kept from before, bool ``(K,)``."""
        return self._stack.may_lag(states)

    def to(self, device: torch.device | str) -> Self:
        """Move the tables in place."""
        self._stack.to(device)
        return self
