"""What a listener is: it goes on with a reasoning that somebody else began (REMUL, arXiv:2602.16154, section 2.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from lit_rl.verification.traces import ThinkTags


@dataclass(frozen=True, slots=True)
class ListenRequest:
    """All a listener hears: never an answer, a gold label, or what stood behind the cut."""

    question: str
    prefix: str  # of the reasoning; empty asks the listener to solve the question alone
    key: int  # random stream of (run seed, rollout, listener, fraction): equal keys must give equal continuations


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """What a listener said: the rest of the reasoning, its closing tag and an answer section, as text.

    ``stop_reason`` is "end", "length" (cut off), "no_room" (its context does not hold the request and one more token)
    or "failed" (it was given up); of the last two the text is empty.
    """

    text: str = ""
    stop_reason: Literal["end", "length", "no_room", "failed"] = "end"


@runtime_checkable
class Listener(Protocol):
    """Continues many prefixes at once.

    Attributes:
        name: In the names of figures and in the random streams; no two of a pool have the same.
        tags: What opens and closes its reasoning.
    """

    name: str
    tags: ThinkTags

    def attach(self, module: Any) -> None:
        """Called before the first requests of a batch with the LightningModule that trains: load what is missing."""
        ...

    def continue_(self, requests: Sequence[ListenRequest]) -> list[Continuation]:
        """One continuation per request, in order."""
        ...
