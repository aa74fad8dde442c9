"""Trace tasks: exact answers by a second reading of the prompt, strict answers, exact mistakes."""

from collections.abc import Callable
from random import Random

import pytest

from lit_rl.environments import Mixture, Problem
from lit_rl.environments.modular_chain import ModularChain
from lit_rl.environments.navigation import GridNavigation
from lit_rl.environments.pointer_chase import PointerChase
from lit_rl.environments.trace_solutions import corrupt, solution_of
from lit_rl.environments.trace_styles import STYLES, trace
from lit_rl.environments.trace_tasks import TraceTasks
from lit_rl.environments.tracking_swaps import TrackingSwaps
from lit_rl.verification.traces import FRACTIONS, ThinkTags, keep

Family = Callable[..., TraceTasks]
FAMILIES: list[Family] = [TrackingSwaps, ModularChain, GridNavigation, PointerChase]


def walk(prompt: str) -> list[str]:
    """The states after each step, read from the prompt alone."""
    head, *steps, _ = prompt.split(" ; ")
    match head.split():
        case ["ball", "in", cup]:
            return swapped(cup, [step.split()[2:] for step in steps])
        case ["mod", modulus, "start", start]:
            return counted(int(modulus), int(start), [step.split()[1:] for step in steps])
        case ["grid", width, height, "at", field]:
            return walked(int(width), int(height), field, [step.split()[1] for step in steps])
    pointers = dict(pair.split(" to ") for pair in prompt.split(" ; ")[:-2])
    *_, start, hops = prompt.split(" ; ")
    states = [start.split()[1]]
    for _ in range(int(hops.split()[1])):
        states.append(pointers[states[-1]])
    return states[1:]


def swapped(ball: str, swaps: list[list[str]]) -> list[str]:
    cups = sorted({ball, *(cup for pair in swaps for cup in pair)})
    holds = {cup: cup == ball for cup in cups}
    states = []
    for a, b in swaps:
        holds[a], holds[b] = holds[b], holds[a]
        states.append(next(cup for cup in cups if holds[cup]))
    return states


def counted(modulus: int, number: int, steps: list[list[str]]) -> list[str]:
    states = []
    for word, operand in steps:
        number = (number + int(operand) if word == "add" else number * int(operand)) % modulus
        states.append(str(number))
    return states


def walked(width: int, height: int, field: str, moves: list[str]) -> list[str]:
    y, x = divmod(ord(field) - ord("A"), width)
    states = []
    for move in moves:
        x = (x + {"left": -1, "right": 1}.get(move, 0)) % width
        y = (y + {"up": -1, "down": 1}.get(move, 0)) % height
        states.append(chr(ord("A") + y * width + x))
    return states


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_solutions_are_exact(family: Family) -> None:
    tasks = family(size=200, seed=3)
    for problem in (tasks[i] for i in range(200)):
        states = walk(problem.prompt)
        assert solution_of(problem).states() == states and problem.gold == states[-1]
        assert [line.split()[-1] for line in solution_of(problem).lines()] == states
        assert problem.gold in problem.meta["labels"] and problem.private == {"answer": problem.gold}
        for step in solution_of(problem).steps:
            assert sorted(step.to) == sorted(step.to.values()) == sorted(problem.meta["labels"]), "one to one"


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_short_and_differ(family: Family) -> None:
    tasks, same, other = family(size=500), family(size=500), family(size=500, seed=1)
    prompts = [tasks[i].prompt for i in range(500)]
    assert len(set(prompts)) == 500 and max(len(prompt.split()) for prompt in prompts) <= 40
    assert prompts == [same[i].prompt for i in range(500)] != [other[i].prompt for i in range(500)]
    assert set(tasks.labels) == {tasks[i].gold for i in range(500)}, "every label is some answer"
    with pytest.raises(IndexError):
        tasks[500]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_needs_a_closed_think_block_and_a_label(family: Family) -> None:
    tasks = family(size=1)
    problem, gold = tasks[0], tasks[0].gold
    other = next(label for label in tasks.labels if label != gold)
    assert tasks.verify(problem, f"<think> so \n </think> Answer : {gold}").correct
    assert tasks.verify(problem, f"<think> Answer : {other} </think> {gold}").correct
    assert not tasks.verify(problem, f"<think> Answer : {gold} </think> Answer : {other}").correct
    for reply in (f"<think> Answer : {gold}", f"Answer : {gold}", "<think> so </think> Answer : Z", ""):
        attempt = tasks.verify(problem, reply)
        assert attempt.answer is None and not attempt.correct
    bracketed = family(size=1, tags=ThinkTags("[", "]"))
    assert bracketed.verify(problem, f"[ so ] Answer : {gold}").correct


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_mistake_is_another_wrong_state(family: Family, style: str) -> None:
    """Never what stood there, whatever the style; remul.md 7.3 (exact operators)."""
    tasks = family(size=40)
    for problem in (tasks[i] for i in range(40)):
        states = solution_of(problem).states()
        for unit in trace(problem, style, Random(problem.id)):
            changed = corrupt(problem, unit, Random(problem.id + unit))
            assert changed.split() != unit.split()
            told = changed.split()[-1]
            numbers = [word for word in changed.split() if word.isdigit()]
            right = problem.gold if changed.startswith("answer") else states[int(numbers[0]) - 1]
            assert told in tasks.labels and told != right


