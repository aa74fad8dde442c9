"""What a token automaton is, and how several of them are asked at once."""

from collections.abc import Callable, Iterator
from typing import Protocol, Self

import torch
from torch import Tensor

_MOST_STATES = 2**31  # `Rollouts.constraint_states` is int32
_KEPT_BYTES = 2**26  # of what is looked up again rather than computed
_TENSOR_BYTES = 512  # what a small tensor takes beside its numbers, about


class TokenAutomaton(Protocol):
    """A deterministic automaton over the token ids of one reply; state 0 is the start.

    Attributes:
        num_states: States are numbered ``0 .. num_states - 1``.
        longest: Tokens of its longest reply, end of turn included; None if it does not count them.
        lags: Whether `lag` is above 0 anywhere.
    """

    @property
    def num_states(self) -> int: ...

    @property
    def longest(self) -> int | None: ...

    @property
    def lags(self) -> bool: ...

    def allowed(self, states: Tensor) -> Tensor:
        """Tokens that may be sampled in each of ``states`` (int64 ``(K,)``), bool ``(K, V)``, one at least."""
        ...

    def after(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The state behind each token, int64 ``(K,)``; asked of allowed tokens only."""
        ...

    def lag(self, states: Tensor) -> Tensor:
        """How many tokens before this one the logits that choose it were computed, int64 ``(K,)``.

        0, as usual, or one more than in the state before: then the logits of the last position with lag 0 choose
        again, among what is allowed by then.
        """
        ...

    def to(self, device: torch.device | str) -> Self:
        """Move its tables in place."""
        ...


class StackedAutomata:
    """Automata whose states are counted through; -1 is no state of any."""

    def __init__(self) -> None:
        self.automata: list[TokenAutomaton] = []
        self.num_states = self.vocabulary = 0
        self.starts = torch.empty(0, dtype=torch.int64)
        self._first_states: dict[int, int] = {}  # by id()
        self._known_allowed: dict[int, Tensor] = {}
        self._known_after: dict[int, Tensor] = {}
        self._known_lag: dict[int, Tensor] = {}

    def append(self, name: str, automaton: TokenAutomaton) -> int:
        """Number of the automaton's first state here; one that is here already, under another name, keeps its."""
        if id(automaton) in self._first_states:
            return self._first_states[id(automaton)]
        device, start = self.starts.device, self.num_states
        automaton.to(device)
        vocabulary = automaton.allowed(torch.zeros(1, dtype=torch.int64, device=device)).shape[1]
        if self.automata and vocabulary != self.vocabulary:
            raise ValueError(
                f"The token constraint of {name} is over {vocabulary} tokens, those before it over {self.vocabulary}; "
                "build all for the vocabulary of one model."
            )
        if start + automaton.num_states >= _MOST_STATES:
            raise ValueError(
                f"With the {automaton.num_states} states of {name} the token constraints have 2^31 or more, too many "
                "for int32; use fewer or smaller ones."
            )
        self.vocabulary, self.num_states = vocabulary, start + automaton.num_states
        self.automata.append(automaton)
        self._first_states[id(automaton)] = start
        self.starts = torch.cat([self.starts, torch.tensor([start], device=device)])
        return start

    def allowed(self, states: Tensor) -> Tensor:
        return self._recalled(states, self._known_allowed, self._new_allowed)

    def after(self, states: Tensor, tokens: Tensor) -> Tensor:
        pairs = torch.where(states < 0, -1, states * self.vocabulary + tokens)
        return self._recalled(pairs, self._known_after, self._new_after)

    def lag(self, states: Tensor) -> Tensor:
        return self._recalled(states, self._known_lag, self._new_lag)

    def _recalled(self, codes: Tensor, known: dict[int, Tensor], compute: Callable[[Tensor], Tensor]) -> Tensor:
        """``compute`` of each code, ``(K,)`` to ``(K, ...)``, looked up in ``known`` where it was met before.

        A sampler may meet dozens of automata at every token, and the same states in every batch.
        """
        self._follow(codes)
        unique, back = codes.unique(return_inverse=True)
        keys = unique.tolist()
        new = [key for key in keys if key not in known]
        if new or not keys:
            found = compute(torch.tensor(new, dtype=torch.int64, device=codes.device))
            if not keys:
                return found
            if (len(known) + len(new)) * (_TENSOR_BYTES + found[0].nbytes) > _KEPT_BYTES:
                known.clear()
                new, found = keys, compute(unique)
            known.update(zip(new, found.unbind(), strict=True))
        return torch.stack([known[key] for key in keys])[back]

    def _new_allowed(self, states: Tensor) -> Tensor:
        allowed = torch.ones(len(states), self.vocabulary, dtype=torch.bool, device=states.device)
        for automaton, start, rows in self._groups(states):
            allowed[rows] = automaton.allowed(states[rows] - start)
        return allowed

    def _new_after(self, pairs: Tensor) -> Tensor:
        states, tokens = pairs.div(self.vocabulary, rounding_mode="floor"), pairs % self.vocabulary
        after = torch.full_like(states, -1)
        for automaton, start, rows in self._groups(states):
            after[rows] = start + automaton.after(states[rows] - start, tokens[rows])
        return after

    def _new_lag(self, states: Tensor) -> Tensor:
        lag = torch.zeros_like(states)
        for automaton, start, rows in self._groups(states):
            if automaton.lags:
                lag[rows] = automaton.lag(states[rows] - start)
        return lag

    def may_lag(self, states: Tensor) -> Tensor:
        self._follow(states)
        lagging = torch.tensor([*(automaton.lags for automaton in self.automata), False], device=states.device)
        return lagging[self._numbers(states)]

    def to(self, device: torch.device | str) -> None:
        with torch.inference_mode(False):  # the sampler may be the first to move what the trainer uses too
            self.starts = self.starts.to(device)
        for known in (self._known_allowed, self._known_after, self._known_lag):
            known.clear()

    def _follow(self, states: Tensor) -> None:
        if states.device != self.starts.device:
            self.to(states.device)

    def _numbers(self, states: Tensor) -> Tensor:
        """Which automaton each state belongs to, int64 ``(K,)``; -1 none."""
        return torch.bucketize(states, self.starts, right=True) - 1

    def _groups(self, states: Tensor) -> Iterator[tuple[TokenAutomaton, Tensor, Tensor]]:
        """Each automaton met, the number of its first state, and its rows."""
        numbers = self._numbers(states)
        for number in numbers.unique().tolist():
            if number >= 0:
                with torch.inference_mode(False):
                    self.automata[number].to(states.device)  # others may share it, and have moved it
                yield self.automata[number], self.starts[number], (numbers == number).nonzero()[:, 0]
