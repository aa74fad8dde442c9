"""Social meta-learning: a student learns to learn from a teacher's words (arXiv 2602.16488)."""

from typing import Any, Literal

import torch
from torch import Tensor

from lit_rl.episodes import Rollouts
from lit_rl.methods.policy_gradient import GroupPolicyGradient
from lit_rl.objectives import (
    group_advantages,
    token_advantages,
    trajectory_returns,
    turn_advantages,
    turn_returns,
)
from lit_rl.policy import PolicyConfig


class SocialMetaLearning(GroupPolicyGradient):
    """Online multi-turn GRPO on dialogues with a teacher who knows the answer.

    As published: groups of dialogues on one problem, binary conversation-level success discounted by 0.7 a turn, GRPO
    without a KL term.  Our reading, where the paper is silent: where the exponent starts and what a turn's return is
    (``return_mode``), population standard deviation with epsilon 1e-6, the clip range, one step per batch.

    Args:
        policy: The student.
        gamma: Discount per turn.
        return_mode: "trajectory" pays every token of a dialogue ``gamma ** (turns to solve - 1)``; "turn" pays each
            turn the discounted reward from there on, against dialogues that reached the same turn.
        normalization: In "turn" mode: "turn" standardizes at each turn, "pooled" over all turns of the group, "center"
            only subtracts the mean of the turn.
        length_cost: Taken from a turn's reward for each token the student sampled.
        kwargs: Of `PolicyGradient` and `Method`.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        gamma: float = 0.7,
        return_mode: Literal["trajectory", "turn"] = "trajectory",
        normalization: Literal["turn", "pooled", "center"] = "turn",
        length_cost: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(policy, **kwargs)
        if not 0 <= gamma <= 1:
            raise ValueError(f"model.gamma is {gamma}; a discount lies in [0, 1].")
        if return_mode == "trajectory" and normalization != "turn":
            raise ValueError(f"model.normalization={normalization!r} needs return_mode='turn'.")
        if length_cost < 0:
            raise ValueError(f"model.length_cost is {length_cost}; it is taken from rewards and must be at least 0.")
        self.gamma, self.return_mode, self.normalization = gamma, return_mode, normalization
        self.length_cost = length_cost

    def advantages(self, rollouts: Rollouts) -> Tensor:
        first, back, groups = self.episodes_of(rollouts)
        rewards = rollouts.rewards[first]
        if self.length_cost:
            tokens = torch.zeros_like(rewards).index_add_(0, back, _tokens_by_turn(rollouts))
            rewards = rewards - self.length_cost * tokens
        if self.return_mode == "trajectory":
            returns = trajectory_returns(rewards, gamma=self.gamma)
            advantages = group_advantages(returns, groups, ddof=0, epsilon=1e-6)
        else:
            returns = turn_returns(rewards, gamma=self.gamma)
            advantages = turn_advantages(
                returns,
                rollouts.turn_valid[first],
                groups,
                ddof=0,
                epsilon=1e-6,
                normalization=self.normalization,
            )
        return token_advantages(advantages[back], rollouts.turn_ids, rollouts.loss_mask)


def _tokens_by_turn(rollouts: Rollouts) -> Tensor:
    """How many tokens of each turn were sampled in each row, float32 ``(B, N)``."""
    turns = rollouts.turn_ids.long().clamp(min=0)
    return torch.zeros_like(rollouts.rewards).scatter_add_(1, turns, rollouts.loss_mask.float())
