"""The loader of an offline run: passes over recorded dialogues."""

from collections.abc import Callable, Sequence
from typing import Any

from lit_rl.datamodules.order import ShuffledOrder
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.distributed import world_size
from lit_rl.episodes import Rollouts
from lit_rl.recorded_dialogues import RecordedDialogue, fingerprint
from lit_rl.stream_keys import stream_key


class DialogueStream(RolloutStream):
    """Passes over dialogues, each in an order of its own; it resumes with the same dialogues only.

    Batches of a pass are even: they differ by one dialogue at most, and none is larger than ``batch_size`` unless ranks
    outnumber it.

    Args:
        dialogues: What to learn from, the same on every rank.
        batch_size: Most dialogues of a batch, over all ranks.
        make: Batch ``number`` of the run from its dialogues.
        seed: Of the orders.
    """

    def __init__(
        self,
        dialogues: Sequence[RecordedDialogue],
        batch_size: int,
        make: Callable[[int, Sequence[RecordedDialogue]], Rollouts],
        seed: int,
    ):
        count = len(dialogues)
        batches = max(1, min(-(-count // batch_size), count // world_size()))
        order = ShuffledOrder(count, stream_key(seed, "collected"))

        def collect(number: int) -> Rollouts:
            epoch, batch = divmod(number, batches)
            places = range(batch * count // batches, (batch + 1) * count // batches)
            return make(number, [dialogues[order[epoch * count + place]] for place in places])

        super().__init__(collect, batches)
        self.dialogues = fingerprint(dialogues)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"dialogues": self.dialogues}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["dialogues"] != self.dialogues:
            raise ValueError(
                "The checkpoint was written by a run that learned from other dialogues than those of its file now; put "
                "that file back, or start a new run."
            )
        super().load_state_dict(state)
