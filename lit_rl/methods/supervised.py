"""Finetuning on demonstrations: the warm-up before a policy can learn from its own attempts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_rl.distributed import world_sum
from lit_rl.episodes import Rollouts
from lit_rl.methods.base import Method
from lit_rl.objectives import masked_cross_entropy, target_total
from lit_rl.policy import PolicyConfig


class SupervisedFineTuning(Method):
    """Cross-entropy on the tokens in ``target_mask``, weighted by ``target_weights``.

    ``aggregation="token_mean"``, the default here, divides by the weights of all targets of the step.

    Args:
        policy: What to train.
        kwargs: Of `Method`.
    """

    def __init__(self, policy: PolicyConfig, **kwargs: Any):
        kwargs.setdefault("aggregation", "token_mean")
        super().__init__(policy, **kwargs)
        self._validation: list[Tensor] = []

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
        assert self.policy is not None
        mask = self.learned_mask(batch)
        with self.policy.acting_as(self.trained_parties[0]):
            log_probs, _ = self.policy.log_probs(batch.input_ids, mask)
        self._validation.append(torch.stack([self.token_loss(batch, log_probs).sum(), mask.sum()]))

    def on_validation_epoch_end(self) -> None:
        total, count = torch.stack(self._validation).sum(0)
        self._validation.clear()
        self.record({"val/loss": float(total / count)}, step=self.policy_version)
