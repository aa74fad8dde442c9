"""HiPER: one policy that plans and acts, with credit on two time scales (arXiv 2602.16165)."""

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_rl.distributed import world_sum
from lit_rl.episodes import Rollouts
from lit_rl.methods.critique import CritiqueTerm
from lit_rl.methods.figures import StepFigures
from lit_rl.methods.hiper_options import (
    AGENT,
    CRITIC,
    ValueBackbone,
    backbone_of,
    check_critic_warmup,
    coefs_of,
    heads_read_by,
)
from lit_rl.methods.policy_gradient import PolicyGradient
from lit_rl.methods.value_losses import ValueLosses, learned_rows
from lit_rl.methods.world_figures import add_world_figures
from lit_rl.objectives import AggregationMode
from lit_rl.objectives.values import explained_variance, variance_sums
from lit_rl.policy import PolicyConfig
from lit_rl.value_reads import read_values, up_to_reads, value_reads

STREAMS = ("switch", "subgoal", "action")
FEW_SWITCHES = 0.5  # an episode; fewer is a policy that has stopped planning


class HiPER(PolicyGradient):
    """PPO on the turns of an agent that says keep or switch, a subgoal and an action, each with its own advantage.

    Advantages are a callback's: `lit_rl.callbacks.HierarchicalCredit` for HiPER; with `FlatCredit` this is PPO with one
    value head, with `GroupCredit` GRPO or GiGPO without any.  Every head whose ``return_<head>`` the callback wrote is
    trained.  As in the authors' code: clipped losses of policy and values, dual clip, k3 in the loss, means over the
    tokens of decisions that were taken, one pass over a batch in steps of about 256 turns (``steps_per_batch``).  Ours:
    a mean over an optimizer step counts the rows of the whole step, not those of micro-batches, and one step trains
    actor and critic, which share no weight where the critic is an adapter of its own.

    Rollouts come from `lit_rl.datamodules.WorldDataModule`: a row a turn, with the positions that values are read at
    and the values of the collecting policy among the ``extras``.

    Args:
        policy: The agent is party "agent"; ``policy.value_heads`` are those that the callback reads, of "low", "high"
            and "switch".
        value_backbone: On whose hidden states the heads sit: those of the adapter "critic", which costs a forward more,
            or of the "actor".  None is "critic" where there are adapters.
        stop_value_gradient: Keep the value loss from the actor's backbone; only with "actor".  Values are read where
            the next token is certain, such as behind a tag: of the task an actor alone hardly knows anything there.
        value_clip: How far a value may move from that of the collecting policy; None does not clip.  Narrow where
            success pays 10.
        value_coefs: By head, the weight of its loss; a head not named has 1.
        critic_learning_rate: Of the adapter "critic" and the value heads.
        critic_warmup_steps: Optimizer steps at the beginning in which values alone learn.  The last action of a segment
            is paid by the value of the state it led to: while values know nothing all actions are paid alike, and what
            a policy can already do drifts away.
        block_mean: Average tokens within each block of a turn first, so that a long subgoal counts no more than a short
            action (our option); ``aggregation`` then has no say.
        learning_rate: Of the actor, as published for all its weights.
        dual_clip: As in `PolicyGradient`, and so are the options below in `Method`; the defaults are HiPER's.
        aggregation: See `Method`.
        kl_coef: See `Method`; 0 where all weights are trained.
        entropy_coef: See `Method`.
        clip_each_party: See `Method`.
        kwargs: Of `PolicyGradient` and `Method`.
    """

    trained_parties = (AGENT,)

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        value_backbone: ValueBackbone | None = None,
        stop_value_gradient: bool = False,
        value_clip: float | None = 0.5,
        value_coefs: dict[str, float] | None = None,
        critic_learning_rate: float = 1e-5,
        critic_warmup_steps: int = 0,
        block_mean: bool = False,
        learning_rate: float = 1e-6,
        dual_clip: float | None = 3.0,
        aggregation: AggregationMode = "token_mean",
        kl_coef: float = 0.01,
        entropy_coef: float = 0.001,
        clip_each_party: bool = True,
        **kwargs: Any,
    ):
        super().__init__(
            policy,
            learning_rate=learning_rate,
            dual_clip=dual_clip,
            aggregation=aggregation,
            kl_coef=kl_coef,
            entropy_coef=entropy_coef,
            clip_each_party=clip_each_party,
            **kwargs,
        )
        self.value_backbone = backbone_of(policy, value_backbone, stop_value_gradient)
        if value_clip is not None and not value_clip > 0:
            raise ValueError(f"model.value_clip is {value_clip}; give a number above 0, or null for no clip.")
        if not critic_learning_rate >= 0:
            raise ValueError(f"model.critic_learning_rate is {critic_learning_rate}; it must be at least 0.")
        check_critic_warmup(critic_warmup_steps, self.value_backbone, stop_value_gradient)
        if block_mean and aggregation != "token_mean":
            raise ValueError(f"model.block_mean averages by itself; leave out aggregation, which is {aggregation!r}.")
        self.value_coefs = coefs_of(policy, value_coefs or {})
        self.stop_value_gradient, self.value_clip = stop_value_gradient, value_clip
        self.critic_learning_rate, self.critic_warmup_steps = critic_learning_rate, critic_warmup_steps
        self.block_mean = block_mean
        self.needs_next_values = False  # whether ``value_next`` has to be filled while collecting
        self.needs_keep_reads = False  # the same of ``value_keep`` and ``switch_prob``
        self._value_losses: ValueLosses | None = None  # of the optimizer step that is being taken
        self._evaluated = StepFigures()
        self._collapsed = False

    # -- what can be learned from ------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self._check_credit(getattr(self.trainer, "callbacks", ()))
        super().setup(stage)

    def _check_credit(self, callbacks: Iterable[Any]) -> None:
        """Whether a callback gives credit, by the values there are."""
        credit = [callback for callback in callbacks if hasattr(callback, "annotate")]
        if not credit:
            raise ValueError(
                "HiPER learns from advantages that a callback writes, and trainer.callbacks has none that does: add "
                "lit_rl.callbacks.HierarchicalCredit, FlatCredit or GroupCredit (or give yours a method annotate)."
            )
        for callback in credit:
            name, wanted = type(callback).__name__, heads_read_by(callback)
            if missing := sorted(wanted - set(self.policy_config.value_heads)):
                raise ValueError(
                    f"{name} reads the values {sorted(wanted)}, but policy.value_heads is "
                    f"{self.policy_config.value_heads}; add {missing}."
                )
        self.needs_keep_reads = any(getattr(callback, "switch", None) == "gain" for callback in credit)
        self.needs_next_values = any(getattr(callback, "truncation", None) == "next" for callback in credit)

    def advantages(self, rollouts: Rollouts) -> Tensor:
        raise ValueError("The batch has no advantages: no callback wrote them before HiPER's training step.")

    def row_parties(self, rollouts: Rollouts) -> Tensor:
        if not self.reads_hidden:
            return super().row_parties(rollouts)
        # Values are learned also where no decision was taken.
        return torch.full((len(rollouts),), rollouts.parties.index(AGENT), device=rollouts.input_ids.device)

    # -- values ------------------------------------------------------------------------------------------------

    @property
    def value_party(self) -> str:
        """The adapter on whose hidden states the heads sit."""
        return CRITIC if self.value_backbone == "critic" else AGENT

    @property
    def reads_hidden(self) -> bool:
        return self.value_backbone == "actor" and self._trains_values

    @property
    def _trains_values(self) -> bool:
        return self._value_losses is not None and bool(self._value_losses.heads)

    @property
    def _warming_up(self) -> bool:
        return self.policy_version < self.critic_warmup_steps

    def step_weights(self, rollouts: Rollouts) -> Callable[[Rollouts], Tensor]:
        self._value_losses = ValueLosses(rollouts, self.value_coefs, self.value_clip)  # once a step on every rank
        return self._block_weights(rollouts) if self.block_mean else super().step_weights(rollouts)

    def hidden_loss(self, rollouts: Rollouts, hidden: Tensor) -> Tensor:
        assert self.policy is not None and self._value_losses is not None
        hidden = hidden.detach() if self.stop_value_gradient else hidden
        return self._value_losses.of(rollouts, read_values(self.policy, hidden, value_reads(rollouts, self.policy)))

    def _micro_batches(self, rollouts: Rollouts) -> Iterator[tuple[str, Rollouts]]:
        if not self._warming_up:
            yield from super()._micro_batches(rollouts)
        if (self._warming_up or self.value_backbone == "critic") and self._trains_values and len(rollouts):
            for part in rollouts.micro_batches(self.micro_batch_tokens):
                yield self.value_party, part

    def _backward(
        self,
        party: str,
        part: Rollouts,
        weigh: Callable[[Rollouts], Tensor],
        critique: CritiqueTerm | None,
        figures: StepFigures,
    ) -> Tensor:
        if party != CRITIC and not self._warming_up:
            return super()._backward(party, part, weigh, critique, figures)
        assert self.policy is not None and self._value_losses is not None
        with self.policy.acting_as(party):
            with torch.set_grad_enabled(not self.stop_value_gradient):
                hidden = self.policy.hidden(up_to_reads(part.input_ids, value_reads(part, self.policy)))
            losses = self.hidden_loss(part, hidden)
            self.manual_backward(losses.sum())
        for name, (total, count) in self._value_losses.sums.items():
            figures.add(name, total, count)
        return losses.detach()

    def optimizer_groups(self) -> list[dict[str, Any]]:
        groups = super().optimizer_groups()
        for group in groups:
            if group["name"] in (CRITIC, "value_heads"):
                group["lr"] = self.critic_learning_rate
        return groups

    # -- how tokens are weighed --------------------------------------------------------------------------------

    def _block_weights(self, rollouts: Rollouts) -> Callable[[Rollouts], Tensor]:
        """One mean over all blocks of the step of the means over their tokens."""
        blocks = torch.stack([mask.any(1).sum() for mask in _blocks(rollouts)]).sum()
        total = world_sum(blocks).clamp(min=1)

        def weigh(part: Rollouts) -> Tensor:
            weights = torch.zeros(part.loss_mask.shape, device=part.loss_mask.device)
            for mask in _blocks(part):
                weights = torch.where(mask, 1.0 / (mask.sum(1, keepdim=True).clamp(min=1) * total), weights)
            return weights

        return weigh

    # -- figures -----------------------------------------------------------------------------------------------

    def training_step(self, batch: Rollouts, batch_idx: int) -> None:
        batch.figures |= {f"train/{name}": value for name, value in self._figures(batch).items()}
        super().training_step(batch, batch_idx)

    def step_figures(self, rollouts: Rollouts, log_probs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        figures = super().step_figures(rollouts, log_probs)
        if self.reads_hidden and self._value_losses is not None:
            figures |= self._value_losses.sums
        return figures

    def _figures(self, batch: Rollouts) -> dict[str, float]:
        """Of the episodes of all ranks, and of the values they were collected with."""
        figures = StepFigures()
        add_world_figures(figures, batch, AGENT)
        found = figures.result()
        self._warn_of_collapse(found)
        heads = [head for head in self.value_coefs if f"return_{head}" in batch.extras]
        if heads:
            sums = [
                variance_sums(batch.extras[f"value_{head}"], batch.extras[f"return_{head}"], learned_rows(batch, head))
                for head in heads
            ]
            explained = zip(heads, world_sum(torch.stack(sums)).unbind(), strict=True)
            values = {f"explained_variance_{head}": explained_variance(of_head) for head, of_head in explained}
            found |= {name: value for name, value in values.items() if value == value}
        return found

    def _warn_of_collapse(self, figures: Mapping[str, float]) -> None:
        """Once, when episodes of several turns stop switching."""
        switches = figures.get("switches_per_episode")
        if switches is None or figures["turns"] < 2:
            return
        if switches < FEW_SWITCHES and not self._collapsed:
            warnings.warn(
                f"The agent began a new subgoal {switches:.2f} times an episode at policy version "
                f"{self.policy_version}: it is about to keep its first subgoal for ever. Make penalties.keep of the "
                "credit callback stronger; about -3% of what success pays is a beginning.",
                stacklevel=2,
            )
        self._collapsed = switches < FEW_SWITCHES

    def record(self, values: Mapping[str, float], bar: Collection[str] = ()) -> None:
        """As `Method.record`, without the accuracy of each of tens of turns."""
        kept = {name: value for name, value in values.items() if "accuracy_turn_" not in name}
        super().record(kept, bar={*bar, *(name for name in kept if name.endswith("/success"))})

    def _evaluate(self, batch: Rollouts) -> None:
        add_world_figures(self._evaluated, batch, AGENT, prefix=f"{batch.label}/")

    def _log_evaluation(self, stage: str) -> None:
        values = {f"{stage}/{name}": value for name, value in self._evaluated.result().items()}
        self._evaluated = StepFigures()
        if not getattr(self.trainer, "sanity_checking", False):
            self.record(values)


def _blocks(rollouts: Rollouts) -> list[Tensor]:
    """The learned tokens of each stream, and those in none; bool ``(B, T)`` each."""
    masks, rest = [], rollouts.loss_mask
    for stream in STREAMS:
        if f"{stream}_mask" in rollouts.extras:
            masks.append(rollouts.extras[f"{stream}_mask"] & rest)
            rest = rest & ~masks[-1]
    return [*masks, rest]
