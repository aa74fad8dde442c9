"""A student, a problem, and a teacher who knows the answer (arXiv 2602.16488, section 4)."""

from collections.abc import Callable, Mapping
from typing import Any

from lit_rl.environments.base import Ask, Message, Outcome, Reply
from lit_rl.environments.leaks import BETWEEN, leaks
from lit_rl.environments.problems import Attempt, Problem, TaskSource
from lit_rl.environments.teacher_words import (
    RETRY,
    STUDENT_INSTRUCTION,
    TEACHER_INSTRUCTION,
    check_instruction,
    fallback,
    forwarded,
    in_block,
    teacher_briefing,
    with_detail,
)
from lit_rl.environments.teachers import TeacherContext

STUDENT, TEACHER = "student", "teacher"
FEEDBACK = ("teacher", "retry", "shuffled", "resample")
ON_LEAK = ("resample", "flag", "drop")
MAX_REDRAWS = 3
MAX_EMPTY = 2

LeakJudge = Callable[[Problem, str, str, str], bool]


class DidacticDialogue:
    r"""One dialogue: the student attempts or asks, the teacher helps, until an attempt is right or turns run out.

    As published: the teacher has private knowledge, the student does not; reward 1 for the right answer, which ends
    the dialogue.  Our reading, where the paper is silent: all wording, the leak filter, no feedback after the last
    turn, and the penalties, which are 0 by default.

    Each student turn's ``info`` holds ``kind``, ``answer``, ``correct`` and, where the source has a method
    ``incomplete(problem, heard)``, its result: whether there was still something to be told.  Each teacher turn's holds
    ``leak``, ``attempts`` (how many drafts this exchange has seen), ``heard`` (whether the student heard these words
    and not a later draft or a fixed message) and, with ``on_leak="drop"``, ``drop`` where the answer leaked.

    Args:
        problem: What is to be solved.
        source: Verifies attempts.
        max_turns: Student turns.
        feedback: What the student hears after a wrong turn.  "teacher": the teacher's words.  The others are controls
            (after arXiv 2606.30774): "retry", a fixed message; "shuffled", a teacher's words who has another problem in
            mind; "resample", nothing: the problem is posed anew without history.
        shuffled_problem: The other problem of "shuffled".
        on_leak: When the teacher gives the answer away.  "resample": it speaks again, three times at most, then the
            student hears a fixed message; "flag": the student hears it; "drop": likewise, and the turn's
            ``info["drop"]`` says that this dialogue is not to be trained on.
        wrong_attempt_penalty: Taken from the reward of each turn that is neither right nor a question.
        question_cost: Taken from the reward of each question.
        student_instruction: Opens the student's first message.  None takes `STUDENT_INSTRUCTION` where the source
            wants boxed answers and nothing elsewhere; "" is nothing.
        teacher_instruction: For a model that teaches, with ``{problem}`` and ``{private}`` to be filled in.
        accept_message: What the teacher would say to the solving attempt, "correct" say.  It ends the training row and
            nobody hears it: a target for who learns to predict the teacher, who else would always find fault.
        judge: ``(problem, gold, utterance, message) -> bool`` finds leaks that `leaks` does not see.

    Raises:
        ValueError: An option is unknown or out of range.
    """

    def __init__(
        self,
        problem: Problem,
        source: TaskSource,
        *,
        max_turns: int = 4,
        feedback: str = "teacher",
        shuffled_problem: Problem | None = None,
        on_leak: str = "resample",
        wrong_attempt_penalty: float = 0.0,
        question_cost: float = 0.0,
        student_instruction: str | None = None,
        teacher_instruction: str = TEACHER_INSTRUCTION,
        accept_message: str | None = None,
        judge: LeakJudge | None = None,
    ):
        self.problem, self.source, self.max_turns, self.feedback = problem, source, max_turns, feedback
        self.on_leak, self.judge = on_leak, judge
        self.wrong_attempt_penalty, self.question_cost = wrong_attempt_penalty, question_cost
        self.teacher_instruction, self.accept_message = teacher_instruction, accept_message
        self.teachers_problem = shuffled_problem if feedback == "shuffled" and shuffled_problem else problem
        self._check(shuffled_problem)
        if student_instruction is None and getattr(source, "answer_format", None) == "boxed":
            student_instruction = STUDENT_INSTRUCTION
        opening = f"{student_instruction}\n\n{problem.prompt}" if student_instruction else problem.prompt
        self.opening = (Message("user", opening),)
        self.secrets = tuple({secret for secret in (problem.gold, problem.private.get("answer")) if secret})

        self.turn = 0  # student turns taken
        self.empty_turns = 0  # in a row
        self.drafts = 0  # of the teacher in this exchange; 0 while it is the student's turn
        self.attempt, self.utterance = Attempt("empty"), ""
        self.history: tuple[tuple[str, str], ...] = ()
        self.public = [problem.prompt]
        self.transcript: list[Message] = []  # as the teacher sees it
        self.brief_anew = True  # the teacher's view does not hold what the student heard: tell it everything

    def _check(self, shuffled_problem: Problem | None) -> None:
        for name, value, known in (("feedback", self.feedback, FEEDBACK), ("on_leak", self.on_leak, ON_LEAK)):
            if value not in known:
                raise ValueError(f"DidacticDialogue.{name} is {value!r}; it must be one of {list(known)}.")
        if self.max_turns < 1:
            raise ValueError(f"DidacticDialogue.max_turns is {self.max_turns}; the student needs at least 1.")
        if (self.feedback == "shuffled") != (shuffled_problem is not None):
            raise ValueError(
                "DidacticDialogue: feedback='shuffled' needs a shuffled_problem, and nothing else takes one."
            )
        for name, cost in (
            ("wrong_attempt_penalty", self.wrong_attempt_penalty),
            ("question_cost", self.question_cost),
        ):
            if cost < 0:
                raise ValueError(f"DidacticDialogue.{name} is {cost}; it is subtracted, so give 0 or more.")
        check_instruction(self.teacher_instruction)
        if self.accept_message is not None and not self.accept_message.strip():
            raise ValueError(
                "DidacticDialogue.accept_message is blank; give the words of acceptance, or None for none."
            )

    def begin(self) -> Outcome:
        return Outcome(ask=Ask(party=STUDENT, messages=self.opening, exchange=0))

    def act(self, reply: Reply) -> Outcome:
        return self._taught(reply) if self.drafts else self._attempted(reply.text)

    # -- the student spoke -------------------------------------------------------------------------------------

    def _attempted(self, utterance: str) -> Outcome:
        self.attempt = attempt = self.source.verify(self.problem, utterance)
        self.utterance = utterance
        info: dict[str, Any] = {"kind": attempt.kind, "answer": attempt.answer, "correct": attempt.correct}
        if (incomplete := getattr(self.source, "incomplete", None)) is not None:
            info["incomplete"] = incomplete(self.problem, [heard for _, heard in self.history])
        if attempt.correct:
            return Outcome(
                rewards={STUDENT: 1.0}, info=info, stop_reason="solved", terminated=True, epilogue=self._acceptance()
            )
        self.turn += 1
        self.empty_turns = self.empty_turns + 1 if attempt.kind == "empty" else 0
        cost = self.question_cost if attempt.kind == "question" else self.wrong_attempt_penalty
        rewards = {STUDENT: -cost} if cost else {}
        if self.empty_turns == MAX_EMPTY and self.feedback != "resample":  # there each attempt stands for itself
            return Outcome(rewards=rewards, info=info, stop_reason="empty", truncated=True)
        if self.turn == self.max_turns:
            return Outcome(rewards=rewards, info=info, stop_reason="max_turns", truncated=True)
        return Outcome(ask=self._reaction(), rewards=rewards, info=info)

    def _acceptance(self) -> Ask | None:
        if self.accept_message is None:
            return None
        message = Message("user", self.accept_message, TEACHER, self.turn)
        return Ask(party=STUDENT, messages=(message,), exchange=self.turn)

    def _reaction(self) -> Ask:
        if self.feedback == "resample":
            return Ask(party=STUDENT, messages=self.opening, exchange=self.turn, restart=True)
        if self.feedback == "retry":
            return self._ask_student(RETRY)
        self.public.append(self.utterance)
        return self._ask_teacher()

    # -- the teacher spoke -------------------------------------------------------------------------------------

    def _ask_teacher(self) -> Ask:
        """Facts for a script, and for a model what it has not heard yet, or all of it."""
        self.drafts += 1
        exchange, anew = self.turn - 1, self.brief_anew
        messages = [Message("user", self._as_heard(), STUDENT, exchange)]
        if anew:
            briefing = Message("system", teacher_briefing(self.teacher_instruction, self.teachers_problem))
            messages = [briefing, *self.transcript, *messages]
        context = TeacherContext(self.teachers_problem, self.attempt, self.history, exchange, self.utterance)
        return Ask(party=TEACHER, messages=tuple(messages), exchange=exchange, context=context, restart=anew)

    def _as_heard(self) -> str:
        """The student's words, and for a model that teaches what checking them showed."""
        known = self.teachers_problem is self.problem  # a teacher with another problem in mind has not seen the check
        return with_detail(self.utterance, self.attempt) if known else self.utterance

    def _taught(self, reply: Reply) -> Outcome:
        message = forwarded(reply)
        leak = message is not None and self._leaks(message)
        heard = message is not None and not (leak and self.on_leak == "resample")
        info: dict[str, Any] = {"leak": leak, "attempts": self.drafts, "heard": heard}
        if leak and self.on_leak == "drop":
            info["drop"] = True
        self.brief_anew = not heard
        if leak and not heard and self.drafts <= MAX_REDRAWS:
            return Outcome(ask=self._ask_teacher(), info=info)
        said = message if message is not None and heard else fallback(self.attempt)
        return self._close_exchange(said, reply.text if heard else in_block(said), info)

    def _close_exchange(self, said: str, as_teacher: str, info: Mapping[str, Any]) -> Outcome:
        exchange = self.turn - 1
        self.transcript += (
            Message("user", self._as_heard(), STUDENT, exchange),
            Message("assistant", as_teacher, TEACHER, exchange),
        )
        self.history += ((self.utterance, said),)
        self.public.append(said)
        self.drafts = 0
        return Outcome(ask=self._ask_student(said), info=info)

    def _leaks(self, message: str) -> bool:
        public = BETWEEN.join(self.public)
        if any(leaks(message, secret, public) for secret in self.secrets):
            return True
        return self.judge is not None and self.judge(self.problem, self.problem.gold, self.utterance, message)

    def _ask_student(self, said: str) -> Ask:
        message = Message("user", said, TEACHER, self.turn - 1)
        return Ask(party=STUDENT, messages=(message,), exchange=self.turn)
