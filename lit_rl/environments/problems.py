"""A problem with a private answer, and where problems come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

AttemptKind = Literal["answer", "question", "both", "hedge", "malformed", "empty"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One problem."""

    id: str
    domain: str
    prompt: str  # public
    gold: str  # for the verifier only
    private: Mapping[str, str] = field(default_factory=dict)  # for the teacher only
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an utterance turned out to be."""

    kind: AttemptKind
    answer: str | None = None
    correct: bool = False


@runtime_checkable
class TaskSource(Protocol):
    """Problems by index, the same for every run, and their verifier."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Problem: ...

    def verify(self, problem: Problem, utterance: str) -> Attempt: ...
