"""A student without a teacher: it criticises its own attempts and tries again (arXiv 2602.16066, section 4)."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from lit_rl.environments.base import Ask, Message, Outcome, Reply
from lit_rl.environments.didactic import MAX_EMPTY, STUDENT
from lit_rl.environments.problems import Attempt, Problem, TaskSource
from lit_rl.environments.teacher_words import STUDENT_INSTRUCTION
from lit_rl.environments.teachers import TeacherContext

StoppingRule = Literal["oracle", "none", "self"]


class SelfCorrection:
    """Attempt, critique of it, next attempt, until a stopping rule or the last attempt.

    The critique is sampled in the student's own row, under the header its teacher would have had.  Nothing but the
    problem, the attempts and the critiques enters anybody's context: no privileged text, no word of a verifier.

    As published: the model criticises its own attempts and revises them.  Our reading: the stopping rules.  "oracle"
    ends at the first correct attempt, which tells the student something nobody would in the field; "none" goes on to
    the last attempt, "self" until a critique is the message of acceptance.  With one seed the three say the same up to
    where they part, because nobody hears what the rule is.

    Each attempt's ``info`` holds ``kind``, ``answer``, ``correct`` and, unless the rule is "oracle", ``blind``; each
    critique's ``critique`` and, where there is a message of acceptance, ``accepts``.

    Args:
        problem: What is to be solved.
        source: Verifies attempts, for the record and for "oracle".
        max_turns: Attempts.
        stop: The stopping rule.
        critic: Who criticises: "student" in its own row, or another party, which has a conversation of its own, reads
            the problem and the attempts, and speaks under the header of "user".
        critiques: Given ones instead: what the student hears after its first, second, ... attempt; after more
            attempts than there are critiques it hears the last again.
        accept_message: The critique that accepts an attempt.
        max_critique_tokens: Longest critique; a longer one is cut and ended.  None takes the party's own limit.
        student_instruction: As in `lit_rl.environments.DidacticDialogue`.

    Raises:
        ValueError: An option is unknown or out of range, or "self" has no message to stop at.
    """

    def __init__(
        self,
        problem: Problem,
        source: TaskSource,
        *,
        max_turns: int = 4,
        stop: StoppingRule = "none",
        critic: str = STUDENT,
        critiques: Sequence[str] | None = None,
        accept_message: str | None = None,
        max_critique_tokens: int | None = None,
        student_instruction: str | None = None,
    ):
        if stop not in get_args(StoppingRule):
            raise ValueError(f"SelfCorrection.stop is {stop!r}; it must be one of {list(get_args(StoppingRule))}.")
        for name, value in (("max_turns", max_turns), ("max_critique_tokens", max_critique_tokens)):
            if value is not None and value < 1:
                raise ValueError(f"SelfCorrection.{name} is {value}; it must be at least 1.")
        if stop == "self" and accept_message is None:
            raise ValueError("SelfCorrection.stop is 'self', which needs an accept_message to stop at.")
        if critiques is not None and not critiques:
            raise ValueError("SelfCorrection.critiques is empty; give at least one, or None to have them predicted.")
        if student_instruction is None and getattr(source, "answer_format", None) == "boxed":
            student_instruction = STUDENT_INSTRUCTION
        opening = f"{student_instruction}\n\n{problem.prompt}" if student_instruction else problem.prompt
        self.problem, self.source, self.max_turns, self.stop = problem, source, max_turns, stop
        self.critic, self.critiques, self.accept_message = critic, critiques, accept_message
        self.max_critique_tokens = max_critique_tokens
        self.opening = (Message("user", opening),)

        self.turn = 0  # attempts made
        self.empty_turns = 0  # in a row
        self.solved = self.criticising = False
        self.attempt, self.utterance = Attempt("empty"), ""
        self.history: tuple[tuple[str, str], ...] = ()

    def begin(self) -> Outcome:
        return Outcome(ask=Ask(party=STUDENT, messages=self.opening, exchange=0))

    def act(self, reply: Reply) -> Outcome:
        return self._criticised(reply.text) if self.criticising else self._attempted(reply.text)

    def _attempted(self, utterance: str) -> Outcome:
        self.attempt = attempt = self.source.verify(self.problem, utterance)
        self.utterance = utterance
        info: dict[str, Any] = {"kind": attempt.kind, "answer": attempt.answer, "correct": attempt.correct}
        if self.stop != "oracle":
            info["blind"] = True
        rewards = {STUDENT: 1.0} if attempt.correct and not self.solved else {}
        self.solved = self.solved or attempt.correct
        if attempt.correct and self.stop == "oracle":
            return Outcome(rewards=rewards, info=info, stop_reason="solved", terminated=True)
        self.turn += 1
        self.empty_turns = self.empty_turns + 1 if attempt.kind == "empty" else 0
        if self.empty_turns == MAX_EMPTY or self.turn == self.max_turns:
            reason = "max_turns" if self.turn == self.max_turns else "empty"
            return Outcome(rewards=rewards, info=info, stop_reason=reason, truncated=True)
        return Outcome(ask=self._ask_critic(), rewards=rewards, info=info)

    def _ask_critic(self) -> Ask:
        exchange = self.turn - 1
        if self.critiques is not None:
            given = self.critiques[min(exchange, len(self.critiques) - 1)]
            return Ask(party=STUDENT, messages=(Message("user", given),), exchange=self.turn)
        self.criticising = True
        messages: tuple[Message, ...] = ()
        context = None
        if self.critic != STUDENT:
            messages = (Message("assistant", self.utterance, STUDENT, exchange),)
            messages = messages if self.history else self.opening + messages
            context = TeacherContext(self.problem, self.attempt, self.history, exchange, self.utterance)
        return Ask(
            party=self.critic,
            messages=messages,
            exchange=exchange,
            context=context,
            max_tokens=self.max_critique_tokens,
            role="user",
        )

    def _criticised(self, critique: str) -> Outcome:
        self.criticising = False
        self.history += ((self.utterance, critique),)
        info: dict[str, Any] = {"critique": True}
        if self.accept_message is not None:
            info["accepts"] = critique.split() == self.accept_message.split()
        if self.stop == "self" and info["accepts"]:
            return Outcome(info=info, stop_reason="accepted", terminated=True)
        # In its own row the student has the critique already.
        messages = () if self.critic == STUDENT else (Message("user", critique),)
        return Outcome(ask=Ask(party=STUDENT, messages=messages, exchange=self.turn), info=info)


class FalseCriticism:
    """A didactic dialogue whose solving attempt is called wrong: does the student give the right answer up?

    For evaluation only.  Everything up to the solving attempt is the dialogue's own; then the student hears false
    criticism and speaks once more.  That turn's ``info`` holds ``held``: whether its answer is still right.

    Args:
        dialogue: A `lit_rl.environments.DidacticDialogue`.
        criticism: What it hears.
    """

    def __init__(self, dialogue: Any, criticism: str):
        self.dialogue, self.criticism = dialogue, criticism
        self.solved_at: int | None = None

    def begin(self) -> Outcome:
        outcome: Outcome = self.dialogue.begin()
        return outcome

    def act(self, reply: Reply) -> Outcome:
        if self.solved_at is not None:
            held = self.dialogue.source.verify(self.dialogue.problem, reply.text).correct
            return Outcome(info={"held": held}, stop_reason="solved", terminated=True)
        outcome: Outcome = self.dialogue.act(reply)
        if outcome.stop_reason != "solved":
            return outcome
        self.solved_at = self.dialogue.turn
        message = Message("user", self.criticism, None, self.solved_at)
        ask = Ask(party=STUDENT, messages=(message,), exchange=self.solved_at)
        return Outcome(ask=ask, rewards=outcome.rewards, info=outcome.info)
