"""Golden dialogues of the small worlds, and properties of scripted teachers over thousands of random dialogues."""

import random
from collections.abc import Callable

import pytest

from lit_rl.environments import (
    DidacticDialogue,
    DigitEdit,
    DigitHint,
    HigherLower,
    NumberSearch,
    Problem,
    TaskSource,
    TeacherContext,
    leaks,
)
from lit_rl.environments.leaks import BETWEEN
from lit_rl.verification import Attempt
from tests.environments.conftest import Game


def play(source: TaskSource, index: int, teacher: Callable[..., str], utterances: list[str], **options: object) -> Game:
    def script(context: TeacherContext, messages: object) -> str:
        return teacher(context, 0)

    return Game(DidacticDialogue(source[index], source, **options), script).play(utterances)


def test_number_search_target_11() -> None:
    game = play(NumberSearch(), 11, HigherLower(), ["ans 7", "ans 11"])
    assert game.said == [("student", "ans 7"), ("teacher", "higher"), ("student", "ans 11")]
    assert game.rewards == [0.0, 1.0] and game.outcomes[-1].stop_reason == "solved"


def test_number_search_target_0() -> None:
    game = play(NumberSearch(), 0, HigherLower(), ["ans 7", "ans 3", "ans 1", "ans 0"])
    assert game.heard() == ["lower"] * 3
    assert game.rewards == [0.0, 0.0, 0.0, 1.0] and game.outcomes[-1].terminated


def test_optimal_play_leaves_15_7_3_1_candidates() -> None:
    """Bisection solves every target in time, with the mean number of turns of 15.1, 49/15."""
    total = 0
    for target in range(15):
        candidates, counts, said = list(range(15)), [], []
        while not said or said[-1] != target:
            counts.append(len(candidates))
            said.append(candidates[len(candidates) // 2])
            candidates = [n for n in candidates if (n > said[-1]) == (target > said[-1]) and n != said[-1]]
        assert counts == [15, 7, 3, 1][: len(counts)]
        game = play(NumberSearch(), target, HigherLower(), [f"ans {n}" for n in said])
        assert game.outcomes[-1].stop_reason == "solved"
        total += len(said)
    assert total == 49


def test_digit_edit_golden_dialogue() -> None:
    tasks = DigitEdit(size=10_000)
    index = next(i for i in range(10_000) if tasks[i].prompt == "add 47 85")
    game = play(tasks, index, DigitHint(), ["ans 1 2 2", "ask digit 2", "ask digit 2", "ans 1 3 2"])
    assert game.heard() == ["digit 2 up", "digit 2 odd", "digit 2 small"]
    assert game.outcomes[-1].stop_reason == "solved"


@pytest.mark.parametrize(
    ("gold", "answer", "words"),
    [
        ("-5", "-7", "higher"),
        ("-5", "3", "lower"),
        ("0", "-1", "higher"),
        ("-12", "-2", "lower"),
        ("1,234", "1000", "higher"),
        ("3", "cat", "please answer or ask"),
        ("3", "1 2", "please answer or ask"),
        ("3", None, "please answer or ask"),
        ("3", "9" * 4500, "please answer or ask"),
    ],
)
def test_higher_lower(gold: str, answer: str | None, words: str) -> None:
    problem = Problem(id="p", domain="d", prompt="", gold=gold)
    assert HigherLower()(TeacherContext(problem, Attempt("answer", answer), (), 0), 0) == words


def test_higher_lower_needs_numbers() -> None:
    problem = Problem(id="p7", domain="d", prompt="", gold="cat")
    with pytest.raises(ValueError, match="whole-number answers, and that of problem p7 is 'cat'"):
        HigherLower()(TeacherContext(problem, Attempt("answer", "3"), (), 0), 0)


def test_number_search_teacher_says_the_sign_alone_and_leaks_nothing() -> None:
    """Property 5 of the specification, over 4 000 random dialogues."""
    rng, source = random.Random(0), NumberSearch(40)
    for _ in range(4000):
        target = rng.randrange(40)
        guesses = [rng.randrange(40) for _ in range(4)]
        game = play(source, target, HigherLower(), [f"ans {n}" for n in guesses])
        left = set(range(40))
        for guess, words in zip(guesses, game.heard(), strict=False):
            assert words == ("higher" if target > guess else "lower")
            left &= {n for n in range(40) if n != guess and (n > guess) == (words == "higher")}
            assert target in left
        assert not any(info["leak"] for info in game.infos)


@pytest.mark.parametrize("domain", ["add", "prog"])
def test_digit_teacher_tells_the_truth_and_leaks_nothing(domain: str) -> None:
    """Property 5 over 3 000 random dialogues of each domain: near misses, questions, and nonsense."""
    rng, tasks = random.Random(1), DigitEdit(domain, size=3000)
    for index in range(3000):
        problem = tasks[index]
        gold, utterances = problem.gold.split(), []
        for _ in range(4):
            digits = [g if rng.random() < 0.5 else str(rng.randrange(10)) for g in gold][: rng.choice([2, 3, 3, 3])]
            utterances.append(rng.choice([f"ans {' '.join(digits)}", f"ask digit {rng.randrange(5)}", "so", "ans"]))
        game = play(tasks, index, DigitHint(), utterances)
        public = [problem.prompt]
        for utterance, words in zip(utterances, game.heard(), strict=False):
            public.append(utterance)
            for answer in (problem.gold, problem.private["answer"]):
                assert not leaks(words, answer, "") and not leaks(words, answer, BETWEEN.join(public))
            assert true_hint(words, gold, utterance), (words, gold, utterance)
            public.append(words)
        assert all(info == {"leak": False, "attempts": 1, "heard": True} for info in game.infos)


def true_hint(words: str, gold: list[str], utterance: str) -> bool:
    """The teacher's rules once more, as conditions on its words."""
    said = utterance.split()
    if words == "please answer or ask":
        return said[0] in ("so", "ask") or said == ["ans"]
    if words == "need 3 digits":
        return said[0] == "ans" and len(said) != 4
    _, place, fact = words.split()
    digit = int(gold[int(place) - 1])
    if said[0] == "ask":
        return {"even": digit % 2 == 0, "odd": digit % 2 == 1, "big": digit > 4, "small": digit < 5}[fact]
    wrong = [i for i in range(3) if said[i + 1] != gold[i]]
    return int(place) == wrong[0] + 1 and (digit > int(said[int(place)])) == (fact == "up")
