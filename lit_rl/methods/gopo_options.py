"""Options of GOPO about single parties: how often each is stepped, how fast, and under which limit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lit_rl.policy import PolicyConfig

Schedule = Literal["alternate", "joint"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartyTraining:
    """How one party is trained.

    Args:
        steps: Optimizer steps of each split of a batch; 0 freezes the party.
        learning_rate: Its own; None takes ``model.learning_rate``, or what ``model.optimizer`` says.
        max_grad_norm: Its own limit on the norm of its gradient; None takes ``model.max_grad_norm``.

    Raises:
        ValueError: A number out of range.
    """

    steps: int = 1
    learning_rate: float | None = None
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"PartyTraining.steps is {self.steps}; it must be at least 0, which freezes the party.")
        if self.learning_rate is not None and not self.learning_rate >= 0:
            raise ValueError(f"PartyTraining.learning_rate is {self.learning_rate}; it must be at least 0.")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"PartyTraining.max_grad_norm is {self.max_grad_norm}; it must be above 0, or null.")

    def of_group(self) -> dict[str, Any]:
        """What the party's parameter group says beside its name."""
        found = {"lr": self.learning_rate, "max_norm": self.max_grad_norm}
        return {name: value for name, value in found.items() if value is not None}


def check_parties(policy: PolicyConfig, parties: Mapping[str, PartyTraining], schedule: str) -> None:
    """Raise ValueError if nobody is trained, a trained party has no adapter, or steps do not fit the schedule."""
    trained = [name for name, party in parties.items() if party.steps]
    if not trained:
        raise ValueError("Nobody is trained: give model.planner or model.responder steps above 0.")
    if missing := [name for name in trained if name not in (policy.adapters or {})]:
        raise ValueError(
            f"GOPO trains {missing[0]!r} by itself, and policy.adapters names {sorted(policy.adapters or {})}; name it "
            f"there, or set model.{missing[0]}.steps to 0."
        )
    if policy.value_heads:
        raise ValueError(f"policy.value_heads is {policy.value_heads}, but GOPO learns no values; leave it out.")
    if schedule not in ("alternate", "joint"):
        raise ValueError(f"model.schedule is {schedule!r}; it must be 'alternate' or 'joint'.")
    if schedule == "joint" and any(party.steps > 1 for party in parties.values()):
        raise ValueError(
            f"model.schedule is 'joint', one step for all, but the parties have "
            f"{ {name: party.steps for name, party in parties.items()} } steps; give 0 or 1 each."
        )
