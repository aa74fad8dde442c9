"""Annotated dialogues told again: as a world and as parties, so that a model's tokens can be made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from lit_rl.environments.base import Reply
from lit_rl.metrics.engagement import Milestones
from lit_rl.parties import Call
from lit_rl.service.annotated import AnnotatedDialogue, AnnotatedTurn
from lit_rl.service.scripts import ScriptedPlanner, ServiceContext
from lit_rl.service.sop import Procedure
from lit_rl.service.world import CustomerCue, ServiceStep

OUTCOME = "order"  # the milestone of dialogues that have none


class RetoldWorld:
    """An annotated dialogue as a `ServiceWorld <lit_rl.service.world.ServiceWorld>`: its customer says what was said.

    A dialogue without milestones has one, ``order``, which is in time whenever it is achieved: at the end of a dialogue
    that was ordered in.  A skill had an effect if the procedure's state after the turn says so; where no state is
    annotated, if the reply carried the skill out.

    Args:
        dialogue: Customer and service take turns in it, and every turn of the service has a skill.
        procedure: With all its skills.

    Raises:
        ValueError: The dialogue is none of that, or has a state or a skill that the procedure does not know.
    """

    def __init__(self, dialogue: AnnotatedDialogue, procedure: Procedure):
        self.dialogue, self.procedure = dialogue, procedure
        self.lines, self.turns = _sides(dialogue, procedure)
        self.milestones = dialogue.milestones or Milestones(
            weights={OUTCOME: 1.0}, expert_turns={OUTCOME: len(self.turns)}
        )
        self.scenario: Mapping[str, Any] = {
            "goal": dict(dialogue.goal),
            "persona": dict(dialogue.persona),
            "seed": dialogue.seed,
        }
        self.opening = CustomerCue(event="told", lines=(self.lines[0],))
        self.place = 0  # of the turn of the service that is due

    def relevance(self) -> Mapping[str, int]:
        return self.turns[self.place].relevance or {}

    def reference(self, skill: str) -> str | None:
        turn = self.turns[self.place]
        return turn.text if skill == turn.skill else None

    def step(self, skill: str | None, reply: str, ok: bool) -> ServiceStep:
        turn = self.turns[self.place]
        following = self.turns[self.place + 1] if self.place + 1 < len(self.turns) else None
        if following is not None:
            self.place += 1
        return ServiceStep(
            engagement=turn.engagement or 0.0,
            effect=self._had_effect(turn, following),
            milestones=self._achieved(turn, following is None),
            ended="told" if following is None else None,
            success=following is None and self.dialogue.ordered,
            cue=None if following is None else CustomerCue(event="told", lines=(self.lines[self.place],)),
        )

    def _achieved(self, turn: AnnotatedTurn, last: bool) -> tuple[str, ...]:
        if self.dialogue.milestones is not None:
            return turn.milestones
        return (OUTCOME,) if last and self.dialogue.ordered else ()

    def _had_effect(self, turn: AnnotatedTurn, following: AnnotatedTurn | None) -> bool:
        if turn.sop_state is None or following is None or following.sop_state is None:
            return turn.ok
        assert turn.skill is not None
        done = self.procedure.next(self.procedure.state_number(turn.sop_state), turn.skill)
        return self.procedure.state_number(following.sop_state) == done


class Retelling:
    """The party that says again what was said in dialogues: customer, planner and responder alike.

    A plan is the chain as annotated, or where there is none the skill and those of the turns after it.  As a model's
    plan has every skill it may have, others follow in the order of the pool.

    Args:
        dialogues: By the index of the episode.
        party: "customer", "planner" or "responder"; "flat" is a responder who says the label too.
    """

    def __init__(self, dialogues: Sequence[AnnotatedDialogue], party: str):
        self.dialogues, self.party = dialogues, party

    def reply(self, calls: Sequence[Call]) -> list[Reply]:
        return [Reply(text=self._text(call)) for call in calls]

    def _text(self, call: Call) -> str:
        turns = self.dialogues[call.episode].turns
        place = 2 * call.exchange
        if self.party == "customer":
            return turns[place].text
        said = turns[place + 1]
        if self.party == "responder":
            return said.text
        skill = said.skill
        assert skill is not None
        if self.party == "flat":
            return f"{call.context.labels[skill]} {said.text}"
        wanted = said.chain or [turn.skill for turn in turns[place + 1 :: 2] if turn.skill is not None]
        return _plan(call.context, wanted)


def _plan(context: ServiceContext, wanted: Sequence[str]) -> str:
    """A whole plan that begins with ``wanted``, whatever may stand first here: who breaks a rule is to be seen."""
    grades = {skill: len(wanted) - place for place, skill in reversed(list(enumerate(wanted)))}
    first = {wanted[0]: None, **dict.fromkeys(context.admissible)}
    told = replace(context, relevance=grades, admissible=tuple(first))
    return context.labels.write(ScriptedPlanner().chain(told, Random(0)))


def _sides(dialogue: AnnotatedDialogue, procedure: Procedure) -> tuple[list[str], list[AnnotatedTurn]]:
    """What the customer said, and the service's turns; one more of either at most is left over at the end."""
    where = f"Dialogue {dialogue.dialogue_id}"
    lines, turns = dialogue.turns[::2], dialogue.turns[1::2]
    roles = [{turn.role for turn in side} for side in (lines, turns)]
    if roles != [{"customer"}, {"service"}]:
        raise ValueError(
            f"{where} has the roles {[turn.role for turn in dialogue.turns]}; customer and service must take turns, "
            "the customer first: join what one of them said in a row."
        )
    for number, turn in enumerate(turns, start=1):
        named = [turn.skill, *(turn.chain or ())]
        if unknown := [skill for skill in named if skill not in procedure.skills]:
            raise ValueError(
                f"{where}, turn {number} of the service: the skill {unknown[0]!r} is not one of procedure "
                f"{procedure.id!r}, {list(procedure.skills)}."
            )
        if turn.sop_state is not None:
            try:
                procedure.state_number(turn.sop_state)
            except ValueError as error:
                raise ValueError(f"{where}, turn {number} of the service: {error}") from error
    return [turn.text for turn in lines], list(turns)
