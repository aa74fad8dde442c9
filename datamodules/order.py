"""In which order a run goes through its tasks."""

import os
from functools import lru_cache

import torch

from lit_rl.stream_keys import stream_key


def run_seed(seed: int | None) -> int:
    """``seed``, or where it is None the one that ``lightning.seed_everything`` was called with (0 if it was not)."""
    if seed is not None:
        return seed
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


class ShuffledOrder:
    """Endless passes over ``range(count)``, each a permutation of its own; a function of the seed and the place alone.

    Args:
        count: Number of items.
        seed: Of the permutations.
    """

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed
        self._permutation = lru_cache(maxsize=2)(self._permute)  # a batch may reach from one pass into the next

    def __getitem__(self, place: int) -> int:
        """Item number ``place`` of the run."""
        epoch, offset = divmod(place, self.count)
        return self._permutation(epoch)[offset]

    def _permute(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(stream_key(self.seed, "order", epoch) >> 1)
        order: list[int] = torch.randperm(self.count, generator=generator).tolist()
        return order
