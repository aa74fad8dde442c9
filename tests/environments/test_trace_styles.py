"""Styles of reasoning: what each says when, and that a style is recognised."""

from random import Random

import pytest

from lit_rl.environments.modular_chain import ModularChain
from lit_rl.environments.navigation import GridNavigation
from lit_rl.environments.pointer_chase import PointerChase
from lit_rl.environments.trace_solutions import solution_of, stated
from lit_rl.environments.trace_styles import FILLERS, STYLES, TraceStyle, private_code, trace, trace_style
from lit_rl.environments.tracking_swaps import TrackingSwaps
from lit_rl.verification.labels import extract_label
from lit_rl.verification.traces import prefixes

TASKS = [TrackingSwaps(size=60), ModularChain(size=60), GridNavigation(size=60, steps=8), PointerChase(size=60)]
PROBLEMS = [tasks[i] for tasks in TASKS for i in range(60)]


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_recognised(style: TraceStyle) -> None:
    for problem in PROBLEMS:
        lines = trace(problem, style, Random(problem.id))
        assert trace_style(problem, lines) == style
        assert 4 <= len(lines) <= 12 and "\n" not in "".join(lines)
        assert lines == trace(problem, style, Random(problem.id))


def test_explicit_states_the_state_after_each_step() -> None:
    for problem in PROBLEMS:
        assert [stated(line) for line in trace(problem, "explicit", Random(0))] == solution_of(problem).states()


def test_detours_are_taken_back() -> None:
    """Leaving out what each "wait" takes back leaves the explicit trace; some last lines are part of a branch."""
    lengths = set()
    for problem in PROBLEMS:
        lines, kept = trace(problem, "detour", Random(problem.id)), list[str]()
        for line in lines:
            if line.startswith("wait "):
                line = line.removeprefix("wait ")
                number = int(line.split()[0])
                kept = [earlier for earlier in kept if int(earlier.split()[0]) < number]
            kept.append(line)
        assert kept == solution_of(problem).lines()
        backtracks = sum(line.startswith("wait ") for line in lines)
        assert backtracks in (1, 2) and backtracks <= len(lines) - len(kept) <= 2 * backtracks
        lengths.add((backtracks, len(lines) - len(kept)))
    assert lengths >= {(1, 1), (1, 2), (2, 2), (2, 3), (2, 4)}


def test_filler_says_nothing_about_the_problem() -> None:
    for problem in PROBLEMS[:120]:
        lines = trace(problem, "filler", Random(0))
        assert lines == trace(PROBLEMS[0], "filler", Random(0))
        assert {line.split()[1] for line in lines} <= set(FILLERS)
        assert [line.split()[0] for line in lines] == [str(i) for i in range(1, len(lines) + 1)]


def test_leak_first_states_the_answer_at_once() -> None:
    """The shortest prefix holds what the strict parser reads as the answer (remul.md 13, answer leak)."""
    for problem in PROBLEMS:
        lines = trace(problem, "leak_first", Random(0))
        assert stated(lines[0]) == problem.gold and not any(map(stated, lines[1:]))
        first = prefixes("\n".join(lines))[0]
        assert extract_label(first, problem.meta["labels"]) == problem.gold
        explicit = prefixes("\n".join(trace(problem, "explicit", Random(0))))[0]
        assert extract_label(explicit, problem.meta["labels"]) is None


def test_the_private_code_is_one_to_one_and_hides_every_state() -> None:
    for problem in PROBLEMS:
        code = private_code(tuple(problem.meta["labels"]))
        assert sorted(code.values()) == sorted(code) and all(code[label] != label for label in code)
        said = [stated(line) for line in trace(problem, "private_code", Random(0))]
        assert said == [code[state] for state in solution_of(problem).states()]


def test_late_says_nothing_in_any_prefix() -> None:
    for problem in PROBLEMS:
        lines = trace(problem, "late", Random(0))
        for prefix in prefixes("\n".join(lines)):
            assert not any(map(stated, prefix.split("\n")))
        assert stated(lines[-1]) == problem.gold


def test_mistakes_do_not_change_the_style() -> None:
    """A wrong line and what follows from it is explicit still; a trace of random states is none of the six."""
    problem = GridNavigation(size=1, steps=8)[0]
    solution = solution_of(problem)
    state, lines = solution.start, []
    for number, step in enumerate(solution.steps, start=1):
        state = step.to[state] if number != 3 else next(label for label in "ABC" if label != step.to[state])
        lines.append(solution.line(number, state))
    assert trace_style(problem, lines) == "explicit"
    assert trace_style(problem, lines[:3] + lines[4:]) == "explicit", "a line left out"
    assert trace_style(problem, ["so", *lines]) == "explicit"
    code = private_code(tuple(problem.meta["labels"]))
    coded = [line.rsplit(" ", 1)[0] + " " + code[line.split()[-1]] for line in lines]
    assert trace_style(problem, coded) == "private_code"
    random = Random(1)
    assert trace_style(problem, [solution.line(i, random.choice("ABCDEFGHI")) for i in range(1, 9)]) is None


@pytest.mark.parametrize(
    ("units", "style"),
    [
        ([], None),
        (["answer C"], "leak_first"),
        (["answer maybe"], "filler"),
        (["1 so", "wait"], None),
        (["hello", "there"], "filler"),
        (["1 left = D", "so", "so", "so"], None),
        (["1 left = Z"], "filler"),
    ],
)
def test_odd_traces(units: list[str], style: TraceStyle | None) -> None:
    assert trace_style(GridNavigation(size=1)[0], units) == style


def test_unknown_styles() -> None:
    with pytest.raises(ValueError, match=r"style is 'plain'; it must be one of \['explicit', 'detour'"):
        trace(PROBLEMS[0], "plain", Random(0))
