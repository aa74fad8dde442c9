"""What methods share that learn from pairs, of which one is better: rows, micro-batches, validation."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lit_rl.episodes import Rollouts
from lit_rl.methods.base import Method
from lit_rl.methods.figures import StepFigures
from lit_rl.policy import PolicyConfig


class PairMethod(Method):
    """Learns from rows of which two are a pair: equal ``group_ids``, and ``extras["chosen"]`` says which is better.

    Validation takes pairs, or plays what the data plays.  A subclass says what the loss of a pair is.

    Args:
        policy: What to train.
        kwargs: Of `Method`, without ``critique_coef``.
    """

    def __init__(self, policy: PolicyConfig, **kwargs: Any):
        super().__init__(policy, **kwargs)
        if self.critique_coef:
            raise ValueError("model.critique_coef has no use here, for nobody criticises; leave it out.")
        self._validation = StepFigures()

    def pair_losses(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        """Of each pair of a micro-batch in the order of `pair_rows`, float32 ``(P,)``."""
        raise NotImplementedError(f"{type(self).__name__} must say what the loss of a pair is.")

    def compares(self, party: str) -> bool:
        """Whether the rows of ``party`` are pairs; others are targets by themselves."""
        return True

    def check_data(self, datamodule: Any) -> None:
        super().check_data(datamodule)
        pairs = getattr(datamodule, "batch_size", None)
        if pairs is not None and pairs < self.steps_per_batch:
            raise ValueError(
                f"model.steps_per_batch is {self.steps_per_batch}, but data.batch_size is {pairs}; every optimizer "
                "step needs a pair."
            )

    def advantages(self, rollouts: Rollouts) -> None:
        return None

    def validation_step(self, batch: Rollouts, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch.target_mask is None:
            self._evaluate(batch)
            return
        assert self.policy is not None
        for party, part in self._micro_batches(batch):
            with self.policy.acting_as(party):
                log_probs, _ = self.policy.log_probs(
                    part.input_ids, self.learned_mask(part), constraint_states=part.constraint_states
                )
            if self.compares(party):
                losses = self.pair_losses(part, log_probs)
                self._validation.add("pair_loss", losses.sum(), torch.tensor(len(losses), device=losses.device))
            for name, (total, count) in self.step_figures(part, log_probs).items():
                self._validation.add(name, total, count)

    def on_validation_epoch_end(self) -> None:
        figures, self._validation = self._validation.result(), StepFigures()
        if figures and not getattr(self.trainer, "sanity_checking", False):
            values = {"val/loss": figures.pop("pair_loss")} | {f"val/{name}": x for name, x in figures.items()}
            self.record(values, bar={"val/loss", "val/accuracy"})
        super().on_validation_epoch_end()


def at_first_targets(losses: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
    """A loss of each of ``rows`` ``(P,)`` at the first token of ``mask`` in that row; ``(B, T)``, 0 elsewhere."""
    return losses.new_zeros(mask.shape).index_put((rows, mask[rows].int().argmax(1)), losses)


def pair_rows(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """Indices of the chosen and of the rejected row of each pair, int64 ``(P,)`` each, by ``group_ids``.

    Raises:
        ValueError: A group is not one chosen and one rejected row.
    """
    order = torch.argsort(rollouts.group_ids, stable=True)
    is_chosen, groups = rollouts.extras["chosen"][order].bool(), rollouts.group_ids[order]
    first, second = groups[is_chosen], groups[~is_chosen]
    if not torch.equal(first, second) or len(torch.unique(first)) < len(first):
        raise ValueError("A pair of the batch is not complete: every group needs one chosen and one rejected row.")
    return order[is_chosen], order[~is_chosen]


def pair_micro_batches(rollouts: Rollouts, token_budget: int) -> Iterator[Rollouts]:
    """Pairs sorted by length in batches of at most ``token_budget`` padded tokens (at least one pair each)."""
    pairs = torch.stack(pair_rows(rollouts), 1)
    lengths = rollouts.attention_mask.sum(1)[pairs].amax(1)
    order = torch.sort(lengths, stable=True).indices
    batch: list[int] = []
    for place, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if batch and 2 * (len(batch) + 1) * length > token_budget:
            yield rollouts.select(pairs[batch].flatten())
            batch = []
        batch.append(place)
    if batch:
        yield rollouts.select(pairs[batch].flatten())
