"""The clipped losses of value heads that read one position of each row, over whole optimizer steps."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lit_rl.distributed import world_sum
from lit_rl.episodes import Rollouts
from lit_rl.objectives.values import clipped_value_loss


class ValueLosses:
    """Of one optimizer step: each head's mean squared error over all rows it learns from, on all ranks.

    A head of which the batch has no ``return_<head>`` learns nothing.  ``high`` learns from boundaries alone.

    Args:
        rollouts: This rank's part of the step, which may have no rows; every rank makes one of these per step.
        coefs: By head, its weight in the loss.
        clip_range: Of `clipped_value_loss`.
    """

    def __init__(self, rollouts: Rollouts, coefs: Mapping[str, float], clip_range: float | None):
        self.heads = [head for head in coefs if f"return_{head}" in rollouts.extras]
        self.coefs, self.clip_range = coefs, clip_range
        self.counts: dict[str, Tensor] = {}
        if self.heads:
            counts = world_sum(torch.stack([learned_rows(rollouts, head).sum() for head in self.heads]))
            self.counts = dict(zip(self.heads, counts.clamp(min=1).unbind(), strict=True))
        self.sums: dict[str, tuple[Tensor, Tensor]] = {}  # of the last micro-batch, to be logged

    def of(self, part: Rollouts, values: Mapping[str, Tensor]) -> Tensor:
        """What each row of a micro-batch adds to the loss under each head, float32 ``(b, heads)``."""
        losses = []
        for head in self.heads:
            mask = learned_rows(part, head)
            loss = clipped_value_loss(
                values[head], part.extras[f"value_{head}"], part.extras[f"return_{head}"], mask,
                clip_range=self.clip_range,
            )  # fmt: skip
            losses.append(loss * (self.coefs[head] / self.counts[head]))
            self.sums[f"value_loss_{head}"] = (loss.detach().sum(), mask.sum())
        return torch.stack(losses, dim=1)


def learned_rows(rollouts: Rollouts, head: str) -> Tensor:
    """Rows that a head learns from, bool ``(B,)``."""
    if head == "high":
        return rollouts.extras["boundary"] > 0
    return torch.ones(len(rollouts), dtype=torch.bool, device=rollouts.input_ids.device)
