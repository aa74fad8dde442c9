"""Who listens to a rollout, and who of them is rewarded for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from lit_rl.listeners.base import Listener
from lit_rl.stream_keys import stream_key
from lit_rl.verification.traces import check_fractions

PoolMode = Literal["all", "same", "random_one"]


@dataclass(frozen=True, slots=True)
class Seat:
    """A place in the pool: whose it is, which copy of a listener sits there, and whether agreement is rewarded."""

    listener: Listener
    copy: int = 0
    rewarded: bool = True


@dataclass(kw_only=True)
class ListenerPool:
    """The listeners of a run (REMUL, arXiv:2602.16154, sections 2.2 and 4).

    Args:
        listeners: Those whose agreement is rewarded.
        held_out: Listeners that are asked and measured, never rewarded: agreement with them shows whether a reasoning
            is followed by others than those it was trained on.
        mode: "all" listeners hear every rollout; "same" is ``copies`` of a single one, each with its own noise (give it
            a raised temperature); "random_one" draws one for each group of rollouts, so that the rewards of a group
            stay comparable (once per group is our reading).
        copies: Of the one listener of mode "same".
        fractions: Of the reasoning, by name of listener, where they differ from those of the callback.
    """

    listeners: list[Listener]
    held_out: list[Listener] = field(default_factory=list)
    mode: PoolMode = "all"
    copies: int = 3
    fractions: dict[str, list[float]] | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(PoolMode):
            raise ValueError(f"pool.mode is {self.mode!r}; use one of {list(get_args(PoolMode))}.")
        if not self.listeners:
            raise ValueError("pool.listeners is empty; give at least one, or nobody's agreement is rewarded.")
        if self.mode == "same" and len(self.listeners) != 1:
            raise ValueError(f"pool.mode 'same' is copies of one listener; pool.listeners has {len(self.listeners)}.")
        if self.copies < 1:
            raise ValueError(f"pool.copies is {self.copies}; it must be at least 1.")
        names = [listener.name for listener in self.everybody]
        for name in names:
            if not re.fullmatch(r"[\w.-]+", name) or name == "speaker":
                raise ValueError(f"pool: {name!r} is no name for a listener; use letters, digits, '_', '.' and '-'.")
            if names.count(name) > 1:
                raise ValueError(f"pool: two listeners are called {name!r}; give each a name of its own.")
        for name, fractions in (self.fractions or {}).items():
            if name not in names:
                raise ValueError(f"pool.fractions names {name!r}; the listeners are {names}.")
            check_listener_fractions(fractions)

    @property
    def everybody(self) -> list[Listener]:
        """Rewarded listeners, then those held out."""
        return [*self.listeners, *self.held_out]

    @property
    def size(self) -> int:
        """How many rewarded answers each fraction of a rollout gets."""
        return {"all": len(self.listeners), "same": self.copies, "random_one": 1}[self.mode]

    def seats(self, *group: int | str) -> list[Seat]:
        """Who hears the rollouts of a group.

        Args:
            group: What the draw of "random_one" depends on: the run's seed and the group.
        """
        rewarded = [Seat(listener) for listener in self.listeners]
        if self.mode == "same":
            rewarded = [Seat(self.listeners[0], copy) for copy in range(self.copies)]
        elif self.mode == "random_one":
            ordered = sorted(rewarded, key=lambda seat: seat.listener.name)  # whatever order they were given in
            rewarded = [ordered[stream_key(*group, "drawn listener") % len(ordered)]]
        return [*rewarded, *(Seat(listener, rewarded=False) for listener in self.held_out)]

    def fractions_of(self, listener: Listener, usual: Sequence[float]) -> list[float]:
        """How much of the reasoning a listener hears, each time."""
        return list((self.fractions or {}).get(listener.name, usual))


def check_listener_fractions(fractions: Sequence[float]) -> None:
    """Raise ValueError unless each lies strictly between 0 and 1 and none is there twice."""
    check_fractions(fractions)
    if len(set(fractions)) < len(fractions):
        raise ValueError(f"fractions are {list(fractions)}; give each once.")
