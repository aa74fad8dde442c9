"""A customer, a planner who chooses skills, and a responder who words them (GOPO, arXiv 2602.15854)."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from lit_rl.environments.base import Ask, Message, Outcome, Reply
from lit_rl.service.facts import ScenarioFacts, ServiceFacts
from lit_rl.service.labels import SkillLabels
from lit_rl.service.prompts import ServicePrompts
from lit_rl.service.scripts import ServiceContext
from lit_rl.service.world import CustomerCue, ServiceStep, ServiceWorld

PLANNER, RESPONDER, CUSTOMER = "planner", "responder", "customer"
Mode = Literal["two_level", "flat"]
Masks = Literal["hard", "skills", "replies", "none"]
ANY = "any"  # in place of a state: every skill may be said


class ServiceDialogue:
    """One dialogue: the customer speaks, the planner plans, the responder replies, until it is over.

    As published: the planner chooses skills from a pool defined by hand, the responder follows its choice, and the
    choice becomes hard constraints.  Our reading, where the paper could not be read: all wording, that the first skill
    of a plan is carried out, and that a skill counts as done in the procedure once it had an effect.

    Everybody has a conversation of their own.  Nobody is paid: what a dialogue is worth is made of the facts in its
    turns (see `lit_rl.service.facts`).  The planner's ``info`` holds ``skill``, ``chain``, ``sop_state``,
    ``broken_rules`` and ``relevance``; the turn that closes an exchange holds all of `ServiceFacts`, the customer's
    first turn `ScenarioFacts`.  A plan that opens with no label is a turn without effect, at engagement 0.

    Token constraints are asked for by name: ``skills:STATE`` or ``skills:any`` of the planner, ``reply:SKILL`` of the
    responder, ``flat:STATE`` or ``flat:any`` of a flat one; what they mean for a model's tokens is built by
    `lit_rl.service.constraints.service_constraints`.

    Args:
        world: A new one.
        labels: Of the procedure's skills.
        prompts: How messages are written; None takes the full style.
        mode: "two_level", or "flat": the responder alone says a label and its reply in one turn, without a planner.
        masks: What is constrained to the procedure: "hard" everything, "skills" or "replies" one of them, or "none".
        chain_length: Most skills of a plan.
        lookahead: The skills behind a plan's first, which are not carried out now, may be any that some admissible
            beginning leads to within the plan; else only those that are admissible now.
        max_turns: Turns of the service.

    Raises:
        ValueError: An option is unknown or out of range, or labels and procedure disagree.
    """

    def __init__(
        self,
        world: ServiceWorld,
        *,
        labels: SkillLabels,
        prompts: ServicePrompts | None = None,
        mode: Mode = "two_level",
        masks: Masks = "hard",
        chain_length: int = 3,
        lookahead: bool = True,
        max_turns: int = 12,
    ):
        check_options(mode, masks, chain_length)
        if max_turns < 1:
            raise ValueError(f"ServiceDialogue.max_turns is {max_turns}; it must be at least 1.")
        labels.check_skills(world.procedure.skills)
        self.world, self.labels, self.prompts = world, labels, prompts or ServicePrompts()
        self.procedure = world.procedure
        self.mode, self.masks, self.chain_length = mode, masks, chain_length
        self.lookahead, self.max_turns = lookahead, max_turns
        self.turn = 0  # turns of the service that were closed
        self.state = 0  # of the procedure
        self.speaker = CUSTOMER
        self.cue = world.opening
        self.chain: tuple[str, ...] = ()
        self.last_reply = ""
        self.unheard: list[str] = []  # the customer's lines that the responder has not read
        self.briefed: set[str] = set()

    def begin(self) -> Outcome:
        return Outcome(ask=self._ask_customer())

    def act(self, reply: Reply) -> Outcome:
        if self.speaker == CUSTOMER:
            return self._customer_spoke(reply)
        if self.speaker == PLANNER:
            return self._planned(reply)
        return self._flat_replied(reply) if self.mode == "flat" else self._closed(reply.text, self._faults(reply))

    # -- the customer ------------------------------------------------------------------------------------------

    def _ask_customer(self) -> Ask:
        """Facts for a script, and for a model what to say."""
        self.speaker = CUSTOMER
        message = Message("user", self.prompts.to_customer(self.last_reply, self.cue))
        briefing = self._once(CUSTOMER, self.prompts.customer_briefing())
        return Ask(party=CUSTOMER, messages=(*briefing, message), exchange=self.turn, context=self.cue)

    def _customer_spoke(self, reply: Reply) -> Outcome:
        line = reply.text.strip() or self.cue.lines[0]  # a model that says nothing is heard as it was told to speak
        self.unheard.append(line)
        milestones = self.world.milestones
        facts = ScenarioFacts(
            scenario=dict(self.world.scenario),
            milestone_weights=dict(milestones.weights),
            expert_turns=dict(milestones.expert_turns),
        )
        info = facts.as_info() if self.turn == 0 else {}
        ask = self._ask_responder(None) if self.mode == "flat" else self._ask_planner(line)
        return Outcome(ask=ask, info={**info, "event": self.cue.event})

    # -- the service -------------------------------------------------------------------------------------------

    def _ask_planner(self, line: str) -> Ask:
        self.speaker = PLANNER
        message = Message("user", self.prompts.to_planner(self.last_reply, line, self._done()), CUSTOMER, self.turn)
        briefing = self.prompts.planner_briefing(self.procedure, self.labels, self.chain_length)
        return Ask(
            party=PLANNER,
            messages=(*self._once(PLANNER, briefing), message),
            exchange=self.turn,
            context=self._context(None),
            constraint=f"skills:{self._masked_state()}",
            max_tokens=self.chain_length + 1,
        )

    def _planned(self, reply: Reply) -> Outcome:
        self.chain = self.labels.read_chain(reply.text, self.chain_length)
        if not self.chain:
            return self._closed("", ())
        return Outcome(ask=self._ask_responder(self.chain[0]), info=self._plan_facts())

    def _ask_responder(self, skill: str | None) -> Ask:
        """With a skill to carry out, or in flat mode without."""
        self.speaker = RESPONDER
        lines, self.unheard = self.unheard, []
        if skill is None:
            text, briefing = self.prompts.to_flat(lines, self._done()), self._flat_briefing()
            constraint: str | None = f"flat:{self._masked_state()}"
            room = max(rule.max_len for rule in self.procedure.replies.values()) + 2  # the label and the end of turn
        else:
            rule = self.procedure.replies[skill]
            text = self.prompts.to_responder(lines, skill, self.labels[skill], rule.in_words())
            briefing = self.prompts.responder_briefing()
            constraint = f"reply:{skill}" if self.masks in ("hard", "replies") else None
            room = rule.max_len + 1
        return Ask(
            party=RESPONDER,
            messages=(*self._once(RESPONDER, briefing), Message("user", text, CUSTOMER, self.turn)),
            exchange=self.turn,
            context=self._context(skill),
            constraint=constraint,
            max_tokens=room,
        )

    def _flat_replied(self, reply: Reply) -> Outcome:
        skill, rest = self.labels.read_first(reply.text)
        self.chain = () if skill is None else (skill,)
        if skill is None:
            return self._closed(rest, ())
        said = Reply(text=rest, stop_reason=reply.stop_reason, token_ids=reply.token_ids)
        return self._closed(rest, self._faults(said))

    def _faults(self, reply: Reply) -> tuple[str, ...]:
        return self.procedure.replies[self.chain[0]].faults(reply)

    # -- an exchange is over -----------------------------------------------------------------------------------

    def _closed(self, text: str, faults: Sequence[str]) -> Outcome:
        plan = self._plan_facts()
        skill, ok = plan["skill"], bool(self.chain) and not faults
        step = self.world.step(skill, text, ok)
        self.turn += 1
        late = step.ended is None and self.turn == self.max_turns
        facts = ServiceFacts(
            **plan,
            turn=self.turn,
            ok=ok,
            faults=list(faults),
            effect=step.effect,
            engagement=step.engagement,
            milestones=list(step.milestones),
            ended="max_turns" if late else step.ended,
            success=step.success,
            event=None if step.cue is None else step.cue.event,
            world=dict(step.facts),
        )
        if skill is not None and step.effect:
            self.state = self.procedure.next(self.state, skill)
        self.last_reply, self.chain = text, ()
        return self._after(step, facts, late)

    def _after(self, step: ServiceStep, facts: ServiceFacts, late: bool) -> Outcome:
        if facts.ended is not None:
            return Outcome(info=facts.as_info(), stop_reason=facts.ended, terminated=not late, truncated=late)
        assert isinstance(step.cue, CustomerCue)
        self.cue = step.cue
        return Outcome(ask=self._ask_customer(), info=facts.as_info())

    def _plan_facts(self) -> dict[str, Any]:
        skill = self.chain[0] if self.chain else None
        return {
            "skill": skill,
            "chain": list(self.chain),
            "sop_state": self.procedure.state_name(self.state),
            "broken_rules": [] if skill is None else list(self.procedure.broken_rules(self.state, skill)),
            "relevance": dict(self.world.relevance()),
        }

    # -- small things ------------------------------------------------------------------------------------------

    def _context(self, skill: str | None) -> ServiceContext:
        references = {name: self.world.reference(name) for name in self.procedure.skills}
        return ServiceContext(
            labels=self.labels,
            chain_length=self.chain_length,
            admissible=self.procedure.admissible(self.state),
            later=self._later(),
            relevance=self.world.relevance(),
            references={name: text for name, text in references.items() if text is not None},
            skill=skill,
        )

    def _masked_state(self) -> str:
        return self.procedure.state_name(self.state) if self.masks in ("hard", "skills") else ANY

    def _later(self) -> tuple[str, ...]:
        """The skills that may stand behind the first of a plan."""
        if self.masks not in ("hard", "skills"):
            return self.procedure.skills
        mask = self.procedure.ahead(self.state, self.chain_length - 1 if self.lookahead else 0)
        return tuple(skill for skill, may in zip(self.procedure.skills, mask, strict=True) if may)

    def _done(self) -> list[str]:
        return [self.labels[skill] for skill in self.procedure.done(self.state)]

    def _flat_briefing(self) -> tuple[Message, ...]:
        return self.prompts.flat_briefing(self.procedure, self.labels)

    def _once(self, party: str, briefing: tuple[Message, ...]) -> tuple[Message, ...]:
        """The briefing, the first time a party is asked."""
        if party in self.briefed:
            return ()
        self.briefed.add(party)
        return briefing


def check_options(mode: str, masks: str, chain_length: int) -> None:
    """Raise ValueError unless these are options of `ServiceDialogue` that go together."""
    for name, value, known in (("mode", mode, get_args(Mode)), ("masks", masks, get_args(Masks))):
        if value not in known:
            raise ValueError(f"ServiceDialogue.{name} is {value!r}; it must be one of {list(known)}.")
    if mode == "flat" and masks not in ("hard", "none"):
        raise ValueError(f"ServiceDialogue.masks is {masks!r}; a flat policy says both in one turn: 'hard' or 'none'.")
    if chain_length < 1:
        raise ValueError(f"ServiceDialogue.chain_length is {chain_length}; a plan has at least 1 skill.")
