"""Styles of reasoning about a trace task: some can be followed by others, some cannot."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Literal, get_args

from lit_rl.environments.problems import Problem
from lit_rl.environments.trace_solutions import Solution, solution_of, stated, step_number
from lit_rl.verification.traces import keep

TraceStyle = Literal["explicit", "detour", "filler", "leak_first", "private_code", "late"]

STYLES: tuple[TraceStyle, ...] = get_args(TraceStyle)
FILLERS = ("so", "then", "well")
BACKTRACK = "wait"  # counted by the backtracking rate (remul.md 7.5)
_LATE = 0.75  # of the lines of the style "late" say nothing
_MOST = 0.75  # of the lines must state a state for a trace to be "explicit" or in "private_code"


def trace(problem: Problem, style: TraceStyle, rng: Random) -> list[str]:
    """Lines of reasoning in a style; all of them are right, and lead to the right answer.

    "explicit" states the state after each step.  "detour" does too, but takes one or two wrong branches of a line or
    two, each taken back behind the word "wait".  "filler" says nothing.  "leak_first" states the answer, then says
    nothing.  "private_code" states states under a fixed secret relabelling.  "late" says nothing in the first three
    quarters of its lines, then states states.

    Args:
        problem: Of a trace task.
        style: One of the six.
        rng: Chooses what the style leaves open: words that say nothing, wrong branches.

    Example:
        >>> from lit_rl.environments.navigation import GridNavigation
        >>> trace(GridNavigation(size=1, steps=4)[0], "explicit", Random(0))
        ['1 right = G', '2 down = A', '3 left = C', '4 left = B']
    """
    if style not in _WRITERS:
        raise ValueError(f"style is {style!r}; it must be one of {list(STYLES)}.")
    return _WRITERS[style](problem, solution_of(problem), rng)


def trace_style(problem: Problem, units: Sequence[str]) -> TraceStyle | None:
    """Which style the lines of a reasoning have; mistakes in it are forgiven, None is none of the six.

    "explicit" and "private_code" are told apart by what most lines follow from: the state before, in the open or in
    code; neither may be so in fewer than half of them.

    Args:
        problem: Of a trace task.
        units: Lines, as `lit_rl.verification.traces.split_units` gives them.
    """
    labels = problem.meta["labels"]
    states = [stated(unit) in labels for unit in units]
    if not units:
        return None
    if units[0].split()[0] == "answer" and states[0]:
        return "leak_first"
    if any(unit.split()[0] == BACKTRACK for unit in units):
        return "detour" if any(states) else None
    if not any(states):
        return "filler"
    if sum(states) >= _MOST * len(units):
        return _open_or_coded(problem, units)
    return None if any(states[: keep(len(units), _LATE)]) else "late"


@lru_cache(maxsize=64)
def private_code(labels: tuple[str, ...]) -> dict[str, str]:
    """The secret relabelling of states: one cycle through all labels, so that none keeps its name."""
    order = list(labels)
    Random("private code").shuffle(order)
    return dict(pairwise([*order, order[0]]))


def _open_or_coded(problem: Problem, units: Sequence[str]) -> TraceStyle | None:
    code = private_code(tuple(problem.meta["labels"]))
    same = {label: label for label in code}
    plain, coded = (_followed(solution_of(problem), units, names) for names in (same, code))
    if 2 * max(plain, coded) < len(units):
        return None
    return "explicit" if plain >= coded else "private_code"


def _followed(solution: Solution, units: Sequence[str], names: dict[str, str]) -> int:
    """How many lines follow from the state stated before, if states go by these names."""
    meant = {name: label for label, name in names.items()}
    before: str | None = solution.start
    count = 0
    for unit in units:
        number, told = step_number(unit), meant.get(stated(unit) or "")
        if number is not None and 1 <= number <= len(solution.steps) and before is not None:
            count += solution.steps[number - 1].to[before] == told
        before = told
    return count


def _explicit(problem: Problem, solution: Solution, rng: Random) -> list[str]:
    return solution.lines()


def _detour(problem: Problem, solution: Solution, rng: Random) -> list[str]:
    wrong_turns = rng.sample(range(len(solution.steps)), rng.choice((1, 2)))
    lines: list[str] = []
    for place, (line, right) in enumerate(zip(solution.lines(), solution.states(), strict=True)):
        if place in wrong_turns:
            wrong = rng.choice([label for label in problem.meta["labels"] if label != right])
            lines += _branch(solution, place, wrong, rng.choice((1, 2)))
            line = f"{BACKTRACK} {line}"
        lines.append(line)
    return lines


def _branch(solution: Solution, place: int, state: str, length: int) -> list[str]:
    """Lines that go on from a wrong state of the step at ``place``."""
    lines = [solution.line(place + 1, state)]
    if length == 2 and place + 1 < len(solution.steps):
        lines.append(solution.line(place + 2, solution.steps[place + 1].to[state]))
    return lines


def _filler(problem: Problem, solution: Solution, rng: Random) -> list[str]:
    return [f"{number} {rng.choice(FILLERS)}" for number in range(1, len(solution.steps) + 1)]


def _leak_first(problem: Problem, solution: Solution, rng: Random) -> list[str]:
    return [f"answer {problem.gold}", *_filler(problem, solution, rng)[1:]]


def _private_code(problem: Problem, solution: Solution, rng: Random) -> list[str]:
    code = private_code(tuple(problem.meta["labels"]))
    return [solution.line(number, code[state]) for number, state in enumerate(solution.states(), start=1)]


def _late(problem: Problem, solution: Solution, rng: Random) -> list[str]:
    quiet = keep(len(solution.steps), _LATE)
    return _filler(problem, solution, rng)[:quiet] + solution.lines()[quiet:]


_WRITERS: dict[TraceStyle, Callable[[Problem, Solution, Random], list[str]]] = {
    "explicit": _explicit,
    "detour": _detour,
    "filler": _filler,
    "leak_first": _leak_first,
    "private_code": _private_code,
    "late": _late,
}
