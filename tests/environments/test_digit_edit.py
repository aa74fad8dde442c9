"""DigitEdit and its teacher: golden dialogues, and hints that are true whatever the student says."""

import random

import pytest

from lit_rl.environments import DigitEdit, DigitHint, Problem, TeacherContext

HINT = DigitHint()
SUM = Problem(id="s", domain="add", prompt="add 47 85", gold="1 3 2")


def hint(utterance: str, gold: str = "1 3 2", history: tuple[tuple[str, str], ...] = ()) -> str:
    tasks = DigitEdit(size=1)
    problem = Problem(id="s", domain="add", prompt="", gold=gold)
    return HINT(TeacherContext(problem, tasks.verify(problem, utterance), history, 0, utterance), 0)


@pytest.mark.parametrize(
    ("utterance", "words"),
    [
        ("ans 1 2 2", "digit 2 up"),
        ("ans 1 4 2", "digit 2 down"),
        ("ans 0 2 3", "digit 1 up"),
        ("ans 1 3", "need 3 digits"),
        ("ans 132", "need 3 digits"),
        ("ans 1 3 2 2", "need 3 digits"),
        ("ans 1 32 2", "need 3 digits"),
        ("ans - 1 3 2", "need 3 digits"),
        ("ask digit 1", "digit 1 odd"),
        ("ask digit 3", "digit 3 even"),
        ("ask digit 4", "please answer or ask"),
        ("ask digit 0", "please answer or ask"),
        ("ask digit 22", "please answer or ask"),
        ("ask why", "please answer or ask"),
        ("digit 2", "please answer or ask"),
        ("", "please answer or ask"),
        ("ans 1 2 2 ans 1 3 3", "please answer or ask"),
        ("ans 1 2 2 ask digit 3", "digit 2 up"),
    ],
)
def test_golden_hints(utterance: str, words: str) -> None:
    assert hint(utterance) == words


def test_asked_again_it_says_the_size() -> None:
    asked = (("ask digit 2", "digit 2 odd"),)
    assert hint("ask digit 2", history=asked) == "digit 2 small"
    assert hint("ask digit 2", gold="1 7 2", history=(*asked, ("ask digit 2", "digit 2 big"))) == "digit 2 big"
    assert hint("ask digit 1", history=asked) == "digit 1 odd", "each digit has its own first time"
    corrected = (("ans 1 2 2", "digit 2 up"),)
    assert hint("ask digit 2", history=corrected) == "digit 2 odd", "a correction is not an answer to a question"


def test_golden_problems() -> None:
    """The examples of the specification occur, with their answers."""
    sums = DigitEdit("add", size=10_000)
    found = {problem.prompt: problem for problem in (sums[i] for i in range(len(sums)))}
    assert found["add 47 85"].gold == "1 3 2" and found["add 5 7"].gold == "0 1 2" and len(found) == 10_000
    programs = DigitEdit("prog", size=3240)
    run = {problem.prompt: problem for problem in (programs[i] for i in range(len(programs)))}
    assert run["run a = 4 ; a + 7 ; a * 2"].gold == "0 2 2" and len(run) == 3240
    assert run["run a = 4 ; a + 7 ; a * 2"].private == {"answer": "022"}


@pytest.mark.parametrize(("domain", "width"), [("add", 3), ("add", 2), ("prog", 3), ("prog", 2)])
def test_every_problem_is_solved_by_its_answer_alone(domain: str, width: int) -> None:
    tasks = DigitEdit(domain, size=90, seed=3, width=width)
    for problem in (tasks[i] for i in range(len(tasks))):
        if domain == "add":
            _, a, b = problem.prompt.split()
            result = int(a) + int(b)
        else:
            scope: dict[str, int] = {}
            for step in problem.prompt.removeprefix("run ").split(" ; "):
                exec(step if "=" in step else f"a = {step}", {}, scope)
            result = scope["a"]
        assert problem.gold == " ".join(f"{result:0{width}d}") and len(problem.gold) == 2 * width - 1
        assert tasks.verify(problem, f"ans {problem.gold}").correct
        assert not tasks.verify(problem, f"ans {result}").correct
        assert not tasks.verify(problem, f"ans {problem.gold} 0").correct


def test_a_student_who_follows_the_hints_gets_there() -> None:
    """Each digit takes at most nine corrections, whatever the first attempt was."""
    tasks, rng = DigitEdit("prog", size=200), random.Random(0)
    for problem in (tasks[i] for i in range(len(tasks))):
        digits = [rng.randrange(10) for _ in range(3)]
        for _ in range(28):
            utterance = f"ans {' '.join(map(str, digits))}"
            attempt = tasks.verify(problem, utterance)
            if attempt.correct:
                break
            _, place, direction = HINT(TeacherContext(problem, attempt, (), 0, utterance), 0).split()
            digits[int(place) - 1] += 1 if direction == "up" else -1
        assert attempt.correct


def test_problems_depend_on_the_seed_alone() -> None:
    def prompts(seed: int) -> list[str]:
        return [DigitEdit(size=20, seed=seed)[i].prompt for i in range(20)]

    assert prompts(0) == prompts(0) != prompts(1)
    assert len({DigitEdit(size=20)[i].id for i in range(20)}) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domain": "sub"}, "domain is 'sub'; it must be 'add' or 'prog'"),
        ({"width": 1}, "width is 1"),
        ({"size": 0}, "size is 0"),
        ({"size": 101, "width": 2}, r"size is 101; with width 2, 'add' has 1 .. 100 problems"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DigitEdit(**options)
    with pytest.raises(IndexError):
        DigitEdit(size=5)[5]
