"""A student, a problem, and a teacher who knows the answer (arXiv 2602.16488, section 4)."""

from typing import Literal

from lit_rl.environments.base import Ask, Message, Outcome, Reply
from lit_rl.environments.problems import Attempt, Problem, TaskSource
from lit_rl.environments.teachers import TeacherContext

RETRY = "That is not correct. Please try again."


class DidacticDialogue:
    def __init__(
        self,
        problem: Problem,
        source: TaskSource,
        *,
        max_turns: int = 4,
        feedback: Literal["teacher", "retry", "shuffled", "resample"] = "teacher",
        shuffled_problem: Problem | None = None,
        on_leak: str = "resample",
        wrong_attempt_penalty: float = 0.0,
        question_cost: float = 0.0,
        student_instruction: str | None = None,
    ):
        self.problem, self.source, self.max_turns, self.feedback = problem, source, max_turns, feedback
        self.shuffled_problem = shuffled_problem
        self.turn = 0
        self.attempt = Attempt("empty")
        self.teaching = False

    def begin(self) -> Outcome:
        return Outcome(ask=Ask(party="student", messages=(Message("user", self.problem.prompt),), exchange=0))

    def act(self, reply: Reply) -> Outcome:
        if self.teaching:
            self.teaching = False
            return Outcome(ask=self._student(reply.text))
        self.attempt = attempt = self.source.verify(self.problem, reply.text)
        info = {"kind": attempt.kind, "answer": attempt.answer, "correct": attempt.correct}
        if attempt.correct:
            return Outcome(rewards={"student": 1.0}, info=info, stop_reason="solved", terminated=True)
        self.turn += 1
        if self.turn == self.max_turns:
            return Outcome(info=info, stop_reason="max_turns", truncated=True)
        if self.feedback == "resample":
            ask = Ask(party="student", messages=(Message("user", self.problem.prompt),), exchange=self.turn, restart=True)
        elif self.feedback == "retry":
            ask = self._student(RETRY)
        else:
            self.teaching = True
            problem = self.shuffled_problem or self.problem
            context = TeacherContext(problem, attempt, (), self.turn - 1)
            ask = Ask(party="teacher", messages=(), exchange=self.turn - 1, context=context)
        return Outcome(ask=ask, info=info)

    def _student(self, feedback: str) -> Ask:
        return Ask(
            party="student",
            messages=(Message("user", feedback, "teacher", self.turn - 1),),
            exchange=self.turn,
        )
