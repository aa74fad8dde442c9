"""What a world is: text in, text out, with rewards, and an end that is told apart from a limit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

OPEN = "..."  # in an admissible action: any text, as in "search[...]"


class WorldFailure(RuntimeError):
    """A world raised, hung, or broke its contract; the rollout stops or drops the episode, as its ``on_error`` says."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is seen, and which actions would do something; none listed means that the world does not say."""

    text: str
    admissible: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What an action led to.

    Attributes:
        observation: What is seen now.
        reward: Of this action.
        terminated: The task itself ended, solved or failed for good.
        truncated: A limit of the world cut it off.
        info: Facts in plain types; ``success`` (bool) belongs there, and ``score`` where there are half successes.
    """

    observation: Observation
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Advice:
    """What somebody who knows would do now, and which subgoal that serves."""

    subgoal: str
    action: str


@runtime_checkable
class World(Protocol):
    """One episode; a new object for each.  All randomness comes from the seed it was built with.

    Many worlds are stepped in turn by one loop, so a world shares no state with another.
    """

    @property
    def task(self) -> str:
        """What is to be done, known after `reset`; it stands in every prompt."""
        ...

    def reset(self) -> Observation:
        """Begin; called once."""
        ...

    def step(self, action: str) -> Step:
        """Act.  An action that is not admissible, "" among them, changes nothing and costs a step."""
        ...

    def close(self) -> None:
        """Give back what the world holds; it may be called more than once."""
        ...


@runtime_checkable
class WorldSource(Protocol):
    """Worlds by index, the same for every run."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> World:
        """A new world, not yet begun."""
        ...


@runtime_checkable
class AdvisedWorld(World, Protocol):
    """A world with an oracle in it."""

    def advice(self) -> Advice:
        """What to do now, whatever was done before; following it from `reset` on solves the task."""
        ...


def same_action(action: str, other: str) -> bool:
    """Whether two actions are the same words, whatever their case and the spaces between.

    Example:
        >>> same_action("Go to  shelf 1", "go to shelf 1"), same_action("search [ red ]", "search[red]")
        (True, True)
    """
    return "".join(action.split()).lower() == "".join(other.split()).lower()


def admitted(action: str, admissible: tuple[str, ...]) -> str | None:
    """The action as the world spells it, if it is one of ``admissible``; else None.

    Example:
        >>> admitted("Look", ("look", "search[...]")), admitted("search [ red mug ]", ("look", "search[...]"))
        ('look', 'search[red mug]')
    """
    for known in admissible:
        if OPEN in known:
            before, after = known.split(OPEN, 1)
            said = _between(action, before, after)
            if said:
                return f"{before}{said}{after}"
        elif same_action(action, known):
            return known
    return None


def _between(action: str, before: str, after: str) -> str | None:
    """What stands between two words of an action, spaces around them aside."""
    head, _, rest = action.partition(before[-1:]) if before else ("", "", action)
    if before and not same_action(head, before[:-1]):
        return None
    rest = rest.strip()
    if after and not rest.endswith(after):
        return None
    return (rest[: len(rest) - len(after)] if after else rest).strip()
