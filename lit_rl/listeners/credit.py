"""What agreement of listeners pays."""

from dataclasses import dataclass
from typing import Literal, get_args

from lit_rl.listeners.execution import Cell, Execution

LeakPolicy = Literal["mask", "penalise"]
Scale = Literal["sum", "mean"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Credit:
    """The match reward of REMUL (arXiv:2602.16154, eq. 1); see `lit_rl.callbacks.ListenerExecution`."""

    leak_policy: LeakPolicy | None = None
    leak_penalty: float = 1.0
    reward_scale: Scale = "sum"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("leak_policy", self.leak_policy, (None, *get_args(LeakPolicy))),
            ("reward_scale", self.reward_scale, get_args(Scale)),
        ):
            if value not in known:
                raise ValueError(f"ListenerExecution: {name} is {value!r}; use one of {list(known)}.")
        if self.leak_penalty < 0:
            raise ValueError(f"ListenerExecution: leak_penalty is {self.leak_penalty}; it must be 0 or more.")

    def of(self, execution: Execution) -> float:
        """The reward of one reply."""
        total = sum(self._cell(cell) for cell in execution.cells if cell.place.rewarded)
        if self.reward_scale == "sum":
            return total
        return total / max(1, sum(place.rewarded for place in execution.places))

    def _cell(self, cell: Cell) -> float:
        match = float(cell.match)
        if not cell.leak or self.leak_policy is None:
            return match
        return 0.0 if self.leak_policy == "mask" else match - self.leak_penalty
