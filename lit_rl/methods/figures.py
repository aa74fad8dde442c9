"""What is logged about a batch: sums and counts until the end, so that every token and rank weighs what it should."""

from collections.abc import Iterable

import torch
from torch import Tensor

from lit_rl.distributed import gather_objects
from lit_rl.episodes import Rollouts
from lit_rl.metrics import solve_turns
from lit_rl.metrics.functional import solved_by_turn


class StepFigures:
    """Figures of the optimizer steps of one batch, as (sum, count) pairs on the device; read once, at the end."""

    def __init__(self) -> None:
        self.steps = 0
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}
        self.largest: list[Tensor] = []

    def add(self, name: str, total: Tensor, count: Tensor) -> None:
        """Add to the sum and the count of figure ``name``."""
        total, count = total.detach().double(), count.double()
        if name in self.pairs:
            total, count = self.pairs[name][0] + total, self.pairs[name][1] + count
        self.pairs[name] = total, count

    def compare(self, log_probs: Tensor, part: Rollouts, mask: Tensor, first: bool) -> None:
        """KL estimate to the sampling policy; on its own weights also the largest sampler-trainer difference.

        Args:
            log_probs: Of the policy being trained, float32 ``(B, T)``.
            part: Micro-batch.
            mask: Learned tokens, bool ``(B, T)``; those that were not sampled have nothing to compare with.
            first: Whether the weights are those that sampled.
        """
        sampled = mask & part.loss_mask
        difference = (part.old_log_probs - log_probs).masked_fill(~sampled, 0.0)
        self.add("approx_kl", (torch.expm1(-difference) + difference).sum(), sampled.sum())
        if first:
            self.largest.append(difference.abs().max())

    def add_rollouts(self, batch: Rollouts) -> None:
        """Reward, accuracy by turn and lengths of this rank's episodes; nothing for rows that nobody sampled."""
        sampled = batch.loss_mask.sum()
        if not bool(sampled):
            return
        first, _ = batch.one_row_per_episode()
        episodes = torch.tensor(len(first), device=first.device)
        turns = batch.turn_valid[first].sum()
        self.add("reward", batch.rewards[first].sum(), episodes)
        self.add("turns", turns, episodes)
        self.add("completion_tokens", sampled, turns)
        if batch.episodes:
            solved = solved_by_turn(solve_turns(batch.episodes), batch.rewards.shape[1]).to(first.device)
            dialogues = torch.tensor(len(solved), device=first.device)
            for turn, hits in enumerate(solved.sum(0), 1):
                self.add(f"accuracy_turn_{turn}", hits, dialogues)

    def result(self) -> dict[str, float]:
        """Means over all ranks, without those that nothing was counted of.

        ``loss`` is the sum over micro-batches and ranks, per optimizer step; ``sampler_log_prob_difference`` a maximum.
        """
        mine = dict(zip(self.pairs, _read(list(self.pairs.values())), strict=True))
        ranks = gather_objects((mine, float(torch.stack(self.largest).max()) if self.largest else None))
        sums = _summed(pairs for pairs, _ in ranks)
        result = {name: total / count for name, (total, count) in sums.items() if count}
        if "loss" in sums:
            result["loss"] = sums["loss"][0] / self.steps
        differences = [largest for _, largest in ranks if largest is not None]
        if "approx_kl" in result and differences:
            result["sampler_log_prob_difference"] = max(differences)
        return result


def _read(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[float, float]]:
    """All of them in one transfer from the device."""
    if not pairs:
        return []
    return [(total, count) for total, count in torch.stack([torch.stack(pair) for pair in pairs]).tolist()]


def _summed(ranks: Iterable[dict[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    """Ranks may know different figures: one without a row of some party has none of that party's."""
    sums: dict[str, tuple[float, float]] = {}
    for pairs in ranks:
        for name, (total, count) in pairs.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = before[0] + total, before[1] + count
    return dict(sorted(sums.items()))
