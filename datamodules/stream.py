"""The loader of an online run: batches that are made when they are asked for."""

from collections.abc import Callable, Iterator
from typing import Any

from lit_rl.episodes import Rollouts


class RolloutStream:
    """Whole batches, each made by ``collect(number)`` at the moment it is needed.

    Sized, so that Lightning never fetches ahead: every batch is sampled by the policy as it is now.  Not a
    `DataLoader`, which draws from the global random state at moments that differ after a restart.

    Args:
        collect: Makes batch ``number`` of the run; a function of the number and the policy alone.
        num_batches: Per epoch.
        repeat: Number the batches of every epoch from 0 on, as a validation does that plays the same tasks again.
    """

    def __init__(self, collect: Callable[[int], Rollouts], num_batches: int, repeat: bool = False):
        if num_batches < 1:
            raise ValueError(f"num_batches is {num_batches}; an epoch needs at least one batch.")
        self.collect, self.num_batches, self.repeat = collect, num_batches, repeat
        self.done = 0  # batches of this epoch handed out
        self.number = 0  # batches of the run handed out

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Rollouts]:
        self.done %= self.num_batches  # here, at the start: code after the last yield never runs
        while self.done < self.num_batches:
            rollouts = self.collect(self.done if self.repeat else self.number)
            self.done += 1
            self.number += 1
            yield rollouts
            del rollouts  # or the old set lives on while the next is sampled

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done, "number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done, self.number = state["done"], state["number"]
