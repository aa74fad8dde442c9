"""Toys with known answers: their numbers are those of the specification, and every completion has its worth."""

import math
from typing import Any

import pytest

from lit_rl.environments.answer_sets import AnswerSet, AutoregressiveToy, CategoricalToy, graded_quality
from lit_rl.environments.problems import TaskSource


def tilted(toy: AnswerSet, entropy: float, reference: float) -> list[float]:
    """``p^(b/a) exp(r/a)``, normalized (qempo.md 3.1)."""
    weights = [
        p ** (reference / entropy) * math.exp(r / entropy) for r, p in zip(toy.rewards, toy.reference, strict=True)
    ]
    return [weight / sum(weights) for weight in weights]


def mean(values: Any, weights: Any) -> float:
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True))


def test_categorical_toy_by_section_10_1() -> None:
    toy = CategoricalToy()
    assert mean(toy.rewards, toy.reference) == pytest.approx(0.733)
    assert -mean(map(math.log, toy.reference), toy.reference) == pytest.approx(1.383115, abs=1e-6)
    assert sum(toy.rewards) / 6 == pytest.approx(0.516667, abs=1e-6)
    spl = [0.572420, 0.140975, 0.190164, 0.062911, 0.024133, 0.009397]
    assert tilted(toy, 0.4, 0.2) == pytest.approx(spl, abs=1e-6)
    right = [toy.verify(toy[0], answer).correct for answer in toy.answers]
    assert right == [True, True, True, False, False, False], "the top three"


def test_autoregressive_toy_by_section_10_3() -> None:
    toy = AutoregressiveToy()
    assert toy.answers == ("0 0", "0 1", "1 0", "1 1")
    joint = tilted(toy, 0.3, 0.1)
    assert joint == pytest.approx([0.574950, 0.141912, 0.011801, 0.271337], abs=1e-6)
    assert mean(toy.rewards, joint) == pytest.approx(0.932683, abs=1e-6)


@pytest.mark.parametrize(
    "toy", [CategoricalToy(), AutoregressiveToy(), CategoricalToy(prompts=("x", "y"), invalid=-3.0)]
)
def test_every_answer_and_no_other_text_is_one(toy: AnswerSet) -> None:
    assert isinstance(toy, TaskSource)
    for problem in (toy[i] for i in range(len(toy))):
        for answer, reward in zip(toy.answers, toy.rewards, strict=True):
            attempt = toy.verify(problem, f" {answer.replace(' ', '  ')}\n")
            assert (attempt.kind, attempt.answer, attempt.correct) == ("answer", answer, reward >= 0.8)
            assert toy.quality(problem, f"{answer} ") == graded_quality(problem, answer) == reward
        for text, kind in (("", "empty"), ("ans a", "malformed"), ("0", "malformed"), ("a a", "malformed")):
            attempt = toy.verify(problem, text)
            assert (attempt.kind, attempt.answer, attempt.correct) == (kind, None, False)
            assert toy.quality(problem, text) == toy.invalid
        assert toy.verify(problem, problem.gold).correct and toy.quality(problem, problem.gold) == max(toy.rewards)
    assert [toy[i].prompt for i in range(len(toy))] == list(toy.prompts)
    with pytest.raises(IndexError):
        toy[len(toy)]


def test_other_sizes() -> None:
    toy = AutoregressiveToy(((0.1, 0.2, 0.9),), (1.0,), ((0.5, 0.25, 0.25),))
    assert toy.answers == ("0 0", "0 1", "0 2") and toy.reference == (0.5, 0.25, 0.25)
    words = CategoricalToy((1.0, 0.5), (0.5, 0.5), ("new  york", "rome"), acceptable=0.5)
    assert words.answers == ("new york", "rome") and words.verify(words[0], "rome").correct
    assert CategoricalToy(acceptable=1.0).verify(words[0], "b").correct is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewards": (1.0, 0.5)}, "CategoricalToy.reference has 6 numbers for 2 answers; give one each"),
        ({"words": ("a", "b")}, "CategoricalToy.rewards has 6 numbers for 2 answers"),
        ({"words": ("a", "b", "c", "d", "e", "a")}, r"CategoricalToy.answers is .*at least 2, all different"),
        ({"prompts": ()}, "CategoricalToy.prompts is .*at least 1"),
        ({"prompts": ("x", " ")}, "none empty"),
        ({"reference": (0.5, 0.3, 0.2, 0.0, 0.0, 0.0)}, "must be positive and sum to 1"),
        ({"reference": (0.5,) * 6}, "must be positive and sum to 1"),
        ({"rewards": (1.0, 0.9, 0.8, 0.3, 0.1, math.inf)}, "must be finite"),
        ({"invalid": math.nan}, "must be finite"),
        ({"acceptable": 1.5}, "acceptable is 1.5; no reward exceeds 1.0: no answer is right"),
        ({"rewards": (0.9,) * 27, "reference": (1 / 27,) * 27}, "27 rewards are more than 26 letters"),
    ],
)
def test_bad_categories(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CategoricalToy(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"rewards": ((1.0, 0.8),)},
        {"rewards": ((1.0, 0.8), (0.0,))},
        {"first": (0.7, 0.2, 0.1)},
        {"second": ((0.9, 0.1),)},
    ],
)
def test_pairs_that_do_not_fit(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="they do not agree"):
        AutoregressiveToy(**options)
