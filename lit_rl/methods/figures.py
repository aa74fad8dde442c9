"""What is logged about a batch: sums and counts until the end, so that micro-batches and ranks weigh what they should."""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_rl.distributed import gather_objects
from lit_rl.episodes import Rollouts
from lit_rl.metrics import solve_turns


class StepFigures:
    """Figures of the optimizer steps of one batch, as (sum, count) pairs on the device; read once."""

    def __init__(self, device: torch.device):
        self.device, self.steps = device, 0
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.largest = torch.zeros((), device=device)

    def add(self, name: str, total: Tensor, count: Tensor) -> None:
        """Add to the sum and the count of figure ``name``."""
        zero = torch.zeros((), dtype=torch.float64, device=self.device)
        self.sums[name] = self.sums.get(name, zero) + total.detach()
        self.counts[name] = self.counts.get(name, zero) + count

    def compare(self, log_probs: Tensor, part: Rollouts, mask: Tensor, first: bool) -> None:
        """KL estimate to the sampling policy, and on its own weights the largest sampler-trainer difference."""
        difference = (part.old_log_probs - log_probs).masked_fill(~(mask & part.loss_mask), 0.0)
        self.add("approx_kl", (torch.expm1(-difference) + difference).sum(), mask.sum())
        if first:
            self.largest = torch.maximum(self.largest, difference.abs().max())

    def add_rollouts(self, batch: Rollouts) -> None:
        """Reward, accuracy by turn and lengths of this rank's batch."""
        first, _ = batch.one_row_per_episode()
        episodes = torch.tensor(len(first), device=self.device)
        turns = batch.turn_valid[first].sum()
        self.add("reward", batch.rewards[first].sum(), episodes)
        self.add("turns", turns, episodes)
        self.add("completion_tokens", batch.loss_mask.sum(), turns)
        if batch.episodes:
            solved = solve_turns(batch.episodes).to(self.device)
            for turn in range(batch.rewards.shape[1]):
                hits = ((solved >= 0) & (solved <= turn)).sum()
                self.add(f"accuracy_turn_{turn + 1}", hits, torch.tensor(len(solved), device=self.device))

    def result(self, world_sum: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means over all ranks; ``loss`` is the sum of all micro-batches and ranks, per optimizer step."""
        names = sorted(self.sums)
        packed = torch.stack([self.sums[n] for n in names] + [self.counts[n] for n in names])
        sums, counts = world_sum(packed.clone()).chunk(2)
        result = {n: float(s / c.clamp(min=1)) for n, s, c in zip(names, sums, counts, strict=True)}
        result["loss"] = float(sums[names.index("loss")]) / self.steps
        result["sampler_log_prob_difference"] = max(gather_objects(float(self.largest)))
        return result
