"""What policy gradients share: the clipped loss, and groups whose episodes are compared."""

from typing import Any

import torch
from torch import Tensor

from lit_rl.episodes import Rollouts
from lit_rl.methods.base import Method
from lit_rl.objectives import clip_fractions, clipped_policy_loss
from lit_rl.policy import PolicyConfig


class PolicyGradient(Method):
    """A method whose loss is PPO's clipped surrogate; a subclass says what the advantages are.

    Args:
        policy: What to train.
        clip_low: The probability ratio is clipped to ``[1 - clip_low, 1 + clip_high]``.
        clip_high: See ``clip_low``.
        dual_clip: Bound on the loss of a bad token whose ratio explodes; None leaves it.
        kwargs: Of `Method`.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        dual_clip: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(policy, **kwargs)
        self._clips: dict[str, Any] = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
        nothing = torch.zeros(0, 0)
        clipped_policy_loss(nothing, nothing, nothing, nothing.bool(), **self._clips)  # raises if one is out of range

    def token_loss(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        assert rollouts.advantages is not None
        return clipped_policy_loss(
            log_probs, rollouts.old_log_probs, rollouts.advantages, rollouts.loss_mask, **self._clips
        )

    def step_figures(self, rollouts: Rollouts, log_probs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        assert rollouts.advantages is not None
        counts = clip_fractions(
            log_probs, rollouts.old_log_probs, rollouts.advantages, rollouts.loss_mask, **self._clips
        )
        return {"clip_fraction": (counts.high + counts.low + counts.dual, counts.tokens)}


class GroupPolicyGradient(PolicyGradient):
    """A policy gradient whose baseline is what other episodes of the same task were paid.

    Args:
        policy: What to train.
        kwargs: Of `PolicyGradient`.
    """

    def __init__(self, policy: PolicyConfig, **kwargs: Any):
        super().__init__(policy, **kwargs)

    def check_data(self, datamodule: Any) -> None:
        super().check_data(datamodule)
        if getattr(datamodule, "group_size", 2) < 2:
            raise ValueError(f"data.group_size is 1, but {self._alone}")

    def episodes_of(self, rollouts: Rollouts) -> tuple[Tensor, Tensor, Tensor]:
        """One row of each episode, which of them each row belongs to, and the group of each; int64.

        An episode counts once in its group, however many rows it has.

        Raises:
            ValueError: Every episode is alone in its group.
        """
        first, back = rollouts.one_row_per_episode()
        groups = rollouts.group_ids[first]
        if len(torch.unique(groups)) == len(groups):
            raise ValueError(f"Every episode of the batch is alone in its group, but {self._alone}")
        return first, back, groups

    @property
    def _alone(self) -> str:
        return (
            f"{type(self).__name__} compares the episodes of a group with each other: every advantage would be 0. "
            "Sample at least 2 of each task."
        )
