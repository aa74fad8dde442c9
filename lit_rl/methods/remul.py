"""REMUL, first stage: a speaker whose reasoning others can carry on to its own answer (arXiv 2602.16154)."""

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lit_rl.distributed import world_sum
from lit_rl.episodes import Rollouts
from lit_rl.methods.policy_gradient import GroupPolicyGradient
from lit_rl.objectives import AggregationMode, group_advantages, token_advantages
from lit_rl.policy import PolicyConfig
from lit_rl.weight_files import sign

RewardName = Literal["match", "correctness", "balanced", "hint"]
MATCH, CORRECT, HINT = "listener_match", "correct", "hint"  # in ``reward_parts``
_WRITERS = {
    MATCH: "lit_rl.callbacks.ListenerExecution",
    CORRECT: "lit_rl.datamodules.CompletionDataModule",
    HINT: "lit_rl.callbacks.HintUsageReward",
}


class REMUL(GroupPolicyGradient):
    """GRPO on how often listeners, given a beginning of the speaker's reasoning, come to the speaker's answer.

    As published: the number of matches over listeners and beginnings as the reward, KL (k3) and entropy coefficients
    of 0.001; in the authors' code: clip range 0.2, the mean over all tokens of the batch, one step per batch, sample
    standard deviation with epsilon 1e-6.  Right or wrong does not count unless ``reward`` says so.  Finetune on masked
    answers afterwards: `lit_rl.methods.MaskedAnswerFineTuning`.

    The matches come from `lit_rl.callbacks.ListenerExecution`, in ``reward_parts["listener_match"]``; whether as a sum
    or a mean is the callback's ``reward_scale``.  Replies whose answer nobody can read are paid 0 in any case.  Hint
    usage comes from `lit_rl.callbacks.HintUsageReward`, in ``reward_parts["hint"]``.

    Args:
        policy: The speaker; the paper trains all weights, for which ``kl_coef`` has to be 0 here.
        reward: "match" with listeners (REMUL, and all of "faithfulness only"), "correctness" of the answer,
            "balanced": matches plus ``balance`` for a right answer, or "hint": whether a hint changes the answer and
            the reasoning says so (a baseline whose form is our reading).
        balance: What a right answer is worth beside the matches; None is the number of listeners, as published.
        aggregation: How token losses become one number.
        kl_coef: Weight of the KL estimate to the reference policy.
        entropy_coef: Weight of the entropy, which the loss is less by.
        kwargs: Of `PolicyGradient` and `Method`.
    """

    trained_parties = ("speaker",)

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        reward: RewardName = "match",
        balance: float | None = None,
        aggregation: AggregationMode = "token_mean",
        kl_coef: float = 0.001,
        entropy_coef: float = 0.001,
        **kwargs: Any,
    ):
        super().__init__(policy, aggregation=aggregation, kl_coef=kl_coef, entropy_coef=entropy_coef, **kwargs)
        if reward not in get_args(RewardName):
            raise ValueError(f"model.reward is {reward!r}; use one of {list(get_args(RewardName))}.")
        if balance is not None and (reward != "balanced" or balance < 0):
            raise ValueError(f"model.balance is {balance}; it goes with reward='balanced' and is at least 0.")
        self.reward, self.balance = reward, balance
        self.num_listeners: int | None = None  # of the callback's pool, known when training begins

    # -- what can be learned from ------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        callbacks = getattr(self.trainer, "callbacks", ())
        if stage == "fit" and self.reward in ("match", "balanced"):
            self.num_listeners = self._listeners_of(callbacks)
        if stage == "fit" and self.reward == "hint":
            self._check_written(HINT, callbacks)
        super().setup(stage)

    def _listeners_of(self, callbacks: Any) -> int | None:
        """How many listeners are rewarded for each beginning, where a callback with a pool of them says so."""
        pools = [callback.pool.size for callback in callbacks if hasattr(getattr(callback, "pool", None), "size")]
        if not pools:
            self._check_written(MATCH, callbacks)
        if not pools and self.reward == "balanced" and self.balance is None:
            raise ValueError("model.balance is null, but no callback says how many listeners there are; give a number.")
        return pools[0] if pools else None

    def _check_written(self, part: str, callbacks: Any) -> None:
        """Raise ValueError if no callback says that it writes a part of the reward."""
        if not any(part in getattr(callback, "reward_parts", ()) for callback in callbacks):
            raise ValueError(
                f"model.reward={self.reward!r} needs reward_parts[{part!r}], which no callback writes: add "
                f"{_WRITERS[part]} to trainer.callbacks (or give yours an attribute reward_parts that names it)."
            )

    # -- what is learned ---------------------------------------------------------------------------------------

    def rewards(self, rollouts: Rollouts) -> Tensor:
        """What every reply is paid, float32 ``(B, N)``: 0 where its answer cannot be read."""
        pay = {"match": _matches, "correctness": _correctness, "balanced": self._balanced, "hint": _hint}[self.reward]
        return pay(rollouts).masked_fill(~readable(rollouts), 0.0)

    def _balanced(self, rollouts: Rollouts) -> Tensor:
        balance = self.num_listeners if self.balance is None else self.balance
        assert balance is not None
        return _matches(rollouts) + balance * _correctness(rollouts)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        first, back, groups = self.episodes_of(rollouts)
        paid = self.rewards(rollouts).sum(dim=1)
        advantages = group_advantages(paid[first], groups, ddof=1, epsilon=1e-6)
        return token_advantages(advantages[back], rollouts.turn_ids, rollouts.loss_mask)

    # -- figures and files -------------------------------------------------------------------------------------

    def training_step(self, batch: Rollouts, batch_idx: int) -> None:
        batch.rewards = self.rewards(batch)
        batch.figures["train/equal_reward_groups"] = _equal_groups(batch)
        super().training_step(batch, batch_idx)

    def export(self, folder: str | Path) -> None:
        """As `Method.export`, with a word beside the weights by which the second stage knows them."""
        super().export(folder)
        assert self.policy is not None
        for name in self.policy.parties or (".",):
            sign(Path(folder) / name, method=type(self).__name__, optimizer_steps=self.policy_version)


