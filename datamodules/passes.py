"""What DataModules share that go through stored items: each rank's part of a batch, and passes over held-out ones."""

from collections.abc import Callable, Sequence

from lit_rl.datamodules.stream import RolloutStream
from lit_rl.distributed import rank, world_size
from lit_rl.episodes import Rollouts


def rank_share(places: range) -> range:
    """This rank's part of ``places``."""
    return places[rank() :: world_size()]


def training_places(number: int, batch_size: int) -> range:
    """This rank's places of batch ``number`` in the order of the run; ``batch_size`` is that of all ranks."""
    return rank_share(range(number * batch_size, (number + 1) * batch_size))


def held_out_pass(places: Sequence[int], batch_size: int, rows: Callable[[Sequence[int]], Rollouts]) -> RolloutStream:
    """A pass over ``places``, the same in every validation, in batches of at most ``batch_size``."""

    def collect(number: int) -> Rollouts:
        return rows(places[number * batch_size : (number + 1) * batch_size])

    return RolloutStream(collect, -(-len(places) // batch_size), repeat=True)


def check_share(option: str, count: int, unit: str = "") -> None:
    """Raise ValueError unless every rank gets something of ``count``."""
    if count < world_size():
        raise ValueError(
            f"{option} is {count}{unit and ' ' + unit} for {world_size()} processes; each needs one at least."
        )