def test_all_mistakes_occur() -> None:
    problem = GridNavigation(size=1)[0]
    line = solution_of(problem).lines()[1]
    wrong = {corrupt(problem, line, Random(seed)).split()[-1] for seed in range(200)}
    assert wrong == set(problem.meta["labels"]) - {line.split()[-1]}
    assert corrupt(problem, line, Random(7)) == corrupt(problem, line, Random(7))


@pytest.mark.parametrize("unit", ["so", "wait", "", "9 so", "0 so", "answer is no field"])
def test_a_line_that_cannot_be_wrong_comes_back(unit: str) -> None:
    """Counted as ``corruption_failed`` by whoever asked (remul.md 7.3)."""
    assert corrupt(GridNavigation(size=1)[0], unit, Random(0)) == unit


def test_a_mistake_in_a_wrong_line_does_not_repair_it() -> None:
    problem = ModularChain(size=1)[0]
    right = solution_of(problem).states()[0]
    for wrong in set(problem.meta["labels"]) - {right}:
        line = solution_of(problem).line(1, wrong)
        assert {corrupt(problem, line, Random(seed)).split()[-1] for seed in range(99)}.isdisjoint({wrong, right})
    assert corrupt(problem, "well then = 3 .", Random(0)).startswith("well then = ")


@pytest.mark.parametrize("n", range(1, 11))
@pytest.mark.parametrize("fraction", [0.2, 0.4, 0.6, 0.8])
def test_the_mistake_is_the_last_unit_of_its_prefix(n: int, fraction: float) -> None:
    """Property 20 (remul.md 12): cut at the mistake, every reasoning of at least one line holds it."""
    problem = TrackingSwaps(size=1, steps=10)[0]
    units = trace(problem, "explicit", Random(0))[:n]
    place = min(int(n * fraction + 1e-9), n - 1)
    mistake = corrupt(problem, units[place], Random(0))
    assert mistake in [*units[:place], mistake] and mistake not in units


def test_mistakes_reach_the_answer() -> None:
    """Steps are one to one: whoever goes on from a wrong state ends with a wrong answer."""
    for family in FAMILIES:
        problem = family(size=1)[0]
        solution = solution_of(problem)
        for wrong in set(problem.meta["labels"]) - {solution.states()[0]}:
            state = wrong
            for step in solution.steps[1:]:
                state = step.to[state]
            assert state != problem.gold


def test_problems_of_other_sources_have_no_solution() -> None:
    with pytest.raises(ValueError, match="Problem 1 of 'maths' has no exact solution; use a trace task"):
        corrupt(Problem(id="1", domain="maths", prompt="", gold="A", meta={"labels": ["A"]}), "1 so", Random(0))


def test_a_mixture_of_families() -> None:
    tasks = Mixture([TrackingSwaps(size=3), GridNavigation(size=3), PointerChase(size=3, places=9, steps=5)])
    for problem in (tasks[i] for i in range(9)):
        assert tasks.verify(problem, f"<think> </think> Answer : {problem.gold}").correct
        assert len(trace(problem, "filler", Random(0))) == (5 if problem.domain == "PointerChase" else 6)
    assert len(FRACTIONS) == 3 and all(keep(5, p) < 5 for p in FRACTIONS)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (TrackingSwaps, {"size": 0}, "TrackingSwaps.size is 0; it must be at least 1"),
        (TrackingSwaps, {"cups": 3}, "cups is 3; it must lie in 4 .. 26"),
        (TrackingSwaps, {"steps": 3}, "TrackingSwaps.steps is 3; it must lie in 4 .. 20"),
        (ModularChain, {"modulus": 2}, "modulus is 2; it must lie in 3 .. 30"),
        (ModularChain, {"steps": 21}, "ModularChain.steps is 21"),
        (GridNavigation, {"width": 6, "height": 5}, "6 x 5; wanted at least 2 x 2 and at most 26 fields"),
        (GridNavigation, {"width": 1}, "1 x 3; wanted at least 2 x 2"),
        (PointerChase, {"places": 5}, "places is 5; with 4 steps it must lie in 6 .. 26"),
        (
            PointerChase,
            {"size": 721, "places": 6},  # 5! circles of six places, six starts
            "size is 721, but 14440 draws gave only 720 different prompts; lower it, or take more steps",
        ),
    ],
)
def test_bad_options(family: Family, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family(**options)