def _part(rollouts: Rollouts, name: str) -> Tensor:
    if name not in rollouts.reward_parts:
        raise ValueError(f"The batch has no reward_parts[{name!r}]; {_WRITERS[name]} writes it.")
    return rollouts.reward_parts[name]


def _matches(rollouts: Rollouts) -> Tensor:
    return _part(rollouts, MATCH)


def _correctness(rollouts: Rollouts) -> Tensor:
    return _part(rollouts, CORRECT)


def _hint(rollouts: Rollouts) -> Tensor:
    return _part(rollouts, HINT)


def readable(rollouts: Rollouts) -> Tensor:
    """Replies whose answer could be read, bool ``(B, N)``."""
    known = {
        (episode.index, turn.exchange)
        for episode in rollouts.episodes
        for turn in episode.turns
        if turn.info.get("answer") is not None
    }
    exchanges = range(rollouts.rewards.shape[1])
    found = [[(index, exchange) in known for exchange in exchanges] for index in rollouts.episode_ids.tolist()]
    return torch.tensor(found, device=rollouts.rewards.device)


def _equal_groups(batch: Rollouts) -> float:
    """Share of the groups, on all ranks, whose replies are all paid alike: nothing is learned from them."""
    first, _ = batch.one_row_per_episode()
    paid, places = batch.rewards[first].sum(dim=1), torch.unique(batch.group_ids[first], return_inverse=True)[1]
    empty = paid.new_zeros(int(places.max()) + 1)
    low, high = (empty.scatter_reduce(0, places, paid, how, include_self=False) for how in ("amin", "amax"))
    equal, groups = world_sum(torch.stack([(low == high).sum(), torch.tensor(len(empty), device=low.device)])).tolist()
    return float(equal / groups)
