"""Whether a message gives the answer away."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.environments import leaks
from lit_rl.environments.leaks import BETWEEN

SUM = BETWEEN.join(["add 47 85", "ans 122"])


@pytest.mark.parametrize(
    ("message", "gold", "public", "leak"),
    [
        ("The total should be 132.", "132", SUM, True),
        ("digit 2 up", "132", SUM, False),
        ("your 122 is below the target", "122", SUM, False),
        ("1320 is too big", "132", "add 47 85", False),
        ("add 47 85 again", "47", "add 47 85", False),
        ("x = 3/4", "3/4", "solve", True),
        ("x = 3 / 4", "3/4", "solve", True),
        ("it is 1,320", "1320", "solve", True),
        ("13.2 is close", "13", "solve", False),
        ("The capital is PARIS!", "Paris", "capital of France", True),
        ("Comparison helps", "Paris", "capital of France", False),
        ("1 3 2", "1 3 2", BETWEEN.join(["ans 1", "3 2 1"]), True),
        ("anything", "", "solve", False),
        ("anything", " ", "solve", False),
    ],
)
def test_leaks(message: str, gold: str, public: str, leak: bool) -> None:
    assert leaks(message, gold, public) is leak


WORDS = st.lists(st.sampled_from(["a", "b", "12", "1", "2", "-", "3.5"]), min_size=1, max_size=6)


@settings(deadline=None)
@given(WORDS, WORDS, WORDS)
def test_what_is_public_cannot_leak_and_what_is_quoted_does(
    gold: list[str], before: list[str], after: list[str]
) -> None:
    answer, message = " ".join(gold), " ".join([*before, *gold, *after])
    assert leaks(message, answer, "")
    assert not leaks(message, answer, message)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_agrees_with_a_search_by_words(message: list[str], gold: list[str]) -> None:
    found = any(message[i : i + len(gold)] == gold for i in range(len(message)))
    assert leaks(" ".join(message), " ".join(gold), "") is found
