"""What is logged about a batch: sums and counts until the end, so that micro-batches and ranks weigh what they should."""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_rl.episodes import Rollouts
from lit_rl.metrics import solve_turns


class StepFigures:
    """Figures of the optimizer steps of one batch, as (sum, count) pairs on the device; read once."""

    def __init__(self, device: torch.device):
        self.device, self.steps = device, 0
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.per_step: set[str] = set()
        self.largest = torch.zeros((), device=device)

    def add(self, name: str, total: Tensor, count: Tensor, summed: bool = False) -> None:
        """Add to figure ``name``; ``summed`` figures are divided by the number of steps, not by ``count``."""
        zero = torch.zeros((), dtype=torch.float64, device=self.device)
        self.sums[name] = self.sums.get(name, zero) + total.detach()
        self.counts[name] = self.counts.get(name, zero) + count
        if summed:
            self.per_step.add(name)

    def compare(self, log_probs: Tensor, part: Rollouts, mask: Tensor, first: bool) -> None:
        """KL estimate to the sampling policy, and on its own weights the largest sampler-trainer difference."""
        difference = (part.old_log_probs - log_probs).masked_fill(~(mask & part.loss_mask), 0.0)
        self.add("approx_kl", (torch.expm1(-difference) + difference).sum(), mask.sum())
        if first:
            self.largest = torch.maximum(self.largest, difference.abs().max())

    def result(self, world_sum: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Figures over all ranks.  ``loss`` parts of all ranks add up; a gradient norm is the same on each."""
        if not self.sums:
            return {}
        names = sorted(self.sums)
        packed = torch.stack([self.sums[n] for n in names] + [self.counts[n] for n in names])
        sums, counts = world_sum(packed.clone()).chunk(2)
        result = {n: float(s / c.clamp(min=1)) for n, s, c in zip(names, sums, counts, strict=True)}
        result["loss"] = float(sums[names.index("loss")]) / max(1, self.steps)
        result["sampler_log_prob_difference"] = float(self.largest)
        return result


def rollout_figures(batch: Rollouts) -> dict[str, float]:
    """Reward, accuracy by turn and lengths of one rank's batch."""
    first, _ = batch.one_row_per_episode()
    turns = batch.turn_valid[first].sum(1).float()
    tokens = batch.loss_mask.sum().float()
    figures = {
        "reward": float(batch.rewards[first].sum(1).mean()),
        "turns": float(turns.mean()),
        "completion_tokens": float(tokens / turns.sum().clamp(min=1)),
        "episodes": float(len(set(batch.episode_ids.tolist()))),
    }
    if batch.episodes:
        solved = solve_turns(batch.episodes)
        for turn in range(batch.rewards.shape[1]):
            figures[f"accuracy_turn_{turn + 1}"] = float(((solved >= 0) & (solved <= turn)).float().mean())
    return figures
