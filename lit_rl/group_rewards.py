"""What the episodes of groups were paid: which groups differ within, and what is told of all of them."""

import math
from collections import Counter

import torch
from torch import Tensor

from lit_rl.distributed import gather_objects
from lit_rl.episodes import Rollouts

Paid = dict[tuple[int, int], list[float]]  # what the episodes of each (group, party) were paid


def raw_rewards(rollouts: Rollouts, rewards: Tensor) -> Paid:
    """Sums over turns, each episode once.

    Args:
        rollouts: Of one rank.
        rewards: Float ``(B, N)``: all of them, or a part.
    """
    paid = rewards.double().sum(1)
    party = torch.where(rollouts.loss_mask, rollouts.party_ids.long(), -1).amax(1)
    first, _ = rollouts.one_row_per_episode()
    columns = (rollouts.group_ids[first].tolist(), party[first].tolist(), paid[first].tolist())
    found: Paid = {}
    for group, number, reward in zip(*columns, strict=True):
        found.setdefault((group, number), []).append(reward)
    return found


class RewardCensus:
    """All groups drawn for one batch, on all ranks.

    Args:
        tolerance: Rewards that differ by no more count as equal.

    Attributes:
        groups: How many there are.
        kept: In how many of them rewards differ.
    """

    def __init__(self, tolerance: float):
        self.tolerance = tolerance
        self.groups = self.kept = 0
        self._rewards: list[list[float]] = []  # of each group and party

    def add(self, mine: Paid) -> tuple[list[int], list[int]]:
        """Count the groups of a draw, of which every rank gives its own.

        Returns:
            Groups in which the episodes of one party or more were paid differently, and the others; of all ranks, in
            ascending order.

        Raises:
            ValueError: A reward is NaN or infinite; on all ranks.
        """
        found = {key: rewards for ranks in gather_objects(mine) for key, rewards in ranks.items()}
        for (group, _), rewards in found.items():
            if not all(map(math.isfinite, rewards)):
                raise ValueError(f"A reward of group {group} is not finite: {rewards}; look at what pays the episodes.")
        groups = sorted({group for group, _ in found})
        # The difference of the extremes: a standard deviation of equal floats need not come out as 0.
        kept = {group for (group, _), rewards in found.items() if max(rewards) - min(rewards) > self.tolerance}
        self._rewards += found.values()
        self.groups, self.kept = self.groups + len(groups), self.kept + len(kept)
        return sorted(kept), [group for group in groups if group not in kept]

    def figures(self) -> dict[str, float]:
        """What to log; nothing where no group was drawn.

        "sampling/lowest_share" and "sampling/highest_share" are those of the groups in which everybody was paid the
        least, or the most, that anybody was; where that is the same, they count as the least.
        """
        if not self._rewards:
            return {}
        every = [reward for rewards in self._rewards for reward in rewards]
        least, most = min(every), max(every)
        lowest = sum(max(rewards) - least <= self.tolerance for rewards in self._rewards)
        highest = sum(most - min(rewards) <= self.tolerance for rewards in self._rewards)
        return {
            "sampling/reward": math.fsum(every) / len(every),
            "sampling/kept_share": self.kept / self.groups,
            "sampling/lowest_share": lowest / len(self._rewards),
            "sampling/highest_share": highest / len(self._rewards) if most - least > self.tolerance else 0.0,
        }

    def histogram(self) -> str:
        """How often what was paid, in one sentence."""
        counts = Counter(f"{reward:.4g}" for rewards in self._rewards for reward in rewards)
        told = ", ".join(f"{value} ({count} times)" for value, count in counts.most_common(8))
        return f"The rewards were {told or 'none'}{' and others' if len(counts) > 8 else ''}."
