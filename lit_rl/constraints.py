"""Token constraints: finite automata whose states say which tokens may come next."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TokenConstraint:
    """A deterministic automaton over token ids; state 0 is the start.

    Args:
        allowed: Tokens that may be sampled in each state, bool ``(S, V)``.
        transitions: State after each token, int64 ``(S, V)``; read only where ``allowed``.

    Raises:
        ValueError: Shapes disagree, a state allows nothing, or a transition leads nowhere.
    """

    allowed: Tensor
    transitions: Tensor

    def __post_init__(self) -> None:
        if self.allowed.shape != self.transitions.shape or self.allowed.ndim != 2:
            raise ValueError(
                f"TokenConstraint: allowed {tuple(self.allowed.shape)} and transitions "
                f"{tuple(self.transitions.shape)} must both be (states, vocabulary)."
            )
        dead = (~self.allowed.any(1)).nonzero().flatten().tolist()
        if dead:
            raise ValueError(f"TokenConstraint: state {dead[0]} allows no token; every state needs at least one.")
        targets = self.transitions[self.allowed]
        if bool(((targets < 0) | (targets >= len(self.allowed))).any()):
            raise ValueError(f"TokenConstraint: a transition leads outside the {len(self.allowed)} states.")


class ConstraintTable:
    """Named constraints stacked into one table, so that rows under different constraints share one lookup.

    A *state* here is a row of the stacked table; -1 means unconstrained.

    Args:
        constraints: By name, all over one vocabulary.
    """

    def __init__(self, constraints: Mapping[str, TokenConstraint]):
        if not constraints:
            raise ValueError("ConstraintTable: no constraints were given.")
        self.offsets: dict[str, int] = {}
        total = 0
        for name, constraint in constraints.items():
            self.offsets[name] = total
            total += len(constraint.allowed)
        self.allowed = torch.cat([c.allowed for c in constraints.values()])
        self.transitions = torch.cat([c.transitions + self.offsets[n] for n, c in constraints.items()])

    def start(self, name: str | None) -> int:
        """The state a reply under constraint ``name`` begins in."""
        if name is None:
            return -1
        if name not in self.offsets:
            raise ValueError(f"No token constraint is called {name!r}; known: {sorted(self.offsets)}.")
        return self.offsets[name]

    def to(self, device: torch.device | str) -> "ConstraintTable":
        """Move the tables in place."""
        self.allowed, self.transitions = self.allowed.to(device), self.transitions.to(device)
        return self
