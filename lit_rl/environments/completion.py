"""One prompt, one completion: the world of single-turn tasks."""

from typing import Any

from lit_rl.environments.base import Ask, Message, Outcome, Reply
from lit_rl.environments.problems import Problem, TaskSource

_PUBLISHED = ("labels", "aliases", "options", "unhinted", "hint")  # of a problem's meta, for whoever reads answers


class Completion:
    """A party answers a problem, once.

    Its turn is paid 1 for the right answer, else 0.  The turn's ``info`` holds ``kind``, ``answer`` and ``correct`` as
    the source's verifier reads it, ``prompt`` and ``gold``, and of the problem's ``meta`` what helps to read answers:
    ``labels``, ``aliases`` and ``options``, and what `lit_rl.environments.HintedTasks` says of its hint.

    Args:
        problem: What is to be answered.
        source: Verifies the answer.
        party: Who answers.
        instruction: System message before the prompt.
    """

    def __init__(self, problem: Problem, source: TaskSource, *, party: str = "student", instruction: str | None = None):
        self.problem, self.source, self.party = problem, source, party
        system = (Message("system", instruction),) if instruction else ()
        self.messages = (*system, Message("user", problem.prompt))

    def begin(self) -> Outcome:
        return Outcome(ask=Ask(party=self.party, messages=self.messages, exchange=0))

    def act(self, reply: Reply) -> Outcome:
        problem, attempt = self.problem, self.source.verify(self.problem, reply.text)
        info: dict[str, Any] = {"kind": attempt.kind, "answer": attempt.answer, "correct": attempt.correct}
        info |= {"prompt": problem.prompt, "gold": problem.gold}
        info |= {name: problem.meta[name] for name in _PUBLISHED if name in problem.meta}
        return Outcome(
            rewards={self.party: float(attempt.correct)},
            info=info,
            stop_reason="solved" if attempt.correct else "answered",
            terminated=True,
        )
