"""From an utterance to an attempt."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.verification import Attempt, boxed_answer, marked_answer, marked_text, verify_answer


@pytest.mark.parametrize(
    ("utterance", "attempt"),
    [
        ("ans 7", Attempt("answer", "7", True)),
        ("the ans 8", Attempt("answer", "8", False)),
        ("ans 7 ans 7", Attempt("answer", "7", True)),
        ("ans 7 ans 8", Attempt("hedge")),
        ("ans 8 ans 7", Attempt("hedge")),
        ("ans 7 8", Attempt("answer", "7 8", False)),
        ("ask it", Attempt("question")),
        ("ans 7 ask it", Attempt("both", "7", True)),
        ("ans 6 ask it", Attempt("both", "6", False)),
        ("seven", Attempt("malformed")),
        ("task 7", Attempt("malformed")),
        (" \n", Attempt("empty")),
    ],
)
def test_marked_answer(utterance: str, attempt: Attempt) -> None:
    assert marked_answer(utterance, "7") == attempt


@pytest.mark.parametrize(
    ("utterance", "attempt"),
    [
        (r"It is \boxed{12}.", Attempt("answer", "12", True)),
        (r"It is \boxed{ $12$. }", Attempt("answer", "$12$.", True)),
        (r"\boxed{24/2}, or \boxed{12}", Attempt("answer", "12", True)),
        (r"\boxed{13}, no, \boxed{12}", Attempt("hedge")),
        (r"<think>\boxed{13}?</think>\boxed{12}", Attempt("answer", "12", True)),
        (r"\boxed{12}, is that right?", Attempt("both", "12", True)),
        ("What is p?", Attempt("question")),
        ("<think>What is p?</think>Let me see.", Attempt("malformed")),
        ("twelve", Attempt("malformed")),
        (r"\boxed{12", Attempt("malformed")),
        ("", Attempt("empty")),
    ],
)
def test_boxed_answer(utterance: str, attempt: Attempt) -> None:
    assert boxed_answer(utterance, "12") == attempt


def test_a_verifier_of_ones_own_decides_what_is_right_but_not_what_is_a_hedge() -> None:
    for verify in (boxed_answer, marked_text):
        form = r"\boxed{{{}}}" if verify is boxed_answer else "ans {}"
        assert verify(form.format("cat"), "dog", lambda answer: answer == "cat").correct
        both = f"{form.format('cat')} {form.format('dog')}"
        assert verify(both, "dog", lambda answer: True).kind == "hedge"


def test_marked_text_ignores_spaces_of_word_level_models() -> None:
    assert marked_text("ans 3 . 5", "3.5") == Attempt("answer", "3 . 5", True)
    assert marked_text("ans mother - in - law", "mother-in-law").correct
    assert not marked_text("ans 35", "3.5").correct


def test_the_format_follows_the_right_answer() -> None:
    assert verify_answer("ans 12 so", "12", "marked").correct, "numbers end where a word begins"
    assert not verify_answer("ans Yes so", "Yes", "marked").correct, "words do not"
    assert verify_answer("ans 3 . 5", "3.5", "marked").correct
    assert verify_answer(r"\boxed{\frac{7}{2}}", "3.5", "boxed").correct


@settings(deadline=None)  # a hedge may start the process that compares answers
@given(st.lists(st.sampled_from([*"ak?78{}\\ \n-", "ans ", "\\boxed{", "<think>", "</think>", "ask "]), max_size=20))
def test_no_text_raises_and_only_answers_can_be_right(pieces: list[str]) -> None:
    utterance = "".join(pieces)
    for attempt in (marked_answer(utterance, "7"), marked_text(utterance, "7"), boxed_answer(utterance, "7", bool)):
        assert (attempt.answer is not None) == (attempt.kind in ("answer", "both"))
        assert attempt.answer is not None or not attempt.correct
        assert (attempt.kind == "empty") == (not utterance.strip())
