"""What a service dialogue is about: a customer's hidden goal, and the facts that decide what turns are worth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from lit_rl.metrics.engagement import Milestones
from lit_rl.service.sop import Procedure


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomerCue:
    """What the customer has to say now, whoever puts it into words.

    Attributes:
        event: What it is about, "price" say.
        lines: Wordings of a script, at least one.
    """

    event: str
    lines: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.lines or not all(line.strip() for line in self.lines):
            raise ValueError(f"CustomerCue {self.event!r} has lines {list(self.lines)}; give at least one, none blank.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceStep:
    """What a turn of the service led to.

    Attributes:
        engagement: Of the customer after it, in [0, 1].
        effect: Whether the skill did what it is for; only then it counts as done in the procedure.
        milestones: Achieved by it.
        ended: Why the dialogue is over, "ordered" say; None if it goes on.
        success: Whether it ended in what the business wants.
        cue: What the customer says next; None only at the end.
        facts: Further plain facts, such as the item that was named.
    """

    engagement: float
    effect: bool
    milestones: tuple[str, ...] = ()
    ended: str | None = None
    success: bool = False
    cue: CustomerCue | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.engagement <= 1:
            raise ValueError(f"ServiceStep.engagement is {self.engagement}; it must lie in [0, 1].")
        if (self.cue is None) != (self.ended is not None):
            raise ValueError("ServiceStep: a dialogue that goes on needs a cue for the customer, one that ended none.")


@runtime_checkable
class ServiceWorld(Protocol):
    """One dialogue's customer and shop; a new object for each.

    All it knows of the service's turns is which skill was done, the reply, and whether that kept to its constraint.
    """

    procedure: Procedure
    milestones: Milestones
    scenario: Mapping[str, Any]  # the hidden goal, in plain types
    opening: CustomerCue

    def relevance(self) -> Mapping[str, int]:
        """Grades 0 to 3 of the skills for the turn that is due; skills left out have 0, and {} is no annotation."""
        ...

    def reference(self, skill: str) -> str | None:
        """A right reply that carries out ``skill`` now, for warm starts; None if none is known."""
        ...

    def step(self, skill: str | None, reply: str, ok: bool) -> ServiceStep:
        """A turn of the service.

        Args:
            skill: What was done; None if the plan named no skill: no effect, engagement 0.
            reply: What was said, "" without a skill.
            ok: Whether the reply kept to the procedure's constraint.
        """
        ...


@runtime_checkable
class ServiceSource(Protocol):
    """Scenarios by index, the same for every run; dialogues of one scenario are a group."""

    name: str
    procedure: Procedure

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ServiceWorld:
        """A new world, not yet begun."""
        ...
