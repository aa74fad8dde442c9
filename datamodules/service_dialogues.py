"""Dialogues of a service that somebody else leads, a script or the annotators, told in a policy's tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lit_rl.constraints import ConstraintTable
from lit_rl.datamodules.service_rows import RecordedDialogue, rate_replies
from lit_rl.episodes import Episode, Rollouts
from lit_rl.metrics.reply_quality import ReplyRater
from lit_rl.parties import Party, ScriptedParty
from lit_rl.policy import Policy
from lit_rl.rollout import Planned
from lit_rl.service.annotated import AnnotatedDialogue, scenario_ids
from lit_rl.service.annotated_files import read_annotated
from lit_rl.service.constraints import service_constraints
from lit_rl.service.customers import scripted_customer
from lit_rl.service.dialogue import CUSTOMER, PLANNER, RESPONDER, Masks, Mode, ServiceDialogue, check_options
from lit_rl.service.labels import SkillLabels
from lit_rl.service.prompts import ServicePrompts
from lit_rl.service.retold import Retelling, RetoldWorld
from lit_rl.service.scripts import ScriptedFlat, ScriptedPlanner, scripted_responder
from lit_rl.service.sop import Procedure
from lit_rl.service.spoken import spoken_episodes
from lit_rl.service.world import ServiceSource, ServiceWorld


class ServiceDialogues(Protocol):
    """Dialogues somebody else leads, by index, the same for every run."""

    procedure: Procedure

    def __len__(self) -> int: ...

    def world(self, index: int) -> ServiceWorld:
        """Whom dialogue ``index`` is with, not yet begun."""
        ...

    def scenario(self, index: int) -> int:
        """A number that dialogues share which can be compared."""
        ...

    def parties(self, mode: Mode) -> Mapping[str, Party]:
        """Who leads them."""
        ...


class ScriptedDialogues:
    """An expert serves scripted customers, and now and then plans at random.

    Args:
        scenarios: Whom to serve.
        random_share: Probability of a random admissible plan, at every turn: with some of them a warmed-up planner
            knows the form of plans and the rules, but leaves something to learn.
        per_scenario: Dialogues with each customer; they differ in what is random.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(self, scenarios: ServiceSource, random_share: float = 0.0, per_scenario: int = 1):
        if per_scenario < 1:
            raise ValueError(f"ScriptedDialogues.per_scenario is {per_scenario}; it must be at least 1.")
        self.scenarios, self.per_scenario, self.procedure = scenarios, per_scenario, scenarios.procedure
        self.random_share = ScriptedPlanner(random_share).random_share

    def __len__(self) -> int:
        return len(self.scenarios) * self.per_scenario

    def world(self, index: int) -> ServiceWorld:
        return self.scenarios[self.scenario(index)]

    def scenario(self, index: int) -> int:
        return index // self.per_scenario

    def parties(self, mode: Mode) -> Mapping[str, Party]:
        customer = {CUSTOMER: ScriptedParty(scripted_customer, CUSTOMER)}
        if mode == "flat":
            return customer | {RESPONDER: ScriptedParty(ScriptedFlat(self.random_share), RESPONDER)}
        return customer | {
            PLANNER: ScriptedParty(ScriptedPlanner(self.random_share), PLANNER),
            RESPONDER: ScriptedParty(scripted_responder, RESPONDER),
        }


class AnnotatedDialogues:
    """Annotated dialogues of a data set, in the layout of `lit_rl.service.annotated`.

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or the id of a data set on the hub.
        procedure: YAML file of the procedure that they are to keep.
        split: Of a hub data set.
        subset: Of a hub data set that has several.
        compare: Which dialogues can be compared: those of one "scenario" (goal, persona and seed), or of one "goal".

    Raises:
        ValueError: As `lit_rl.service.annotated_files.read_annotated`, or a dialogue that cannot be told again (see
            `lit_rl.service.retold.RetoldWorld`).
    """

    def __init__(
        self,
        path: str,
        procedure: str,
        *,
        split: str = "train",
        subset: str | None = None,
        compare: Literal["scenario", "goal"] = "scenario",
    ):
        self.procedure = Procedure.from_yaml(procedure)
        self.dialogues = read_annotated(path, skills=self.procedure.skills, split=split, subset=subset)
        self._scenarios = scenario_ids(self.dialogues, by=compare)
        for dialogue in self.dialogues:
            try:
                RetoldWorld(dialogue, self.procedure)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error

    def __len__(self) -> int:
        return len(self.dialogues)

    def __getitem__(self, index: int) -> AnnotatedDialogue:
        return self.dialogues[index]

    def world(self, index: int) -> ServiceWorld:
        return RetoldWorld(self.dialogues[index], self.procedure)

    def scenario(self, index: int) -> int:
        return self._scenarios[index]

    def parties(self, mode: Mode) -> Mapping[str, Party]:
        names = {CUSTOMER: CUSTOMER, RESPONDER: "flat"} if mode == "flat" else {p: p for p in _ALL}
        return {party: Retelling(self.dialogues, role) for party, role in names.items()}


_ALL = (PLANNER, RESPONDER, CUSTOMER)


