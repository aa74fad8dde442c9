"""Scripts for planner and responder: experts to begin from, and behaviour to learn preferences from."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from lit_rl.service.labels import SkillLabels


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceContext:
    """What a script that plans or replies is told: facts that a model has to find out.

    Attributes:
        labels: Of the skills.
        chain_length: Most skills of a plan.
        admissible: Skills that break no rule now.
        later: Skills that may stand behind the first of a plan.
        relevance: Grades of an expert for this turn.
        references: A right reply to each skill, where one is known.
        skill: The one to be carried out; None where it is yet to be chosen.
    """

    labels: SkillLabels
    chain_length: int
    admissible: tuple[str, ...]
    later: tuple[str, ...]
    relevance: Mapping[str, int]
    references: Mapping[str, str]
    skill: str | None = None


class ScriptedPlanner:
    """Plans as an expert does, and now and then at random; for `lit_rl.parties.ScriptedParty`.

    Args:
        random_share: Probability of a plan of random admissible skills, in [0, 1].

    Raises:
        ValueError: ``random_share`` is out of range.
    """

    def __init__(self, random_share: float = 0.0):
        if not 0 <= random_share <= 1:
            raise ValueError(f"ScriptedPlanner.random_share is {random_share}; it is a probability.")
        self.random_share = random_share

    def __call__(self, context: ServiceContext, key: int) -> str:
        return context.labels.write(self.chain(context, Random(key)))

    def chain(self, context: ServiceContext, rng: Random) -> list[str]:
        """The plan itself: the skills that an expert grades above 0, best first, and then others, or all at random.

        It has every skill that it may have, up to ``chain_length``, as a model's plan does under its constraint.
        Without annotation every plan is random.
        """
        wanted = sorted(context.relevance, key=lambda skill: -context.relevance[skill])
        wanted = [skill for skill in wanted if context.relevance[skill] > 0]
        if rng.random() < self.random_share or not wanted:
            wanted = [*context.admissible, *context.later]
            rng.shuffle(wanted)
        first = next(skill for skill in (*wanted, *context.admissible) if skill in context.admissible)
        rest = [skill for skill in (*wanted, *context.later) if skill in context.later and skill != first]
        return [first, *dict.fromkeys(rest)][: context.chain_length]


def scripted_responder(context: ServiceContext, key: int) -> str:
    """The reference reply to the skill that was chosen; for `lit_rl.parties.ScriptedParty`.

    Raises:
        ValueError: The world knows no right reply.
    """
    if context.skill is None or context.skill not in context.references:
        raise ValueError(f"there is no reference reply to skill {context.skill!r}")
    return context.references[context.skill]


class ScriptedFlat(ScriptedPlanner):
    """The same without levels: the label of the skill and its reference reply in one turn."""

    def __call__(self, context: ServiceContext, key: int) -> str:
        skill = self.chain(context, Random(key))[0]
        if skill not in context.references:
            raise ValueError(f"there is no reference reply to skill {skill!r}")
        return f"{context.labels[skill]} {context.references[skill]}"
