"""What the names of constraints in a service dialogue mean for one model's tokens (gopo.md section 3)."""

from collections.abc import Callable
from functools import cache

import torch

from lit_rl.constraints import OneOf, TokenAutomaton, TokenConstraint
from lit_rl.policy import Policy
from lit_rl.reply_constraints import ReplyConstraint
from lit_rl.service.dialogue import ANY, PLANNER, RESPONDER, Masks, Mode, check_options
from lit_rl.service.labels import SkillLabels
from lit_rl.service.sop import Procedure
from lit_rl.skill_chains import SkillChain
from lit_rl.token_pieces import TokenPieces

Mask = tuple[bool, ...]


def service_constraints(
    procedure: Procedure,
    policy: Policy,
    labels: SkillLabels,
    *,
    mode: Mode = "two_level",
    masks: Masks = "hard",
    chain_length: int = 3,
    lookahead: bool = True,
) -> dict[str, TokenAutomaton]:
    """Every token constraint that `lit_rl.service.dialogue.ServiceDialogue` asks for with the same options.

    Args:
        procedure: Of the worlds.
        policy: Whose tokens are constrained.
        labels: Of the skills.
        mode: Of the dialogue.
        masks: Of the dialogue.  Where skills are free, plans are still chains of labels.
        chain_length: Of the dialogue.
        lookahead: Of the dialogue.

    Raises:
        ValueError: Options that do not go together, a label that is not one token, an unsatisfiable reply, a prefill in
            front of labels.
    """
    check_options(mode, masks, chain_length)
    labels.check_skills(procedure.skills)
    speaker = RESPONDER if mode == "flat" else PLANNER
    if policy.chat.prefill.get(speaker):
        raise ValueError(
            f"policy.prefill opens the replies of {speaker!r} with {policy.chat.prefill[speaker]!r}; they must open "
            "with a label, so leave it out."
        )
    build = _Builder(procedure, policy, labels)
    return build.flat(masks) if mode == "flat" else build.two_level(masks, chain_length, lookahead)


class _Builder:
    def __init__(self, procedure: Procedure, policy: Policy, labels: SkillLabels):
        self.procedure, self.end_id = procedure, policy.chat.end_id
        self.prefill = policy.chat.prefill.get(RESPONDER, "")
        self.tokens = labels.token_ids(policy.tokenizer)
        self.vocabulary = policy.lm.config.get_text_config().vocab_size
        self.pieces = TokenPieces(policy.tokenizer, self.vocabulary)

    def two_level(self, masks: Masks, chain_length: int, lookahead: bool) -> dict[str, TokenAutomaton]:
        procedure = self.procedure

        @cache  # states with the same masks share one automaton
        def chain(first: Mask, later: Mask) -> SkillChain:
            return SkillChain(
                [self.tokens[skill] for skill in procedure.skills],
                admissible=first,
                later=later,
                length=chain_length,
                end_id=self.end_id,
                vocabulary=self.vocabulary,
            )

        def chain_in(state: int) -> SkillChain:
            return chain(procedure.allowed(state), procedure.ahead(state, chain_length - 1 if lookahead else 0))

        every = (True,) * len(procedure.skills)
        found = self._of_states("skills", masks, chain_in, lambda: chain(every, every))
        if masks in ("hard", "replies"):
            found |= {f"reply:{skill}": self._reply(skill) for skill in procedure.skills}
        return found

    def flat(self, masks: Masks) -> dict[str, TokenAutomaton]:
        procedure = self.procedure
        reply = cache(self._reply)

        @cache
        def one_of(skills: tuple[str, ...]) -> OneOf:
            return OneOf({self.tokens[skill]: reply(skill) for skill in skills})

        def anything() -> OneOf:
            free = TokenConstraint(
                torch.ones(1, self.vocabulary, dtype=torch.bool), torch.zeros(1, self.vocabulary, dtype=torch.int64)
            )
            return OneOf({self.tokens[skill]: free for skill in procedure.skills})

        return self._of_states("flat", masks, lambda state: one_of(procedure.admissible(state)), anything)

    def _of_states(
        self,
        kind: str,
        masks: Masks,
        automaton: Callable[[int], TokenAutomaton],
        anything: Callable[[], TokenAutomaton],
    ) -> dict[str, TokenAutomaton]:
        if masks not in ("hard", "skills"):
            return {f"{kind}:{ANY}": anything()}
        states = range(self.procedure.num_states)
        return {f"{kind}:{self.procedure.state_name(state)}": automaton(state) for state in states}

    def _reply(self, skill: str) -> ReplyConstraint:
        rule = self.procedure.replies[skill]
        try:
            return ReplyConstraint(
                self.pieces,
                required=rule.required,
                forbidden=rule.forbidden,
                max_tokens=rule.max_len,
                end_id=self.end_id,
                prefill=self.prefill,
            )
        except ValueError as error:
            raise ValueError(f"The reply of skill {skill!r} in procedure {self.procedure.id!r}: {error}") from error