@dataclass(frozen=True, kw_only=True)
class ServiceForm:
    """How service dialogues are worded and masked; the options of `ServiceDialogue`.

    Args:
        labels: Token of each skill; None takes the letters A, B ...
        prompts: How messages are written.
        mode: "two_level", or "flat" without a planner.
        masks: What of the tokens is constrained by the procedure.
        chain_length: Most skills of a plan.
        lookahead: Later skills of a plan may be those that its beginning leads to.
        max_turns: Turns of the service.
    """

    labels: Mapping[str, str] | None = None
    prompts: ServicePrompts | None = None
    mode: Mode = "two_level"
    masks: Masks = "hard"
    chain_length: int = 3
    lookahead: bool = True
    max_turns: int = 12

    def __post_init__(self) -> None:
        check_options(self.mode, self.masks, self.chain_length)

    @property
    def trained(self) -> tuple[str, ...]:
        """The parties that learn."""
        return (RESPONDER,) if self.mode == "flat" else (PLANNER, RESPONDER)

    def skill_labels(self, procedure: Procedure) -> SkillLabels:
        """Of a procedure's skills."""
        return SkillLabels.letters(procedure.skills) if self.labels is None else SkillLabels(self.labels)

    def dialogue(self, world: ServiceWorld) -> ServiceDialogue:
        """A dialogue with a new world."""
        return ServiceDialogue(
            world,
            labels=self.skill_labels(world.procedure),
            prompts=self.prompts,
            mode=self.mode,
            masks=self.masks,
            chain_length=self.chain_length,
            lookahead=self.lookahead,
            max_turns=self.max_turns,
        )

    def constrain(self, policy: Policy, procedure: Procedure) -> None:
        """Make the token constraints of these dialogues known to a policy.

        Raises:
            ValueError: It knows others by their names.
        """
        found = service_constraints(
            procedure,
            policy,
            self.skill_labels(procedure),
            mode=self.mode,
            masks=self.masks,
            chain_length=self.chain_length,
            lookahead=self.lookahead,
        )
        if policy.constraints is None:
            policy.constraints = ConstraintTable(found).to(policy.device)
        else:
            for name, automaton in found.items():
                policy.constraints.add(name, automaton)


class Teller:
    """Turns dialogues into rows of a policy's tokens; each is told once and kept.

    Args:
        dialogues: To be told.
        form: How.
        seed: Of what is random in them.
        rater: Who writes ``gre`` into the ``info`` of turns; None leaves replies unrated.

    Raises:
        ValueError: Labels and procedure disagree.
    """

    def __init__(self, dialogues: ServiceDialogues, form: ServiceForm, seed: int, rater: ReplyRater | None = None):
        form.skill_labels(dialogues.procedure).check_skills(dialogues.procedure.skills)
        self.dialogues, self.form, self.seed, self.rater = dialogues, form, seed, rater
        self._told: dict[int, Episode] = {}
        self._constrained: Policy | None = None

    def episodes(self, indices: Sequence[int], policy: Policy) -> list[Episode]:
        """The dialogues as if the policy had led them, with log-probs of 0.

        Raises:
            ValueError: A dialogue says what its constraint forbids, or is longer than the policy's context.
        """
        if self._constrained is not policy:
            self.form.constrain(policy, self.dialogues.procedure)
            self._constrained = policy
        missing = [index for index in dict.fromkeys(indices) if index not in self._told]
        worlds = {index: RecordedDialogue(self.form.dialogue(self.dialogues.world(index))) for index in missing}
        planned = [
            Planned(environment=world, index=index, task_id=str(index), group=self.dialogues.scenario(index))
            for index, world in worlds.items()
        ]
        found = spoken_episodes(
            planned,
            self.dialogues.parties(self.form.mode),
            policy,
            self.form.skill_labels(self.dialogues.procedure),
            trained=self.form.trained,
            seed=self.seed,
        )
        if self.rater is not None:
            rate_replies(found, {index: world.dialogue for index, world in worlds.items()}, self.rater)
        self._told |= {index: _checked(episode, policy) for index, episode in zip(missing, found, strict=True)}
        return [self._told[index] for index in indices]

    def rows(self, episodes: Sequence[Episode], module: Any, label: str) -> Rollouts:
        """A row of each episode and trained party, whose ``target_mask`` is on all that the party said.

        Nobody sampled these tokens: ``loss_mask`` is False, and ``target_weights`` are 1 on targets.
        """
        policy = module.policy
        assert policy.constraints is not None
        rollouts = Rollouts.from_episodes(
            episodes,
            trained=self.form.trained,
            parties=[*self.form.trained, CUSTOMER],
            pad_id=policy.tokenizer.pad_token_id or 0,
            policy_version=module.policy_version,
            label=label,
            constraint_offsets=policy.constraints.offsets,
        )
        rollouts.target_mask, rollouts.loss_mask = rollouts.loss_mask, rollouts.loss_mask & False
        rollouts.target_weights = rollouts.target_mask.float()
        moved: Rollouts = rollouts.to(policy.device)
        return moved


def _checked(episode: Episode, policy: Policy) -> Episode:
    for party in sorted({turn.party for turn in episode.turns if turn.completion_ids}):
        turns = episode.turns_of(party)
        length = longest = 0
        for turn in turns:
            length = (0 if turn.new_row else length) + len(turn.prompt_ids) + len(turn.completion_ids)
            longest = max(longest, length)
        if longest > policy.max_length:
            raise ValueError(
                f"Dialogue {episode.index}: the {party}'s row has {longest} tokens; the policy's rows hold "
                f"{policy.max_length}. Shorten it or raise policy.max_length."
            )
    return episode
