"""Scripted teachers: from what they know to one useful sentence."""

from dataclasses import dataclass

from lit_rl.environments.problems import Attempt, Problem


@dataclass(frozen=True, slots=True)
class TeacherContext:
    """What a teacher knows when it speaks."""

    problem: Problem
    attempt: Attempt
    history: tuple[tuple[str, str], ...]  # (utterance, feedback) of earlier exchanges
    turn: int


class HigherLower:
    """Says on which side of a whole-number answer the attempt lies."""

    def __call__(self, context: TeacherContext, key: int) -> str:
        answer = context.attempt.answer
        if answer is None or not answer.lstrip("-").isdigit():
            return "please answer or ask"
        return "higher" if int(context.problem.gold) > int(answer) else "lower"
