"""reasoning-gym behind its wrapper: nothing a model writes is run, and only right answers are right."""

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from lit_rl.environments import Problem, ReasoningGymTasks
from lit_rl.environments.reasoning_names import ALLOWED, REFUSED

NONSENSE = ["", "0x", "1e999999999", "nan", "inf", "()", "[]", "None", "9**9**9", "1/0", "-", ",", "x" * 300]


def reply(answer: str, answer_format: str) -> str:
    return f"ans {answer}" if answer_format == "marked" else rf"\boxed{{{answer}}}"


@pytest.mark.parametrize("answer_format", ["marked", "boxed"])
@pytest.mark.parametrize("task", ALLOWED)
def test_every_allowed_task(task: str, answer_format: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its own answer is right; those of problems with another are not; nonsense is wrong and runs nothing."""
    tasks = ReasoningGymTasks(task, size=6, answer_format=answer_format)
    problems = [tasks[i] for i in range(6)]
    bomb = f"__import__('pathlib').Path('{tmp_path}/written').touch()"
    for problem in problems:
        assert 0 < len(problem.gold) <= 30
        assert tasks.verify(problem, reply(problem.gold, answer_format)).correct
        for other in problems:
            if other.gold.lower() != problem.gold.lower():
                assert not tasks.verify(problem, reply(other.gold, answer_format)).correct
        for text in [*NONSENSE, bomb, problem.gold + "1"]:
            assert not tasks.verify(problem, reply(text, answer_format)).correct, text
    assert not (tmp_path / "written").exists() and not any(capfd.readouterr())


def test_count_primes_with_a_short_prompt() -> None:
    tasks = ReasoningGymTasks(
        "count_primes", 60, options={"min_n": 1, "max_n": 30}, prompt="primes from {start} to {end}"
    )
    for problem in (tasks[i] for i in range(60)):
        _, _, start, _, end = problem.prompt.split()
        primes = [n for n in range(int(start), int(end) + 1) if n > 1 and all(n % k for k in range(2, n))]
        assert problem.gold == str(len(primes)) and problem.private == {"answer": problem.gold}
        assert tasks.verify(problem, f"ans {len(primes)}").correct
        assert not tasks.verify(problem, f"ans {len(primes) + 1}").correct
        assert tasks.verify(problem, f"ans {len(primes)} so").correct, "as in the other small worlds"


def test_fractions_in_lowest_terms_and_decimals_by_value() -> None:
    fractions = ReasoningGymTasks("fraction_simplification", 5, options={"styles": ["plain"]}, answer_format="boxed")
    for problem in (fractions[i] for i in range(5)):
        top, bottom = problem.gold.split("/")
        assert fractions.verify(problem, rf"\boxed{{\dfrac{{{top}}}{{{bottom}}}}}").correct
        assert not fractions.verify(problem, rf"\boxed{{{2 * int(top)}/{2 * int(bottom)}}}").correct
        assert not fractions.verify(problem, rf"\boxed{{\frac{{{2 * int(top)}}}{{{2 * int(bottom)}}}}}").correct
    decimals = ReasoningGymTasks("decimal_chain_sum", 5)
    for problem in (decimals[i] for i in range(5)):
        spaced = problem.gold.replace(".", " . ").replace("-", "- ")
        assert (
            decimals.verify(problem, f"ans {spaced}").correct
            and decimals.verify(problem, f"ans {problem.gold}0").correct
        )


def test_lists_in_a_prompt_are_words() -> None:
    problem = ReasoningGymTasks("gcd", 3, prompt="gcd {numbers} first {numbers[0]}")[0]
    numbers = problem.prompt.split()
    assert len(numbers) == 5 and numbers[1] == numbers[4] and numbers[2].isdigit()
    spelled = ReasoningGymTasks("letter_counting", 3, prompt="{target_letter} in {span}")[1]
    assert spelled.prompt.split()[0] in "".join(spelled.prompt.split()[2:]).lower() and "[" not in spelled.prompt


def test_a_prompt_may_write_characters_apart() -> None:
    problem = ReasoningGymTasks("count_bits", 3, options={"max_n": 999}, prompt="ones {number:spaced}")[0]
    number = int("".join(problem.prompt.removeprefix("ones ").split()))
    assert len(problem.prompt.split()) == 1 + len(str(number))
    assert problem.gold == str(number.bit_count())


def test_characters_of_lists_may_stand_apart_too() -> None:
    apart = ReasoningGymTasks("gcd", 3, prompt="gcd {numbers:spaced}")[0].prompt
    together = ReasoningGymTasks("gcd", 3, prompt="gcd {numbers}")[0].prompt
    assert apart.replace(" ", "") == together.replace(" ", "")
    assert set(map(len, apart.removeprefix("gcd ").split())) == {1}


def test_problems_depend_on_seed_and_index_alone() -> None:
    def prompts(seed: int, order: list[int], **options: Any) -> list[str]:
        tasks = ReasoningGymTasks("basic_arithmetic", 30, seed, **options)
        found = {i: tasks[i].prompt for i in order}
        return [found[i] for i in range(30)]

    forwards, backwards = list(range(30)), list(range(30))[::-1]
    for distinct in (True, False):
        assert prompts(0, forwards, distinct=distinct) == prompts(0, backwards, distinct=distinct)
    assert len(set(prompts(0, forwards)) & set(prompts(1, forwards))) < 3, "neighbouring seeds share no problems"
    ids = {ReasoningGymTasks("gcd", 5, seed)[i].id for seed in (0, 1) for i in range(5)}
    assert len(ids) == 10


def test_distinct_problems() -> None:
    few = {"min_n": 1, "max_n": 6}  # 21 intervals
    tasks = ReasoningGymTasks("count_primes", 18, options=few)
    assert len({tasks[i].prompt for i in range(18)}) == 18
    again = ReasoningGymTasks("count_primes", 18, options=few, distinct=False)
    assert len({again[i].prompt for i in range(18)}) < 18
    with pytest.raises(
        ValueError, match=r"size is 30, but 620 problems of 'count_primes' have only 21 different prompts"
    ):
        ReasoningGymTasks("count_primes", 30, options=few)


def test_problems_are_made_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, made = ReasoningGymTasks("gcd", 10**6, distinct=False), list[int]()
    make = tasks._make

    def counted(number: int) -> Problem:
        made.append(number)
        return make(number)

    monkeypatch.setattr(tasks, "_make", counted)
    assert tasks[999_999] is tasks[999_999] and made == [999_999]


@pytest.mark.parametrize("task", REFUSED)
def test_refused_tasks(task: str) -> None:
    with pytest.raises(ValueError, match=rf"task '{task}' is refused: it.*Allowed are: aiw, .*syllogism"):
        ReasoningGymTasks(task)


def test_the_dangerous_nine_are_refused_for_what_they_do() -> None:
    assert sum("as code in this process" in reason for reason in REFUSED.values()) == 9
    assert not set(ALLOWED) & set(REFUSED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sudoku"}, "'sudoku' is refused: its answers are long, or may be right in several forms"),
        ({"task": "count_prime"}, "no task of reasoning-gym; did you mean 'count_primes'"),
        ({"task": "gcd", "size": 0}, "size is 0"),
        ({"task": "gcd", "options": {"max": 3}}, r"'gcd' has no option 'max'; it has \['max_numbers', 'max_value'"),
        ({"task": "gcd", "options": {"seed": 3}}, "no option 'seed'"),
        (
            {"task": "gcd", "options": {"min_value": -1}},
            r"options {'min_value': -1} do not fit 'gcd'.*must be positive",
        ),
        (
            {"task": "gcd", "prompt": "{a}"},
            r"prompt '{a}' cannot be filled in \(KeyError\('a'\)\); known are .*'numbers'",
        ),
        ({"task": "gcd", "prompt": "{}"}, "cannot be filled in"),
        ({"task": "gcd", "prompt": "{numbers"}, "cannot be filled in"),
        ({"task": "gcd", "prompt": "gcd"}, "is the same for all problems"),
        ({"task": "gcd", "prompt": "gcd {numbers} {result}"}, r"gives the answer away: {result} is it"),
        ({"task": "gcd", "answer_format": "json"}, "answer_format is 'json'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReasoningGymTasks(**options)


def test_without_reasoning_gym(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_gym(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("reasoning_gym"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_gym)
    monkeypatch.delitem(sys.modules, "reasoning_gym", raising=False)
    with pytest.raises(ImportError, match=r'pip install "lit-rl\[reasoning\]"'):
        ReasoningGymTasks("gcd")


def test_the_last_problems_are_like_the_first_where_prompts_run_short() -> None:
    tasks = ReasoningGymTasks("gcd", 2800, options={"min_value": 2, "max_value": 60}, prompt="gcd {numbers}")
    ones = [tasks[index].gold == "1" for index in range(2800)]
    assert abs(sum(ones[:400]) - sum(ones[-400:])) < 80  # in the order drawn, nearly all of the last have the answer 1
