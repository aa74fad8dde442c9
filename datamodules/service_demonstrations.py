"""Dialogues of a service to warm up on: an expert's, or annotated ones, with rows of planner and responder alike."""

from collections.abc import Sequence
from typing import Any

import lightning as L

from lit_rl.datamodules.order import ShuffledOrder, run_seed
from lit_rl.datamodules.passes import check_share, held_out_pass, rank_share, training_places
from lit_rl.datamodules.played import attached_module
from lit_rl.datamodules.service_dialogues import ServiceDialogues, ServiceForm, Teller
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.episodes import Rollouts


class ServiceDemonstrationDataModule(L.LightningDataModule):
    """Batches of dialogues for `SupervisedFineTuning`, in an order that depends on the seed alone.

    The planner's targets are its labels under the masks of sampling, so that their log-probs are those of Plackett and
    Luce; the responder's are its replies, given the customer's words, the skill, and the constraint in words.  As
    published (GOPO, arXiv 2602.15854): there are warm starts.  Our reading: what they learn from.

    Where all weights are trained (``policy.adapters`` is null) both parties share them, and the run leaves a base on
    which adapters of both can be trained.

    Args:
        dialogues: Whom to imitate.
        form: How dialogues are worded and masked.  With masks the probability of what is forbidden does not change:
            "none" teaches the procedure to a policy that is to act without them as well.
        num_validation: Dialogues at the end of ``dialogues`` that are held out.
        batch_size: Dialogues per batch, over all ranks; each is a row of either party.
        batches_per_epoch: None takes one pass over the dialogues.
        seed: Of the order and of what is random in dialogues; None takes that of ``seed_everything``.

    Raises:
        ValueError: Options out of range, or labels that are not those of the procedure.
    """

    def __init__(
        self,
        dialogues: ServiceDialogues,
        *,
        form: ServiceForm | None = None,
        num_validation: int = 0,
        batch_size: int = 16,
        batches_per_epoch: int | None = None,
        seed: int | None = None,
    ):
        super().__init__()
        if num_validation < 0 or batch_size < 1 or (batches_per_epoch is not None and batches_per_epoch < 1):
            raise ValueError(
                f"data.num_validation is {num_validation}, data.batch_size {batch_size} and data.batches_per_epoch "
                f"{batches_per_epoch}; the first must be at least 0, the others at least 1."
            )
        self.count = len(dialogues) - num_validation
        if self.count < batch_size:
            raise ValueError(
                f"data.dialogues has {len(dialogues)}, of which {num_validation} are held out; that is less than one "
                f"batch of {batch_size}."
            )
        self.dialogues, self.num_validation, self.batch_size = dialogues, num_validation, batch_size
        self.batches_per_epoch = batches_per_epoch or self.count // batch_size
        self.teller = Teller(dialogues, form or ServiceForm(), run_seed(seed))
        self._order = ShuffledOrder(self.count, run_seed(seed))
        self._stream: RolloutStream | None = None

    def train_dataloader(self) -> RolloutStream:
        """The one stream of the run; its place in the order is in the checkpoint."""
        check_share("data.batch_size", self.batch_size)
        if self._stream is None:
            self._stream = RolloutStream(self._training_batch, self.batches_per_epoch)
        return self._stream

    def val_dataloader(self) -> list[RolloutStream]:
        if not self.num_validation:
            return []
        check_share("data.num_validation", self.num_validation)
        mine = rank_share(range(self.count, self.count + self.num_validation))
        return [held_out_pass(mine, self.batch_size, self._rows)]

    def _training_batch(self, number: int) -> Rollouts:
        return self._rows([self._order[place] for place in training_places(number, self.batch_size)])

    def _rows(self, indices: Sequence[int]) -> Rollouts:
        module: Any = attached_module(self.trainer)
        return self.teller.rows(self.teller.episodes(indices, module.policy), module, "demonstrations")
