"""The pitfall of qempo.md section 12, to be seen: rewards standardised within their group before shaping."""

import copy

from torch import Tensor

from lit_rl.episodes import Rollouts
from lit_rl.methods.qempo import QEMPO
from lit_rl.objectives import group_advantages


class StdFirst(QEMPO):
    """`QEMPO`, but with rewards over their group's standard deviation, as GRPO has them.

    The coefficients then act as if multiplied by that deviation, which falls as the policy sharpens: entropy is paid
    for less and less.
    """

    def advantages(self, rollouts: Rollouts) -> Tensor:
        rewards = group_advantages(rollouts.rewards.sum(1), rollouts.group_ids, ddof=0, epsilon=1e-6)
        scaled = copy.copy(rollouts)
        scaled.rewards = rewards[:, None]
        return super().advantages(scaled)
