"""Scripted teachers: from what they know to one useful sentence."""

from dataclasses import dataclass

from lit_rl.environments.problems import Attempt, Problem
from lit_rl.verification.extraction import as_integer

PLEASE = "please answer or ask"


@dataclass(frozen=True, slots=True)
class TeacherContext:
    """What a teacher knows when it speaks."""

    problem: Problem
    attempt: Attempt
    history: tuple[tuple[str, str], ...]  # (utterance, feedback) of earlier exchanges
    turn: int  # exchange it answers, 0-based
    utterance: str = ""  # the student's latest


class HigherLower:
    """Says on which side of a whole-number answer, negative ones included, the attempt lies.

    It answers no questions: whoever gives no whole number hears ``please answer or ask``.
    """

    def __call__(self, context: TeacherContext, key: int) -> str:
        gold = as_integer(context.problem.gold)
        if gold is None:
            raise ValueError(
                f"HigherLower needs whole-number answers, and that of problem {context.problem.id} is "
                f"{context.problem.gold!r}; use another teacher or other tasks."
            )
        answer = context.attempt.answer
        given = None if answer is None else as_integer(answer)
        if given is None:
            return PLEASE
        return "higher" if gold > given else "lower"
