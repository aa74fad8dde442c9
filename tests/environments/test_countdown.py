"""Countdown puzzles: several right answers, read by our own parser only."""

from fractions import Fraction
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest

from lit_rl.environments.countdown import CountdownTasks, countdown_solutions, solves
from lit_rl.environments.problems import Problem, TaskSource
from lit_rl.verification.arithmetic import read_arithmetic

SMALL = {"min_numbers": 3, "max_numbers": 3, "min_value": 1, "max_value": 9, "min_target": 5, "max_target": 50}
PUZZLE = Problem(id="p", domain="countdown", prompt="", gold="3 * (1 + 7)", meta={"numbers": (7, 3, 1), "target": 24})
BOMBS = ["__import__('os').system('touch {}')", "9**9**9", "exec('1')", "(" * 10_000, "7" * 10_000, "24", "", "ans"]


def small(size: int = 12, seed: int = 0, **options: Any) -> CountdownTasks:
    return CountdownTasks(size, seed, SMALL, "make {target} of {numbers}", **options)


@pytest.mark.parametrize("answer_format", ["marked", "boxed"])
def test_the_answers_of_reasoning_gym_are_right(answer_format: Any) -> None:
    """Also where they begin with a minus and have brackets in brackets."""
    tasks = CountdownTasks(15, answer_format=answer_format)
    assert isinstance(tasks, TaskSource) and len(tasks) == 15
    golds = set()
    for problem in (tasks[i] for i in range(15)):
        reply = f"ans {problem.gold}" if answer_format == "marked" else rf"so \boxed{{{problem.gold}}}"
        attempt = tasks.verify(problem, reply)
        assert attempt.correct and attempt.kind == "answer" and attempt.answer == problem.gold
        assert str(problem.meta["target"]) in problem.prompt and "Final answer" in problem.prompt
        golds.add(problem.gold)
    assert any("(" in gold for gold in golds) and any("/" in gold for gold in golds)


@pytest.mark.parametrize("text", ["3 * (1 + 7)", "(7+1)*3", "( 7 - -1 ) * 3", "-(-3) * (1 + 7)"])
def test_several_right_expressions_are_one_answer(text: str) -> None:
    attempt = small(1).verify(PUZZLE, f"ans {text}")
    assert attempt.correct and attempt.answer == "3 * (1 + 7)"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 * 8", "3 * 8"),  # another number
        ("3 * 7 + 3 * 1", "1 * 3 + 3 * 7"),  # 3 twice
        ("7 + 3 * 1", "7 + 1 * 3"),  # not the target
        ("3 * (1 + 7) = 24", "3 * (1 + 7) = 24"),
        ("7 * 3 + 3", "3 + 3 * 7"),
        ("3 * (1 + 7) so", "3 * (1 + 7) so"),
    ],
)
def test_wrong_answers(text: str, answer: str) -> None:
    attempt = small(1).verify(PUZZLE, f"ans {text}")
    assert attempt.kind == "answer" and not attempt.correct and attempt.answer == answer


def test_kinds_of_attempts() -> None:
    tasks = small(1)
    assert tasks.verify(PUZZLE, "ans (1 + 7) * 3 ask what").kind == "both"
    assert tasks.verify(PUZZLE, "ask what").kind == "question"
    assert tasks.verify(PUZZLE, "ans 3 * 8 ans 3 * (1 + 7)").kind == "hedge"
    assert tasks.verify(PUZZLE, "3 * (1 + 7)").kind == "malformed"
    assert tasks.verify(PUZZLE, " ").kind == "empty"
    boxed = small(1, answer_format="boxed")
    assert boxed.verify(PUZZLE, r"\boxed{3 \times \left(1 + 7\right)}").correct
    assert not boxed.verify(PUZZLE, r"<think>\boxed{3 * (1 + 7)}").correct


@pytest.mark.parametrize("answer_format", ["marked", "boxed"])
def test_nothing_a_model_writes_is_run(answer_format: Any, tmp_path: Path) -> None:
    tasks = small(1, answer_format=answer_format)
    for bomb in BOMBS:
        text = bomb.format(tmp_path / "written") if "{}" in bomb else bomb
        reply = f"ans {text}" if answer_format == "marked" else rf"\boxed{{{text}}}"
        assert not tasks.verify(PUZZLE, reply).correct
    assert not (tmp_path / "written").exists()


