"""Online service dialogues of a planner and a responder, or of a flat policy, with a customer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lit_rl.constraints import ConstraintTable
from lit_rl.datamodules.online import OnlineDataModule, Place, at_least_one
from lit_rl.datamodules.played import played_rollouts
from lit_rl.datamodules.service_rows import (
    Pay,
    RecordedDialogue,
    check_pay,
    pay,
    rate_replies,
    service_parts,
    skill_segments,
)
from lit_rl.episodes import Rollouts
from lit_rl.metrics.reply_quality import ReplyRater, RuleRater
from lit_rl.metrics.service import ServiceScoring
from lit_rl.parties import Party, PolicyParty, ScriptedParty
from lit_rl.policy import Policy
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.service.constraints import service_constraints
from lit_rl.service.customers import scripted_customer
from lit_rl.service.dialogue import CUSTOMER, PLANNER, RESPONDER, Masks, Mode, ServiceDialogue, check_options
from lit_rl.service.labels import SkillLabels
from lit_rl.service.prompts import ServicePrompts
from lit_rl.service.world import ServiceSource
from lit_rl.stream_keys import stream_key

PARTIES = (PLANNER, RESPONDER, CUSTOMER)
CONDITIONS = ("service", "service_greedy")


class ServiceDataModule(OnlineDataModule):
    """Service dialogues, played with the policy as it is now; a group is one scenario.

    Every trained party has rows of its own.  Beside the usual fields a batch has, of each row's dialogue:

    * ``reward_parts``, float32 ``(B, N)``: of each turn ``engagement``, ``esndcg``, ``gre`` (NaN where there was no
      turn, no grade or no rating), ``violations`` (rules broken), ``followed`` (the reply kept to its constraint); at
      the last turn ``tse`` and ``tse_compliant``.
    * ``extras["dialogue_parts"]``, float32 ``(B, 3)``: TSE, ESNDCG and GRE of the dialogue, NaN where undefined.
    * where rows are single turns, what `lit_rl.datamodules.service_rows.skill_segments` gives.

    The turn that closes an exchange also says ``gre`` and, where the world knows one, ``reference`` in its ``info``.

    Attributes:
        skills: Of the procedure.
        trained: Parties played by the policy.

    Args:
        tasks: Scenarios.
        labels: Label of each skill, one token in the policy's vocabulary; None is A, B, C and so on.
        prompts: How messages are written; None takes the full style.
        mode: See `ServiceDialogue`, and so the options below.
        masks: Constraints are built and registered with the policy before the first dialogue.
        chain_length: Skills of a plan.
        lookahead: What may stand behind the first.
        max_turns: Turns of the service.
        customer: A script ``(CustomerCue, key) -> text``, any `Party`, or a `PolicyParty` (the frozen base, say); None
            is the script that says the cues' own lines.
        planner: Who plans in place of the policy; None is the policy's adapter "planner".
        responder: Who replies in place of the policy; None is the adapter "responder".
        rater: Of replies, for GRE; None goes by rules.
        scoring: Of dialogues; None takes the defaults.
        pay: What ``rewards`` are: "tse" or "tse_compliant" at the end, or "engagement" each turn.  GOPO makes its own
            reward of the parts.
        group_size: Dialogues of one scenario.
        evaluation: How the policy samples under "service"; None samples as in training.
        fit_conditions: What is validated while training.
        conditions: What ``lit-rl validate`` and ``test`` play: "service", "service_greedy".
        kwargs: Of `OnlineDataModule`; ``student`` is how the policy samples in training.
    """

    def __init__(
        self,
        tasks: ServiceSource,
        *,
        labels: Mapping[str, str] | None = None,
        prompts: ServicePrompts | None = None,
        mode: Mode = "two_level",
        masks: Masks = "hard",
        chain_length: int = 3,
        lookahead: bool = True,
        max_turns: int = 12,
        customer: Party | PolicyParty | Callable[[Any, int], str] | None = None,
        planner: Party | None = None,
        responder: Party | None = None,
        rater: ReplyRater | None = None,
        scoring: ServiceScoring | None = None,
        pay: Pay = "tse",
        group_size: int = 8,
        student: SamplingSettings | None = None,
        evaluation: SamplingSettings | None = None,
        fit_conditions: Sequence[str] = ("service_greedy",),
        conditions: Sequence[str] = CONDITIONS,
        **kwargs: Any,
    ):
        student = student or SamplingSettings()
        sources: Any = {"tasks": tasks}  # scenarios stand where other DataModules have problems
        super().__init__(**sources, group_size=group_size, student=student, evaluation=evaluation or student, **kwargs)
        check_options(mode, masks, chain_length)
        check_pay(pay)
        at_least_one(max_turns=max_turns)
        for name in (*fit_conditions, *conditions):
            if name not in CONDITIONS:
                raise ValueError(f"data.conditions has {name!r}; known are {list(CONDITIONS)}.")
        if not conditions:
            raise ValueError(f"data.conditions is empty; name some of {list(CONDITIONS)}.")
        if mode == "flat" and planner is not None:
            raise ValueError(
                "data.planner plans, but data.mode is 'flat', which has no planner; leave one of them out."
            )
        self.procedure = tasks.procedure
        self.skills = self.procedure.skills
        self.labels = SkillLabels(labels) if labels is not None else SkillLabels.letters(self.skills)
        self.labels.check_skills(self.skills)
        self.mode, self.pay = mode, pay
        self.fit_conditions, self.conditions = tuple(fit_conditions), tuple(conditions)
        self.rater, self.scoring = rater or RuleRater(), scoring or ServiceScoring()
        customer = scripted_customer if customer is None else customer
        self.others: dict[str, Party | PolicyParty] = {
            CUSTOMER: customer if isinstance(customer, Party | PolicyParty) else ScriptedParty(customer, CUSTOMER)
        }
        self.others |= {name: who for name, who in ((PLANNER, planner), (RESPONDER, responder)) if who is not None}
        speakers = (RESPONDER,) if mode == "flat" else (PLANNER, RESPONDER)
        self.trained = tuple(name for name in speakers if name not in self.others)
        if not self.trained:
            raise ValueError("Nobody is left to the policy: leave out data.planner or data.responder.")
        self._shared: dict[str, Any] = {"mode": mode, "masks": masks}
        self._shared |= {"chain_length": chain_length, "lookahead": lookahead}
        self._options: dict[str, Any] = {"labels": self.labels, "prompts": prompts, "max_turns": max_turns}
        self.max_turns = max_turns
        self._constrained: Policy | None = None

    def setup(self, stage: str) -> None:
        policy = getattr(getattr(self.trainer, "lightning_module", None), "policy_config", None)
        adapters = getattr(policy, "adapters", None)
        if adapters is not None and (missing := [name for name in self.trained if name not in adapters]):
            raise ValueError(
                f"The policy plays {list(self.trained)}, and policy.adapters names {sorted(adapters)}; name "
                f"{missing[0]!r} there, or say in data.{missing[0]} who plays it."
            )

    # -- collecting --------------------------------------------------------------------------------------------

    def episode(self, source: Any, task: int) -> RecordedDialogue:
        """A new dialogue about scenario number ``task`` of ``source``."""
        return RecordedDialogue(ServiceDialogue(source[task], **self._shared, **self._options))

    def training_world(self, task: int, index: int) -> RecordedDialogue:
        return self.episode(self.tasks, task)

    def play_training(self, planned: list[Planned]) -> Rollouts:
        return self._play(planned, "train", self.student)

    def play_held_out(self, places: Sequence[Place], condition: str) -> Rollouts:
        planned = [
            Planned(environment=self.episode(source, task), index=index, task_id=str(task), group=task)
            for source, task, index in places
        ]
        return self._play(planned, condition, self.evaluation_settings(condition))

    def constrain(self, policy: Policy) -> None:
        """Make the token constraints known to ``policy`` that dialogues ask for; once is enough."""
        if self._constrained is policy:
            return
        found = service_constraints(self.procedure, policy, self.labels, **self._shared)
        if policy.constraints is None:
            policy.constraints = ConstraintTable(found)
        else:
            for name, automaton in found.items():
                policy.constraints.add(name, automaton)
        self._constrained = policy

    def _play(self, planned: list[Planned], label: str, settings: SamplingSettings) -> Rollouts:
        module = self._module()
        self.constrain(module.policy)
        sampled = {name: PolicyParty(adapter=name, settings=settings) for name in self.trained}
        played = play(
            planned,
            {**sampled, **self.others},
            module.policy,
            seed=stream_key(self.seed, label),
            max_rows=self.max_rows,
            on_error=self.on_error,
        )
        worlds = {plan.index: plan.environment for plan in planned}
        rate_replies(
            played.episodes,
            {index: world.dialogue for index, world in worlds.items() if isinstance(world, RecordedDialogue)},
            self.rater,
        )
        rollouts = played_rollouts(
            played,
            module,
            settings,
            trained=self.trained,
            parties=PARTIES,
            label=label,
            turns=self.max_turns,
        )
        service_parts(rollouts, self.scoring)
        pay(rollouts, self.pay)
        if module.policy.rows_per == "turn":
            rollouts.extras |= skill_segments(rollouts)
        return rollouts
