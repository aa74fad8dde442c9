"""GOPO: a planner and a responder, trained by themselves on whole dialogues (arXiv 2602.15854)."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from lit_rl.distributed import world_sum
from lit_rl.episodes import Rollouts
from lit_rl.methods.figures import StepFigures
from lit_rl.methods.gopo_options import PartyTraining, Schedule, check_parties
from lit_rl.methods.party_schedules import PartySchedules
from lit_rl.methods.policy_gradient import GroupPolicyGradient
from lit_rl.methods.service_figures import ServiceEvaluation
from lit_rl.objectives import (
    AggregationMode,
    aggregation_totals,
    clip_fractions,
    clipped_policy_loss,
    leave_one_out_advantages,
    token_advantages,
    token_weights,
)
from lit_rl.objectives.dialogue_credit import centred_in_group, leave_one_out_by_turn, one_row_per_dialogue
from lit_rl.objectives.joint_reward import PARTS, FixedWeights, WeightSchedule, joint_reward, part_sums
from lit_rl.objectives.turn_sums import first_tokens, turn_sums
from lit_rl.policy import PolicyConfig
from lit_rl.service.dialogue import PLANNER, RESPONDER


class GOPO(GroupPolicyGradient):
    """Group-relative policy gradients of two parties: what to do next, and how to say it.

    As published: a planner that chooses chains of skills and a responder bound to its choice share one joint reward
    with dynamic weights; the planner has an expert reward besides.  Our reading, as the paper's formulas could not be
    read (gopo.md sections 4.4 and 5): all of them.

    * A dialogue comes to ``R`` (`lit_rl.objectives.joint_reward`); dialogues of a group have one customer, and the
      weights of ``R`` change between batches only.
    * The planner's advantage is ``R`` less the mean of the group's others, and its action a whole chain: the clipped
      ratio is that of the chain's log-prob, and the loss a mean over turns.
    * The responder's reward of a turn is ``ok GRE + joint_coef R``, less the mean of the group's others at the same
      turn; its loss is a mean over tokens.

    The parties are LoRA adapters, a parameter group each of one optimizer.  They are stepped one after the other, so
    that a step leaves the other party, its momentum and its schedule as they are; a party with 0 steps never moves.
    Rollouts come from `lit_rl.datamodules.service.ServiceDataModule`; with its mode "flat" there is a responder alone.

    Args:
        policy: With the adapters "planner" and "responder", or that of the one party that is trained.
        planner: How it is trained; None is one step of each split.
        responder: The same.
        schedule: "alternate" steps the planner, then the responder; "joint" both at once.
        weights: Of TSE, ESNDCG and GRE in ``R``; None is `FixedWeights`.
        violation_coef: Taken off ``R`` for violations; 0 under hard masks, which leave none.
        violations_per_turn: Divide the number of violations by that of turns.
        planner_reward: "dialogue", or "turn", the engagement after each turn less the group's mean, a baseline.
        responder_reward: "turn" as above, or "dialogue", which is ``R`` alone: PPO's, for a flat policy.
        expert_coef: Weight of a chain's ESNDCG, less the group's mean, in the planner's advantage.
        joint_coef: Weight of ``R`` in the responder's reward; 0 pays it for its replies alone.
        learning_rate: See `Method`, and so the options below; the defaults are GOPO's.
        aggregation: Of the responder's tokens.
        kl_coef: For both parties; of the planner it is the KL of whole chains.
        kwargs: Of `PolicyGradient` and `Method`.
    """

    trained_parties: tuple[str, ...] = (PLANNER, RESPONDER)

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        planner: PartyTraining | None = None,
        responder: PartyTraining | None = None,
        schedule: Schedule = "alternate",
        weights: WeightSchedule | None = None,
        violation_coef: float = 0.0,
        violations_per_turn: bool = True,
        planner_reward: Literal["dialogue", "turn"] = "dialogue",
        responder_reward: Literal["turn", "dialogue"] = "turn",
        expert_coef: float = 0.0,
        joint_coef: float = 0.5,
        learning_rate: float = 1e-6,
        aggregation: AggregationMode = "token_mean",
        kl_coef: float = 0.02,
        **kwargs: Any,
    ):
        super().__init__(policy, learning_rate=learning_rate, aggregation=aggregation, kl_coef=kl_coef, **kwargs)
        self.parties = {PLANNER: planner or PartyTraining(), RESPONDER: responder or PartyTraining()}
        check_parties(policy, self.parties, schedule)
        for name, value in (("planner_reward", planner_reward), ("responder_reward", responder_reward)):
            if value not in ("dialogue", "turn"):
                raise ValueError(f"model.{name} is {value!r}; it must be 'dialogue' or 'turn'.")
        coefs = {"violation_coef": violation_coef, "expert_coef": expert_coef, "joint_coef": joint_coef}
        for name, coef in coefs.items():
            if not coef >= 0:
                raise ValueError(f"model.{name} is {coef}; it must be at least 0.")
        self.trained_parties = tuple(name for name, party in self.parties.items() if party.steps)
        self.schedule, self.weights = schedule, weights or FixedWeights()
        self.violation_coef, self.violations_per_turn = violation_coef, violations_per_turn
        self.planner_reward, self.responder_reward = planner_reward, responder_reward
        self.expert_coef, self.joint_coef = expert_coef, joint_coef
        self._stepping: tuple[str, ...] = ()  # parties of the optimizer step at hand
        self._moved_at: dict[str, int] = {}  # the version each party's last step led to
        self._served: ServiceEvaluation | None = None

    def check_data(self, datamodule: Any) -> None:
        super().check_data(datamodule)
        played = getattr(datamodule, "trained", None)
        if played is not None and (missing := [name for name in self.trained_parties if name not in played]):
            raise ValueError(
                f"The data has rows of {list(played)} only (data.mode {datamodule.mode!r}), and model.{missing[0]} is "
                f"to be trained; set model.{missing[0]}.steps to 0."
            )

    # -- advantages --------------------------------------------------------------------------------------------

    def returns(self, rollouts: Rollouts) -> Tensor:
        """``R`` of each row's dialogue under the weights of this batch, float32 ``(B,)``."""
        return joint_reward(
            _extra(rollouts, "dialogue_parts"),
            self.weights.weights(),
            violations=_part(rollouts, "violations").sum(1),
            turns=_closed(rollouts).sum(1),
            violation_coef=self.violation_coef,
            divide_by_turns=self.violations_per_turn,
        )

    def advantages(self, rollouts: Rollouts) -> Tensor:
        first, back = one_row_per_dialogue(rollouts.episode_ids)
        groups = rollouts.group_ids[first]
        if len(torch.unique(groups)) == len(groups):
            raise ValueError(f"Every dialogue of the batch is alone in its group, but {self._alone}")
        returns = self.returns(rollouts)[first]
        planner, responder = (
            credit(rollouts, first, groups, returns)[back] for credit in (self._planner_credit, self._responder_credit)
        )
        planned = _rows_of(rollouts, PLANNER)
        return token_advantages(
            torch.where(planned[:, None], planner, responder), rollouts.turn_ids, rollouts.loss_mask
        )

    def _planner_credit(self, rollouts: Rollouts, first: Tensor, groups: Tensor, returns: Tensor) -> Tensor:
        """Of each turn of each dialogue, float32 ``(D, N)``."""
        if self.planner_reward == "turn":
            return centred_in_group(_part(rollouts, "engagement")[first], groups, _closed(rollouts)[first])
        esndcg = _part(rollouts, "esndcg")[first]
        credit = leave_one_out_advantages(returns, groups)[:, None].expand_as(esndcg)
        return credit + self.expert_coef * centred_in_group(esndcg, groups, ~esndcg.isnan())

    def _responder_credit(self, rollouts: Rollouts, first: Tensor, groups: Tensor, returns: Tensor) -> Tensor:
        """The same of the responder."""
        closed = _closed(rollouts)[first]
        if self.responder_reward == "dialogue":
            return leave_one_out_advantages(returns, groups)[:, None].expand(closed.shape)
        gre = _part(rollouts, "gre")[first]
        replies = _part(rollouts, "followed")[first] * gre
        # By itself: a reply that nobody rated is compared by what its dialogue came to alone.
        credit = leave_one_out_by_turn(replies, groups, ~gre.isnan())
        shared = returns[:, None].expand(closed.shape)
        return credit + self.joint_coef * leave_one_out_by_turn(shared, groups, closed)

    # -- losses ------------------------------------------------------------------------------------------------

    def token_loss(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        assert rollouts.advantages is not None
        return clipped_policy_loss(*_actions(rollouts, log_probs), **self._clips)

    def step_weights(self, rollouts: Rollouts) -> Callable[[Rollouts], Tensor]:
        """A mean over the turns of planners, and one over the tokens of responders; their sum is the loss."""
        planned, said = _by_level(rollouts)
        totals = aggregation_totals(said, group_ids=rollouts.group_ids)
        counts = world_sum(torch.cat([totals.counts, first_tokens(planned).sum()[None]]))
        totals, turns = totals.with_counts(counts[:-1]), counts[-1].clamp(min=1)

        def weigh(part: Rollouts) -> Tensor:
            planned, said = _by_level(part)
            options: dict[str, Any] = {"mode": self.aggregation, "totals": totals, "max_length": self.norm_length}
            return token_weights(said, group_ids=part.group_ids, **options) + planned / turns

        return weigh

    # -- whose step it is --------------------------------------------------------------------------------------

    def optimizer_groups(self) -> list[dict[str, Any]]:
        return [
            group | self.parties[group["name"]].of_group() if group["name"] in self.parties else group
            for group in super().optimizer_groups()
        ]

    def make_scheduler(self, make: Any, optimizer: Any) -> PartySchedules:
        return PartySchedules(make, optimizer)

    def step_parts(self, rollouts: Rollouts) -> Iterator[Rollouts]:
        if self.schedule == "joint":
            yield self._part_of(rollouts, self.trained_parties)
            return
        for party in self.trained_parties:
            for _ in range(self.parties[party].steps):
                yield self._part_of(rollouts, (party,))

    def _part_of(self, rollouts: Rollouts, parties: tuple[str, ...]) -> Rollouts:
        self._stepping = parties
        owners = self.row_parties(rollouts)
        numbers = [rollouts.parties.index(party) for party in parties if party in rollouts.parties]
        mine = torch.isin(owners, owners.new_tensor(numbers))
        return rollouts.select(mine) if bool(mine.any()) else rollouts.without_rows()

    def _optimizer_step(self, rollouts: Rollouts, figures: StepFigures) -> None:
        super()._optimizer_step(rollouts, figures)
        self._moved_at |= dict.fromkeys(self._stepping, self.policy_version)

    def _scheduler_step(self) -> None:
        parties = self._stepping if self.scheduler_interval == "step" else self.trained_parties
        for config in getattr(self.trainer, "lr_scheduler_configs", ()):
            config.scheduler.step(parties)

    def as_sampled(self, party: str, rollouts: Rollouts) -> bool:
        return self._moved_at.get(party, 0) <= rollouts.policy_version

    # -- the run -----------------------------------------------------------------------------------------------

    def training_step(self, batch: Rollouts, batch_idx: int) -> None:
        first, _ = one_row_per_dialogue(batch.episode_ids)
        parts = world_sum(part_sums(_extra(batch, "dialogue_parts")[first]))
        batch.figures |= {f"train/{name}": value for name, value in self._figures(batch, first).items()}
        super().training_step(batch, batch_idx)
        if bool(parts[1].any()):
            self.weights.observe(parts)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["joint_reward_weights"] = self.weights.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.weights.load_state_dict(checkpoint["joint_reward_weights"])
        self._moved_at = dict.fromkeys(self.trained_parties, self.policy_version)

    # -- figures -----------------------------------------------------------------------------------------------

    def step_figures(self, rollouts: Rollouts, log_probs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        assert rollouts.advantages is not None
        found: dict[str, tuple[Tensor, Tensor]] = {}
        log_probs, old_log_probs, advantages, mask = _actions(rollouts, log_probs)
        for name, level in zip((PLANNER, RESPONDER), _by_level(rollouts), strict=True):
            counts = clip_fractions(log_probs, old_log_probs, advantages, mask & level, **self._clips)
            found[f"clip_fraction_{name}"] = counts.high + counts.low + counts.dual, counts.tokens
        return found

    def _figures(self, batch: Rollouts, first: Tensor) -> dict[str, float]:
        """Of the batch's dialogues on all ranks, with the weights they were paid by."""
        served = self._evaluation_of_data()
        served.update("", batch.episodes)
        found = {name.removeprefix("/"): value for name, value in served.compute().items()}
        paid = StepFigures()
        if len(batch):
            paid.add("joint_reward", self.returns(batch)[first].sum(), torch.tensor(len(first)))
        weights = zip(PARTS, self.weights.weights(), strict=True)
        return found | paid.result() | {f"weight_{name}": weight for name, weight in weights}

    def _evaluation_of_data(self) -> ServiceEvaluation:
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "skills") or not hasattr(data, "scoring"):
            raise ValueError(
                f"GOPO scores dialogues by the skills and the scoring of its DataModule, and {type(data).__name__} has "
                "none; use lit_rl.datamodules.ServiceDataModule."
            )
        return ServiceEvaluation(data.skills, data.scoring, self.device)

    def record(self, values: Mapping[str, float], bar: Collection[str] = ()) -> None:
        """As `Method.record`, without accuracies: a turn of a service dialogue is not right or wrong."""
        kept = {name: value for name, value in values.items() if "accuracy_turn_" not in name}
        super().record(kept, bar={"train/loss", *(name for name in kept if name.endswith("/tse_compliant"))})

    def _evaluate(self, batch: Rollouts) -> None:
        if self._served is None:
            self._served = self._evaluation_of_data()
        self._served.update(batch.label, batch.episodes)

    def _log_evaluation(self, stage: str) -> None:
        if self._served is None:
            return
        values = {f"{stage}/{name}": value for name, value in self._served.compute().items()}
        if not getattr(self.trainer, "sanity_checking", False):
            self.record(values)


def _rows_of(rollouts: Rollouts, party: str) -> Tensor:
    """Rows that a party sampled tokens of, bool ``(B,)``."""
    if party not in rollouts.parties:
        return torch.zeros(len(rollouts), dtype=torch.bool, device=rollouts.input_ids.device)
    number = rollouts.parties.index(party)
    return ((rollouts.party_ids == number) & rollouts.loss_mask).any(1)


def _by_level(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """The learned tokens of planners, and those of responders; bool ``(B, T)``."""
    planned = _rows_of(rollouts, PLANNER)[:, None] & rollouts.loss_mask
    return planned, rollouts.loss_mask & ~planned


def _actions(rollouts: Rollouts, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probs, those of the sampler, advantages and mask of single actions, ``(B, T)`` each.

    A responder's action is a token, a planner's a whole chain, which stands on its first token.
    """
    assert rollouts.advantages is not None
    planned, said = _by_level(rollouts)
    whole = [torch.where(planned, turn_sums(values, planned), values) for values in (log_probs, rollouts.old_log_probs)]
    return whole[0], whole[1], rollouts.advantages, first_tokens(planned) | said


def _part(rollouts: Rollouts, name: str) -> Tensor:
    """Of each turn of the row's dialogue, float32 ``(B, N)``."""
    return _written("reward_parts", rollouts.reward_parts, name)


def _extra(rollouts: Rollouts, name: str) -> Tensor:
    return _written("extras", rollouts.extras, name)


def _written(where: str, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ValueError(
            f"GOPO reads {where}[{name!r}], and the rollouts have {sorted(tensors)}; use "
            "lit_rl.datamodules.ServiceDataModule, which writes all it needs."
        )
    return tensors[name]


def _closed(rollouts: Rollouts) -> Tensor:
    """Turns that an engagement was felt after, bool ``(B, N)``."""
    return ~_part(rollouts, "engagement").isnan()
