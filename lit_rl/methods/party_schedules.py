"""Learning rates of parties that take turns: each has a schedule of its own, which only its own steps move."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class PartySchedules:
    """One scheduler for each parameter group of an optimizer.

    Stands where Lightning expects a scheduler: it has ``optimizer``, ``step`` and a state for checkpoints.

    Args:
        make: Builds a scheduler for an optimizer, as ``model.lr_scheduler`` does.
        optimizer: Of all parties, each a group with a ``name``.

    Raises:
        ValueError: A scheduler that waits for a metric.
    """

    def __init__(self, make: Callable[[Any], LRScheduler | ReduceLROnPlateau], optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        self._views = {group["name"]: _OneGroup(group) for group in optimizer.param_groups}
        self.schedulers = {name: make(view) for name, view in self._views.items()}
        if any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in self.schedulers.values()):
            raise ValueError(
                "model.lr_scheduler is ReduceLROnPlateau, which waits for a metric; take one that counts steps."
            )

    def step(self, parties: Collection[str] | None = None) -> None:
        """Go on by a step for these parties; None is all."""
        groups = {group["name"]: group for group in self.optimizer.param_groups}
        for name, scheduler in self.schedulers.items():
            if parties is None or name in parties:
                # Loading a checkpoint gives the optimizer new groups.
                self._views[name].param_groups = [groups[name]]
                self._views[name].step()  # schedulers warn where their optimizer was never stepped
                scheduler.step()

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group, in the optimizer's order."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            ValueError: The state is of other parties.
        """
        if state.keys() != self.schedulers.keys():
            raise ValueError(
                f"The checkpoint has schedules of {sorted(state)}, the optimizer groups of {sorted(self.schedulers)}; "
                "resume with the parties and the lr_scheduler of the run that wrote it."
            )
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(state[name])


class _OneGroup(torch.optim.Optimizer):
    """One group of an optimizer, which a scheduler takes for an optimizer; it never moves a weight."""

    def __init__(self, group: dict[str, Any]):
        super().__init__([group], {})

    def step(self, closure: Any = None) -> Any:
        """Nothing."""
