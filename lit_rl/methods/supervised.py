"""Finetuning on demonstrations: the warm-up before a policy can learn from its own attempts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_rl.distributed import world_sum
from lit_rl.episodes import Rollouts
from lit_rl.methods.base import Method
from lit_rl.objectives import AggregationMode, masked_cross_entropy, target_total
from lit_rl.policy import PolicyConfig


class SupervisedFineTuning(Method):
    """Cross-entropy on the tokens in ``target_mask``, weighted by ``target_weights``.

    Held-out demonstrations are scored; where a DataModule plays episodes to validate on, these are evaluated.

    Args:
        policy: What to train.
        aggregation: How token losses become one number; the default divides by the weights of all targets of the step.
        kwargs: Of `Method`.
    """

    def __init__(self, policy: PolicyConfig, *, aggregation: AggregationMode = "token_mean", **kwargs: Any):
        super().__init__(policy, aggregation=aggregation, **kwargs)
        if self.critique_coef:
            raise ValueError("model.critique_coef has no use here, for all targets are learned already; leave it out.")
        self._validation: Tensor | None = None  # (loss, weights) of this rank so far

    def advantages(self, rollouts: Rollouts) -> None:
        return None

    def learned_mask(self, rollouts: Rollouts) -> Tensor:
        if rollouts.target_mask is None:
            raise ValueError("SupervisedFineTuning needs rollouts with a target_mask; use DemonstrationDataModule.")
        return rollouts.target_mask

    def token_loss(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        return masked_cross_entropy(log_probs, self.learned_mask(rollouts), rollouts.target_weights)

    def step_weights(self, rollouts: Rollouts) -> Callable[[Rollouts], Tensor]:
        if self.aggregation != "token_mean":
            return super().step_weights(rollouts)
        total = world_sum(target_total(self.learned_mask(rollouts), rollouts.target_weights)).clamp(min=1)
        return lambda part: self.learned_mask(part) / total

    def validation_step(self, batch: Rollouts, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch.target_mask is None:
            self._evaluate(batch)
            return
        assert self.policy is not None
        for party, part in self._micro_batches(batch):
            mask = self.learned_mask(part)
            with self.policy.acting_as(party):
                log_probs, _ = self.policy.log_probs(part.input_ids, mask, constraint_states=part.constraint_states)
            pair = torch.stack([self.token_loss(part, log_probs).sum(), target_total(mask, part.target_weights)])
            self._validation = pair if self._validation is None else self._validation + pair

    def on_validation_epoch_end(self) -> None:
        mine = torch.zeros(2, device=self.device) if self._validation is None else self._validation
        total, weights = world_sum(mine.clone()).tolist()
        self._validation = None
        if weights and not getattr(self.trainer, "sanity_checking", False):
            self.record({"val/loss": total / weights}, bar=["val/loss"])
        self._log_evaluation("val")
