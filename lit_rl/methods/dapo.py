"""DAPO: decoupled clip and dynamic sampling policy optimization (arXiv 2503.14476)."""

from typing import Any, Literal

import torch
from torch import Tensor

from lit_rl.distributed import world_sum
from lit_rl.episodes import Rollouts
from lit_rl.methods.policy_gradient import GroupPolicyGradient
from lit_rl.objectives import AggregationMode, clip_fractions, group_advantages, token_advantages
from lit_rl.objectives.overlong import is_truncated, soft_overlong
from lit_rl.policy import PolicyConfig


class DAPO(GroupPolicyGradient):
    """GRPO without a reference policy, with four techniques that can each be switched alone.

    As published: the group's mean and sample standard deviation turn rewards into advantages, and

    * clip-higher: ``clip_high`` above ``clip_low``, so that rare tokens can become likely;
    * the token-level loss: ``aggregation="token_mean"``, over the optimizer step and all ranks (our reading, as the
      formula averages within a group first, which is "group_token_mean");
    * overlong reward shaping: a punishment that grows as a response nears the limit, or ``filter_truncated``, which
      learns nothing from responses that were cut off; the paper compares the two, ours can have both;
    * dynamic sampling, which is the data's: ``data.dynamic_sampling``, a `lit_rl.dynamic_sampling.DynamicSampling`.

    GRPO (arXiv 2402.03300) is ``clip_high=0.2, dual_clip=None, aggregation="seq_mean_token_mean", overlong_factor=0``
    on data without dynamic sampling; Dr. GRPO (arXiv 2503.20783) has ``scale="none"`` and
    ``aggregation="seq_mean_token_sum_norm"`` besides.  The loss says nothing about progress: at its first step
    ``token_mean`` is the advantages' mean weighed by lengths, and the mean of rows is 0.

    Each turn of an episode is a response with a length of its own.

    Args:
        policy: What to train.
        scale: "std" divides advantages by the standard deviation of their group, "none" does not.
        overlong_factor: Punishment at the limit, taken off the reward; 0 switches it off.
        overlong_cache: Tokens before the limit over which the punishment grows; None takes a fifth of the limit, as
            published (4096 of 20480).
        filter_truncated: Learn nothing from responses that reach the limit without an end of turn.
        exclude_from_baseline: Keep the rewards of such responses out of their group's mean and deviation too (ours).
        max_length: The limit, in tokens of one response; None takes ``data.student.max_tokens``.
        clip_low: The probability ratio is clipped to ``[1 - clip_low, 1 + clip_high]``.
        clip_high: See ``clip_low``.
        dual_clip: Bound on the loss of a bad token whose ratio explodes, as in the authors' script; None leaves it.
        aggregation: How token losses become one number.
        kwargs: Of `Method`.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        scale: Literal["std", "none"] = "std",
        overlong_factor: float = 1.0,
        overlong_cache: int | None = None,
        filter_truncated: bool = False,
        exclude_from_baseline: bool = False,
        max_length: int | None = None,
        clip_low: float = 0.2,
        clip_high: float = 0.28,
        dual_clip: float | None = 10.0,
        aggregation: AggregationMode = "token_mean",
        **kwargs: Any,
    ):
        clips = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
        super().__init__(policy, aggregation=aggregation, **clips, **kwargs)
        if scale not in ("std", "none"):
            raise ValueError(f"model.scale is {scale!r}; it must be 'std' or 'none'.")
        if overlong_factor < 0:
            raise ValueError(f"model.overlong_factor is {overlong_factor}; it must be at least 0, which is none.")
        if overlong_cache is not None and not overlong_factor:
            raise ValueError(
                f"model.overlong_cache is {overlong_cache}, but model.overlong_factor is 0: nothing is punished."
            )
        if exclude_from_baseline and not filter_truncated:
            raise ValueError("model.exclude_from_baseline goes with model.filter_truncated, which is false.")
        if max_length is not None and max_length < 1:
            raise ValueError(f"model.max_length is {max_length}; it must be at least 1, or null.")
        self.scale, self.overlong_factor = scale, overlong_factor
        self.filter_truncated, self.exclude_from_baseline = filter_truncated, exclude_from_baseline
        self.max_length, self.overlong_cache = max_length, overlong_cache
        if max_length is not None:
            self._check_lengths(max_length)

    def check_data(self, datamodule: Any) -> None:
        super().check_data(datamodule)
        sampled = getattr(getattr(datamodule, "student", None), "max_tokens", None)
        if self.max_length is None:
            self.max_length = sampled
        if self.max_length is None and (self.overlong_factor or self.filter_truncated):
            raise ValueError("model.max_length is null and the data has no student.max_tokens; give a number.")
        if self.max_length is not None:
            self._check_lengths(self.max_length)

    def _check_lengths(self, max_length: int) -> None:
        if self.overlong_cache is not None and not 0 < self.overlong_cache <= max_length:
            raise ValueError(
                f"model.overlong_cache is {self.overlong_cache}, but responses have at most {max_length} tokens; it "
                "must be from 1 to that."
            )

    # -- what is learned ---------------------------------------------------------------------------------------

    def training_step(self, batch: Rollouts, batch_idx: int) -> None:
        self.shape(batch)
        super().training_step(batch, batch_idx)

    def shape(self, batch: Rollouts) -> None:
        """Write ``reward_parts["overlong"]`` and, with ``filter_truncated``, take responses out of ``loss_mask``.

        Raises:
            ValueError: An episode has several rows.
        """
        if len(batch.one_row_per_episode()[0]) < len(batch):
            raise ValueError(_SEVERAL_ROWS)
        lengths, cut_off = self._responses(batch)
        batch.extras["truncated"] = cut_off
        if self.overlong_factor:
            batch.reward_parts["overlong"] = self._punishment(lengths)
        sums = [
            cut_off.sum(),
            (lengths > 0).sum(),
            batch.reward_parts.get("overlong", torch.zeros_like(batch.rewards)).sum(),
        ]
        truncated, responses, punished = world_sum(torch.stack([total.double() for total in sums])).tolist()
        if responses:
            batch.figures["train/truncated_share"] = truncated / responses
            batch.figures["train/overlong_punishment"] = punished / responses
        if self.filter_truncated:
            batch.loss_mask = batch.loss_mask & ~_by_token(cut_off, batch)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        _, _, groups = self.episodes_of(rollouts)
        paid = rollouts.rewards
        if self.overlong_factor:
            paid = paid + rollouts.reward_parts["overlong"]
        counted = torch.ones_like(groups, dtype=torch.bool)
        if self.exclude_from_baseline:
            counted = ~rollouts.extras["truncated"].any(1)
        found = torch.zeros_like(paid[:, 0])
        returns, of_counted = paid.sum(1)[counted], rollouts.group_ids[counted]
        if self.scale == "std":
            found[counted] = group_advantages(returns, of_counted, ddof=1, epsilon=1e-6)
        else:
            found[counted] = group_advantages(returns, of_counted, scale_by_std=False)
        return token_advantages(found, rollouts.turn_ids, rollouts.loss_mask)

    def _responses(self, batch: Rollouts) -> tuple[Tensor, Tensor]:
        """Sampled tokens of each turn, int64, and whether it was cut off, bool; both ``(B, N)``."""
        mask, turns = batch.loss_mask, batch.turn_ids.long().clamp(min=0)
        places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        empty = torch.zeros(batch.rewards.shape, dtype=torch.int64, device=mask.device)
        lengths = empty.scatter_add(1, turns, mask.long())
        if self.max_length is None:
            return lengths, empty.bool()
        last = batch.input_ids.gather(1, empty.scatter_reduce(1, turns, places.masked_fill(~mask, 0), "amax"))
        assert self.policy is not None
        return lengths, is_truncated(lengths, last, stop_ids=self.policy.chat.stop_ids, max_length=self.max_length)

    def _punishment(self, lengths: Tensor) -> Tensor:
        assert self.max_length is not None
        cache = self.overlong_cache or max(1, self.max_length // 5)
        return soft_overlong(lengths, max_length=self.max_length, cache_length=cache, factor=self.overlong_factor)

    # -- figures -----------------------------------------------------------------------------------------------

    def step_figures(self, rollouts: Rollouts, log_probs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        assert rollouts.advantages is not None
        mask = rollouts.loss_mask
        counts = clip_fractions(log_probs, rollouts.old_log_probs, rollouts.advantages, mask, **self._clips)
        moved = (rollouts.old_log_probs - log_probs).masked_fill(~mask, 0.0).sum()
        return super().step_figures(rollouts, log_probs) | {
            "clip_high_fraction": (counts.high, counts.tokens),
            "clip_low_fraction": (counts.low, counts.tokens),
            "clip_dual_fraction": (counts.dual, counts.tokens),
            "approx_kl_k1": (moved, counts.tokens),
        }


_SEVERAL_ROWS = (
    "DAPO measures responses in one row per episode, but an episode of the batch has several; set policy.rows to "
    "'dialogue', or use single-turn data such as CompletionDataModule."
)


def _by_token(turns: Tensor, batch: Rollouts) -> Tensor:
    """What is true of each turn ``(B, N)`` for its tokens, bool ``(B, T)``; False outside turns."""
    return turns.gather(1, batch.turn_ids.long().clamp(min=0)) & (batch.turn_ids >= 0)
