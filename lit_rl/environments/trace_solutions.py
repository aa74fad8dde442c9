"""Exact solutions of small state-tracking problems, line by line, and mistakes put into them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from lit_rl.environments.problems import Problem

_STATES = re.compile(r"(.*(?:=|\banswer)\s*)(\w+)")
_NUMBERED = re.compile(r"(?:wait\s+)?(\d+)\b.*")


@dataclass(frozen=True, slots=True)
class Step:
    """What happens at one step."""

    words: str
    to: Mapping[str, str]  # from every state to the next; one to one, so that a mistake is never undone


@dataclass(frozen=True, slots=True)
class Solution:
    """From a first state to the answer; states are the labels of the problem."""

    start: str
    steps: tuple[Step, ...]

    def states(self) -> list[str]:
        """The state after each step; the last is the answer."""
        states = [self.start]
        for step in self.steps:
            states.append(step.to[states[-1]])
        return states[1:]

    def line(self, number: int, state: str) -> str:
        """The line that states a state after step ``number``, counted from 1: ``2 swap A C = C``."""
        return f"{number} {self.steps[number - 1].words} = {state}"

    def lines(self) -> list[str]:
        """The whole solution, a line for each step."""
        return [self.line(number, state) for number, state in enumerate(self.states(), start=1)]


def solution_of(problem: Problem) -> Solution:
    """The solution a problem was made with.

    Raises:
        ValueError: It is of another source.
    """
    solution = problem.meta.get("solution")
    if not isinstance(solution, Solution):
        raise ValueError(f"Problem {problem.id} of {problem.domain!r} has no exact solution; use a trace task.")
    return solution


def stated(unit: str) -> str | None:
    """The state or answer a line ends with, None if it states none."""
    found = _STATES.fullmatch(unit.strip().removesuffix(".").rstrip())
    return found[2] if found else None


def step_number(unit: str) -> int | None:
    """The step a line is about, None if it names none."""
    found = _NUMBERED.fullmatch(unit.strip())
    return int(found[1]) if found else None


def corrupt(problem: Problem, unit: str, rng: Random) -> str:
    """The line with a mistake: the exact operator of mistake injection (remul.md 7.3).

    A stated state is replaced by another one, which is wrong.  A line that says nothing about its step states a wrong
    state of it.  A line that does neither holds nothing that could be wrong, and comes back unchanged.

    Args:
        problem: Of a trace task.
        unit: A line of its reasoning.
        rng: Chooses among the wrong states, all equally likely.

    Example:
        >>> from lit_rl.environments.navigation import GridNavigation
        >>> problem = GridNavigation(size=1)[0]
        >>> corrupt(problem, "1 left = A", Random(0)) == "1 left = A"
        False
    """
    told, number = stated(unit), step_number(unit)
    known = number is not None and 1 <= number <= len(solution_of(problem).steps)
    right = solution_of(problem).states()[number - 1] if number is not None and known else problem.gold
    wrong = rng.choice([label for label in problem.meta["labels"] if label not in (told, right)])
    if told is not None and told in problem.meta["labels"]:
        return unit[: unit.rindex(told)] + wrong
    return solution_of(problem).line(number, wrong) if number is not None and known else unit
