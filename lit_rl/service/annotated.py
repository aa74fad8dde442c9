"""Annotated dialogues of a service, and played dialogues as such (gopo.md section 8).

The layout of a line of a file, which `lit_rl.service.annotated_files` reads and writes, is::

    {"dialogue_id": "7", "scenario": {"goal": {}, "persona": {}, "seed": 0}, "sop_id": "toy_shop",
     "turns": [{"role": "customer", "text": "hi"}, {"role": "service", "text": "hello", "skill": "greet", ...}],
     "outcome": {"ordered": true, "satisfaction": null}}

What else a turn of the service may have is in `AnnotatedTurn`.  Three keys are our addition, for without them a
dialogue cannot be scored again: ``broken_rules`` and ``ok`` of turns, and ``milestones`` of a scenario.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from lit_rl.episodes import Episode
from lit_rl.metrics.engagement import Milestones
from lit_rl.metrics.service import ServedDialogue
from lit_rl.service.facts import scenario_facts, service_facts

Speaker = Literal["customer", "service"]
HIGHEST_GRADE = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedTurn:
    """What one side said; all but role and text is annotation of turns of the service.

    Attributes:
        role: Who spoke.
        text: What was said.
        skill: What the turn carries out; None if nobody said.
        chain: All skills planned, ``skill`` first; None if nobody planned.
        relevance: An expert's grades 0 .. 3 of skills for this turn; None without annotation.
        engagement: Of the customer after this turn, in [0, 1].
        milestones: Achieved by this turn.
        sop_state: Of the procedure, before this turn.
        broken_rules: Names of the rules this turn broke.
        ok: Whether the text carries ``skill`` out.

    Raises:
        ValueError: A field is not what it should be.
    """

    role: Speaker
    text: str
    skill: str | None = None
    chain: tuple[str, ...] | None = None
    relevance: Mapping[str, int] | None = None
    engagement: float | None = None
    milestones: tuple[str, ...] = ()
    sop_state: str | None = None
    broken_rules: tuple[str, ...] = ()
    ok: bool = True

    def __post_init__(self) -> None:
        if self.role not in get_args(Speaker) or not isinstance(self.text, str):
            raise ValueError(
                f"role is {self.role!r} and text {self.text!r}; a turn has a role of {list(get_args(Speaker))} and a "
                "text."
            )
        if self.role == "customer":
            self._check_customer()
        self._check_names()
        if self.chain and self.chain[0] != self.skill:
            raise ValueError(f"chain is {list(self.chain)} and skill {self.skill!r}; a chain begins with the skill.")
        for skill, grade in (self.relevance or {}).items():
            if grade not in range(HIGHEST_GRADE + 1):
                raise ValueError(f"relevance of {skill!r} is {grade!r}; grades are 0 .. {HIGHEST_GRADE}.")
        if self.engagement is not None and not (_is_number(self.engagement) and 0 <= self.engagement <= 1):
            raise ValueError(f"engagement is {self.engagement!r}; it must lie in [0, 1], or be null.")

    def facts(self) -> dict[str, Any]:
        """What `lit_rl.metrics.service.ServedDialogue` reads of a turn; what nobody annotated counts as nothing."""
        return {
            "skill": self.skill,
            "chain": self.chain or (() if self.skill is None else (self.skill,)),
            "relevance": self.relevance or {},
            "engagement": 0.0 if self.engagement is None else self.engagement,
            "milestones": self.milestones,
            "broken_rules": self.broken_rules,
            "ok": self.ok,
        }

    def _check_customer(self) -> None:
        annotated = [f.name for f in fields(self)[2:] if getattr(self, f.name) != f.default]
        if annotated:
            raise ValueError(f"a customer's turn has {annotated[0]!r}; annotate the turn of the service before it.")

    def _check_names(self) -> None:
        named = {"skill": self.skill, "sop_state": self.sop_state}
        for name, value in named.items():
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name} is {value!r}; it must be a text, or null.")
        for name, values in {
            "chain": self.chain,
            "milestones": self.milestones,
            "broken_rules": self.broken_rules,
        }.items():
            if not all(isinstance(value, str) for value in values or ()):
                raise ValueError(f"{name} is {list(values or ())}; it must be a list of texts.")
        if not isinstance(self.ok, bool):
            raise ValueError(f"ok is {self.ok!r}; it must be true or false.")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedDialogue:
    """One dialogue with what it was about and how it ended.

    Attributes:
        dialogue_id: For error messages.
        goal: What the customer wants.
        persona: What the customer is like.
        seed: Of the customer's noise.
        turns: In order.
        ordered: It ended in what the business wants.
        satisfaction: Of the customer, on the data set's own scale; None if nobody asked.
        sop_id: Of the procedure that was to be kept.
        milestones: By which it is scored; None if the data set has none.

    Raises:
        ValueError: A field is not what it should be.
    """

    dialogue_id: str
    goal: Mapping[str, Any]
    persona: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    turns: tuple[AnnotatedTurn, ...]
    ordered: bool
    satisfaction: int | None = None
    sop_id: str = ""
    milestones: Milestones | None = None

    def __post_init__(self) -> None:
        if not any(turn.role == "service" for turn in self.turns):
            raise ValueError("no turn of the service is among the turns; there is nothing to learn from.")
        if not isinstance(self.ordered, bool):
            raise ValueError(f"ordered is {self.ordered!r}; it must be true or false.")
        if not isinstance(self.seed, int):
            raise ValueError(f"seed is {self.seed!r}; it must be a whole number.")
        known = None if self.milestones is None else self.milestones.weights
        for name in (name for turn in self.turns for name in turn.milestones):
            if known is not None and name not in known:
                raise ValueError(f"a turn has the milestone {name!r}; the scenario has {sorted(known)}.")

    def served(self) -> ServedDialogue:
        """The dialogue as `lit_rl.metrics.service` scores it.

        Raises:
            ValueError: It has no milestones.
        """
        if self.milestones is None:
            raise ValueError(
                f"Dialogue {self.dialogue_id} has no milestones, so nothing says what it is worth; give its scenario "
                "'milestones'."
            )
        turns = [turn.facts() for turn in self.turns if turn.role == "service"]
        return ServedDialogue(turns=turns, milestones=self.milestones, ordered=self.ordered)

    def as_row(self) -> dict[str, Any]:
        """The line of a file, in the layout above."""
        scenario = {"goal": self.goal, "persona": self.persona, "seed": self.seed}
        if self.milestones is not None:
            scenario["milestones"] = asdict(self.milestones)
        return {
            "dialogue_id": self.dialogue_id,
            "scenario": scenario,
            "turns": [asdict(turn) for turn in self.turns],
            "outcome": {"ordered": self.ordered, "satisfaction": self.satisfaction},
            "sop_id": self.sop_id,
        }


def scenario_ids(dialogues: Sequence[AnnotatedDialogue], *, by: Literal["scenario", "goal"] = "scenario") -> list[int]:
    """A number for each dialogue, equal where two can be compared.

    Args:
        dialogues: Of one data set.
        by: "scenario" wants the same goal, persona and seed, "goal" only the same goal.

    Raises:
        ValueError: ``by`` is neither.
    """
    if by not in ("scenario", "goal"):
        raise ValueError(f"scenario_ids: by is {by!r}; use 'scenario' or 'goal'.")
    numbers: dict[str, int] = {}
    facts = [[d.goal] if by == "goal" else [d.goal, d.persona, d.seed] for d in dialogues]
    return [numbers.setdefault(json.dumps(fact, sort_keys=True), len(numbers)) for fact in facts]


def played_dialogue(episode: Episode, *, sop_id: str = "") -> AnnotatedDialogue:
    """A played dialogue as a record.

    An exchange whose plan named no skill has a turn of the service without text; one that was cut off has none.  In the
    flat mode the label of the skill is part of the text.

    Args:
        episode: Of `lit_rl.service.dialogue.ServiceDialogue`.
        sop_id: Of its procedure.

    Raises:
        ValueError: The episode is no such dialogue.
    """
    scenario, closed = scenario_facts(episode), service_facts(episode)
    said = {(turn.party, turn.exchange): turn.text for turn in episode.turns}
    turns = []
    for exchange, facts in enumerate(closed):
        turns.append(AnnotatedTurn(role="customer", text=said["customer", exchange]))
        turns.append(
            AnnotatedTurn(
                role="service",
                text=said.get(("responder", exchange), ""),
                skill=facts.skill,
                chain=tuple(facts.chain),
                relevance=dict(facts.relevance),
                engagement=facts.engagement,
                milestones=tuple(facts.milestones),
                sop_state=facts.sop_state,
                broken_rules=tuple(facts.broken_rules),
                ok=facts.ok,
            )
        )
    return AnnotatedDialogue(
        dialogue_id=str(episode.index),
        goal=scenario.scenario["goal"],
        persona=scenario.scenario["persona"],
        seed=scenario.scenario["seed"],
        turns=tuple(turns),
        ordered=bool(closed) and closed[-1].success,
        sop_id=sop_id,
        milestones=scenario.milestones,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
