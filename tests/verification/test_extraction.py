"""Finding answers and questions, whatever a model writes around them."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.verification.extraction import (
    as_integer,
    as_number,
    asks,
    boxed_texts,
    marked_numbers,
    marked_texts,
    normalized,
    visible,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so \boxed{12}", ["12"]),
        (r"\boxed{\frac{1}{2}}, that is \boxed{0.5}.", [r"\frac{1}{2}", "0.5"]),
        (r"\boxed{\{1, 2\}}", [r"\{1, 2\}"]),
        (r"\boxed {3} and \boxed{}", ["3"]),
        (r"\boxed{\boxed{4}}", [r"\boxed{4}", "4"]),
        (r"cut off: \boxed{12", []),
        (r"12 boxed{12} \fbox{12}", []),
        ("\\boxed{1\\", []),
    ],
)
def test_boxed_texts(text: str, found: list[str]) -> None:
    assert boxed_texts(text) == found


@settings(deadline=None)
@given(st.text(alphabet="ab12 ", min_size=1).filter(str.strip), st.text(alphabet="xyz{} ", max_size=5))
def test_what_is_boxed_is_found_behind_any_text(content: str, before: str) -> None:
    assert boxed_texts(f"{before} \\boxed{{{content}}} and so on")[-1:] == [content.strip()]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ans 7", ["7"]),
        ("ans 1 3 2", ["1 3 2"]),
        ("ans - 5", ["-5"]),
        ("ans -5 and ans 007", ["-5", "7"]),
        ("ans 0 0", ["0 0"]),
        ("ans seven", []),
        ("plans 7", []),
        ("ans7", []),
        ("ans 3 higher 4", ["3"]),
        ("ans 3. So it is.", ["3"]),
        ("ans 3.5", []),
        ("ans 3 . 5", []),
        ("ans 35,000", []),
        ("ans 1/0", []),
        ("ans 1 3 2.5", []),
        ("ans 9**9", []),
        ("ans 3x", []),
        ("ans 12x", []),
    ],
)
def test_marked_numbers(text: str, found: list[str]) -> None:
    assert marked_numbers(text) == found


def test_marked_texts_end_at_the_next_mark() -> None:
    assert marked_texts("so ans new  york ask why ans") == ["new york"]
    assert marked_texts("ans cat ans dog") == ["cat", "dog"]
    assert marked_texts("answer cat") == []


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "plain"),
        ("<think>is it \\boxed{1}?</think>\\boxed{2}", "\\boxed{2}"),
        ("a<think>cut off \\boxed{1}", "a"),
        ("<think>one</think>two<think>three</think>four", "four"),
    ],
)
def test_hidden_reasoning_is_not_seen(text: str, seen: str) -> None:
    assert visible(text) == seen


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", Fraction(12)),
        ("-0.50", Fraction(-1, 2)),
        (".5", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        (r"-\frac{3}{4}", Fraction(-3, 4)),
        ("$1,234,567.$", Fraction(1234567)),
        ("- 5", Fraction(-5)),
        ("7 8", None),
        ("1/0", None),
        ("1e9", None),
        ("nan", None),
        ("", None),
        ("9" * 101, None),
    ],
)
def test_as_number(text: str, value: Fraction | None) -> None:
    assert as_number(text) == value


def test_as_integer() -> None:
    assert [as_integer(text) for text in ("-12", "4.0", "8/2", "4.5", "--4", "x", "9" * 5000)] == [
        -12,
        4,
        4,
        None,
        None,
        None,
        None,
    ]


def test_normalized() -> None:
    assert normalized(r"$ 1,234 $.") == "1234"
    assert normalized(" 3 . 5 ") == "3.5"
    assert normalized("(1,234)") == "(1234)" and normalized("(1,23)") == "(1,23)"
    assert normalized(r"1 \\ 2") == r"1\\2", "a row of a matrix is not a space"


def test_a_question_is_a_sentence_that_asks() -> None:
    assert asks("What is p?") and asks('You mean "p?" or q')
    assert not asks("a?b") and not asks("Tell me p.")
