"""The facts of a served dialogue, as its turns carry them in ``info`` and as data modules and metrics read them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lit_rl.episodes import Episode
from lit_rl.metrics.engagement import Milestones
from lit_rl.metrics.service import ServedDialogue


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenarioFacts:
    """In ``info`` of the customer's first turn: what is hidden, and what the dialogue is measured by."""

    scenario: Mapping[str, Any]  # goal, persona, seed
    milestone_weights: Mapping[str, float]
    expert_turns: Mapping[str, int]  # counted from 1

    def as_info(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def milestones(self) -> Milestones:
        return Milestones(weights=self.milestone_weights, expert_turns=self.expert_turns)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceFacts:
    """In ``info`` of the turn that closes an exchange: the responder's, or the planner's if it named no skill."""

    turn: int  # of the service, from 1
    skill: str | None  # executed; None if the plan named none
    chain: Sequence[str]  # all skills planned, the executed one first
    sop_state: str  # of the procedure, before the turn
    broken_rules: Sequence[str]  # names of the rules that the skill broke
    relevance: Mapping[str, int]  # grades of an expert for this turn; {} without annotation
    ok: bool  # the reply kept to its constraint
    faults: Sequence[str]  # what was wrong with it
    effect: bool  # the skill did what it is for
    engagement: float  # of the customer, in [0, 1]
    milestones: Sequence[str]  # achieved by this turn
    ended: str | None  # why the dialogue is over after this turn
    success: bool  # it ended in what the business wants
    event: str | None  # what the customer says next is about
    world: Mapping[str, Any] = field(default_factory=dict)  # ToyShop: item (named), patience (left)

    def as_info(self) -> dict[str, Any]:
        """Plain types only."""
        info = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in info.items()}


_NAMES = {f.name for f in fields(ServiceFacts)}


def service_facts(episode: Episode) -> list[ServiceFacts]:
    """The facts of each exchange that was closed, in order."""
    found = [turn.info for turn in episode.turns if "engagement" in turn.info]
    return [ServiceFacts(**{name: value for name, value in info.items() if name in _NAMES}) for info in found]


def scenario_facts(episode: Episode) -> ScenarioFacts:
    """What the dialogue is about.

    Raises:
        ValueError: The episode is not one of `lit_rl.service.dialogue.ServiceDialogue`.
    """
    info = episode.turns[0].info if episode.turns else {}
    if "expert_turns" not in info:
        raise ValueError(f"Task {episode.task_id}: episode {episode.index} does not begin with a customer's scenario.")
    return ScenarioFacts(**{f.name: info[f.name] for f in fields(ScenarioFacts)})


def served(episode: Episode) -> ServedDialogue:
    """The dialogue as `lit_rl.metrics.service` scores it.

    One that was cut off (the context was full, say) has the turns it came to.
    """
    facts = service_facts(episode)
    return ServedDialogue(
        turns=[each.as_info() for each in facts],
        milestones=scenario_facts(episode).milestones,
        ordered=bool(facts) and facts[-1].success,
    )
