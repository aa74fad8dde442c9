"""A problem with a private answer, and where problems come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from lit_rl.verification.attempts import Attempt


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One problem."""

    id: str
    domain: str
    prompt: str  # public
    gold: str  # for the verifier only
    private: Mapping[str, str] = field(default_factory=dict)  # for the teacher only; "answer" must not leak either
    meta: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class TaskSource(Protocol):
    """Problems by index, the same for every run, and their verifier."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Problem: ...

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        """What ``utterance`` is as an attempt at ``problem``; never raises, whatever a model said."""
        ...


class ProblemList:
    """What task sources share that have all their problems at hand, in ``_problems``."""

    name: str
    _problems: Sequence[Problem]

    def __len__(self) -> int:
        return len(self._problems)

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._problems[index]
