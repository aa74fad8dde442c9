"""Q-priming: some wrong attempts become questions, so that there is asking to learn from (arXiv 2602.16488, 4.4)."""

from dataclasses import replace

from lit_rl.environments.base import Ask, Message, Outcome, Reply
from lit_rl.environments.didactic import STUDENT, DidacticDialogue
from lit_rl.environments.leaks import BETWEEN, leaks
from lit_rl.environments.question_writers import (
    QUESTION_INSTRUCTION,
    check_question_instruction,
    question_briefing,
    question_in,
)
from lit_rl.environments.teachers import TeacherContext
from lit_rl.stream_keys import stream_key
from lit_rl.verification.attempts import Attempt

WRITER = "question_writer"
MAX_REDRAWS = 3


def question_probability(turn: int, *, decay: float = 0.75, q_index_base: int = 1) -> float:
    """How likely a wrong attempt in student turn ``turn`` (0-based) becomes a question.

    As published, ``0.75 ** t``; where t begins is our reading.

    Example:
        >>> [question_probability(turn) for turn in range(4)]
        [0.75, 0.5625, 0.421875, 0.31640625]
    """
    return float(decay ** (turn + q_index_base))


class QPrimedDialogue:
    """A `DidacticDialogue` in which some turns that are not right become questions.

    A further party, "question_writer", sees the discarded attempt and what only the teacher knows, and writes the
    question.  The teacher answers it, and the student's conversation begins anew (``Ask.restart``) as if it had asked:
    of the attempt and of what the writer saw nothing is left in the student's last row, the one to learn from.

    As published: ``0.75 ** t`` for turns without reward, whatever they were, the last one included.  Our choices: t
    counts from 1; a question must read as one for the verifier and pass the leak filter, else it is written again,
    three times at most, and then the attempt stands.

    The writer's turn holds in ``info``: ``leak``, ``attempts`` (drafts so far), ``asked`` (whether the student has now
    asked this), and the facts of the turn it became.  It is for demonstrations: rewards of such turns are the writer's.

    Args:
        dialogue: A new one.
        seed: Of which turns become questions.
        decay: The 0.75 above.
        q_index_base: What t is in the first turn, 0 or 1.
        no_question_in_last_turn: Leave the last turn alone, whose question nobody answers.
        instruction: For a model that writes, with ``{problem}``, ``{private}``, ``{conversation}``, ``{attempt}``.

    Raises:
        ValueError: An option is out of range, or the instruction lacks something.
    """

    def __init__(
        self,
        dialogue: DidacticDialogue,
        *,
        seed: int,
        decay: float = 0.75,
        q_index_base: int = 1,
        no_question_in_last_turn: bool = False,
        instruction: str = QUESTION_INSTRUCTION,
    ):
        check_priming(decay, q_index_base, instruction)
        self.dialogue, self.seed, self.decay, self.q_index_base = dialogue, seed, decay, q_index_base
        self.no_question_in_last_turn, self.instruction = no_question_in_last_turn, instruction
        self.speaker = STUDENT
        self.conversation: list[Message] = []  # the student's, as if it had asked every question itself
        self.rewritten = False  # the student's row holds an attempt that its conversation does not
        self.drafts = 0  # of the question in this turn; 0 while nobody writes one
        self.said, self.attempt = Reply(text=""), Attempt("empty")  # what is to be replaced

    def begin(self) -> Outcome:
        return self._handed_on(self.dialogue.begin())

    def act(self, reply: Reply) -> Outcome:
        if self.drafts:
            return self._written(reply)
        if self.speaker != STUDENT:
            return self._handed_on(self.dialogue.act(reply))
        if not self._drawn() or (attempt := self.dialogue.source.verify(self.dialogue.problem, reply.text)).correct:
            return self._uttered(reply)
        self.said, self.attempt = reply, attempt
        info = {"kind": attempt.kind, "answer": attempt.answer, "correct": False}
        return Outcome(ask=self._ask_writer(), info=info)

    # -- the student's turn ------------------------------------------------------------------------------------

    def _drawn(self) -> bool:
        turn = self.dialogue.turn
        if self.no_question_in_last_turn and turn + 1 == self.dialogue.max_turns:
            return False
        chance = question_probability(turn, decay=self.decay, q_index_base=self.q_index_base)
        return stream_key(self.seed, "question", turn) < chance * 2**63

    def _uttered(self, reply: Reply) -> Outcome:
        """The student's turn is this."""
        self.conversation.append(Message("assistant", reply.text, STUDENT, self.dialogue.turn))
        return self._handed_on(self.dialogue.act(reply))

    def _handed_on(self, outcome: Outcome) -> Outcome:
        """Let the dialogue go on; a student whose attempt was taken back is told its conversation anew."""
        ask = outcome.ask
        if ask is None:
            return outcome
        self.speaker = ask.party
        if ask.party != STUDENT:
            return outcome
        self.conversation = [*([] if ask.restart else self.conversation), *ask.messages]
        anew, self.rewritten = self.rewritten, False
        return replace(outcome, ask=replace(ask, messages=tuple(self.conversation), restart=True)) if anew else outcome

    # -- the writer's turn -------------------------------------------------------------------------------------

    def _ask_writer(self) -> Ask:
        self.drafts += 1
        told, turn = self.dialogue, self.dialogue.turn
        context = TeacherContext(told.problem, self.attempt, told.history, turn, self.said.text)
        briefing = Message("user", question_briefing(self.instruction, context))
        return Ask(party=WRITER, messages=(briefing,), exchange=turn, context=context, restart=True)

    def _written(self, reply: Reply) -> Outcome:
        question = question_in(reply)
        leak = question is not None and self._leaks(question)
        usable = question is not None and not leak and self._reads_as_question(question)
        info = {"leak": leak, "attempts": self.drafts, "asked": usable}
        if not usable and self.drafts <= MAX_REDRAWS:
            return Outcome(ask=self._ask_writer(), info=info)
        self.drafts = 0
        self.rewritten = self.rewritten or usable
        outcome = self._uttered(Reply(text=question) if usable and question is not None else self.said)
        return replace(outcome, rewards={}, info={**outcome.info, **info})

    def _reads_as_question(self, question: str) -> bool:
        return self.dialogue.source.verify(self.dialogue.problem, question).kind == "question"

    def _leaks(self, question: str) -> bool:
        told, public = self.dialogue, BETWEEN.join(self.dialogue.public)
        if any(leaks(question, secret, public) for secret in told.secrets):
            return True
        return told.judge is not None and told.judge(told.problem, told.problem.gold, self.said.text, question)


def check_priming(decay: float, q_index_base: int, instruction: str) -> None:
    """Raise ValueError unless these options of `QPrimedDialogue` can be used."""
    if not 0 < decay <= 1:
        raise ValueError(f"q_priming.decay is {decay}; a probability decays by a factor in (0, 1].")
    if q_index_base not in (0, 1):
        raise ValueError(f"q_priming.q_index_base is {q_index_base}; turns are counted from 0 or 1.")
    check_question_instruction(instruction)