def test_prompts_puzzles_and_seeds() -> None:
    tasks = small(20)
    problems = [tasks[i] for i in range(20)]
    puzzles = {(tuple(sorted(p.meta["numbers"])), p.meta["target"]) for p in problems}
    assert len(puzzles) == 20 == len({p.id for p in problems})
    for problem in problems:
        _, target, _, *numbers = problem.prompt.split()
        assert int(target) == problem.meta["target"] and tuple(map(int, numbers)) == problem.meta["numbers"]
        assert problem.private == {"answer": problem.gold} and tasks[problems.index(problem)] is problem
    assert [small(20)[i].prompt for i in range(20)] == [p.prompt for p in problems]
    assert len({small(20, seed=1)[i].prompt for i in range(20)} & {p.prompt for p in problems}) < 10
    again = small(10**6, distinct=False)
    assert solves(again[999_999].gold, **again[999_999].meta)
    with pytest.raises(IndexError):
        tasks[20]


def slow_solutions(numbers: tuple[int, ...], target: int) -> set[str]:
    """Every order, every operator, both ways to put brackets around three numbers."""
    found = set()
    for (a, b, c), (f, g) in product(permutations(numbers), product("+-*/", repeat=2)):
        for text in (f"({a} {f} {b}) {g} {c}", f"{a} {f} ({b} {g} {c})"):
            read = read_arithmetic(text)
            if getattr(read, "value", None) == Fraction(target):
                found.add(read.canonical)
    return found


def test_solutions_against_a_slower_search() -> None:
    for numbers, target in [
        ((2, 3, 6), 9),
        ((7, 3, 1), 24),
        ((1, 1, 1), 1),
        ((4, 2, 2), 4),
        ((5, 5, 1), 2),
        ((9, 8, 7), 1),
    ]:
        assert countdown_solutions(numbers, target) == slow_solutions(numbers, target)
    four = countdown_solutions((2, 3, 4, 6), 24)
    assert len(four) == 10 and all(solves(text, (6, 4, 3, 2), 24) for text in four)


def test_problems_with_several_solutions() -> None:
    tasks = small(20, min_solutions=2)
    for problem in (tasks[i] for i in range(20)):
        found = countdown_solutions(**problem.meta)
        assert len(found) >= 2 and problem.gold in found
        answers = {tasks.verify(problem, f"ans {text}").answer for text in found}
        assert answers == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "CountdownTasks.size is 0; it must be at least 1"),
        ({"min_solutions": 0}, "CountdownTasks.min_solutions is 0"),
        ({"min_solutions": 2, "size": 2}, "max_numbers at most 4; they are True and 6"),
        ({"min_solutions": 2, "size": 2, "options": SMALL, "distinct": False}, "they are False and 3"),
        ({"answer_format": "json"}, "answer_format is 'json'"),
        ({"size": 2, "options": {"numbers": 3}}, "'countdown' has no option 'numbers'"),
        ({"size": 2, "options": {"min_numbers": 1}}, "do not fit 'countdown'"),
        ({"size": 2, "prompt": "make {goal}"}, "cannot be filled in"),
        ({"size": 2, "prompt": "{target} is {expression}"}, "gives the answer away: {expression} is it"),
        (
            {"size": 20, "options": {**SMALL, "max_numbers": 2, "min_numbers": 2, "max_value": 2, "max_target": 5}},
            r"reasoning-gym found no puzzle number \d that fits them \(Failed.*move or widen the targets",
        ),
        (
            {"size": 9, "options": {**SMALL, "max_value": 3, "min_target": 5, "max_target": 6, "operators": ["+"]}},
            "size is 9, but 200 problems of reasoning-gym hold only 4 different ones with at least 1 solutions",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CountdownTasks(**options)


def test_only_few_numbers_are_enumerated() -> None:
    with pytest.raises(ValueError, match="there are 5 numbers; give 1 .. 4"):
        countdown_solutions((1, 2, 3, 4, 5), 9)
