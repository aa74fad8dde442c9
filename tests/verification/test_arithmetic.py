"""The parser of arithmetic against Python's own evaluation of trees that the test made itself."""

import string
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.verification.arithmetic import (
    Arithmetic,
    NotArithmetic,
    Product,
    Sum,
    canonical,
    read_arithmetic,
    value_of,
    written,
)

NUMBERS = st.integers(0, 12)
OPERATORS = st.sampled_from("+-*/")
TREES = st.recursive(
    NUMBERS,
    lambda part: st.one_of(st.tuples(OPERATORS, part, part), st.tuples(st.just("neg"), part)),
    max_leaves=7,
)


def trusted(tree: Any) -> Fraction:
    if isinstance(tree, int):
        return Fraction(tree)
    if tree[0] == "neg":
        return -trusted(tree[1])
    left, right = trusted(tree[1]), trusted(tree[2])
    if tree[0] == "/":
        return left / right
    return left + right if tree[0] == "+" else left - right if tree[0] == "-" else left * right


def leaves(tree: Any) -> list[int]:
    return [tree] if isinstance(tree, int) else [n for part in tree[1:] for n in leaves(part)]


def spelled(tree: Any, rng: Random) -> str:
    """Brackets around everything but numbers, spaces anywhere."""
    if isinstance(tree, int):
        return str(tree)
    space = " " * rng.randrange(3)
    if tree[0] == "neg":
        return f"({space}-{spelled(tree[1], rng)})"
    return f"({spelled(tree[1], rng)}{space}{tree[0]} {spelled(tree[2], rng)}{space})"


def shuffled(tree: Any, rng: Random) -> Any:
    """The same but for the order of operands, and for ``a - b`` as ``-b + a``."""
    if isinstance(tree, int) or tree[0] == "neg":
        return tree if isinstance(tree, int) else ("neg", shuffled(tree[1], rng))
    left, right = shuffled(tree[1], rng), shuffled(tree[2], rng)
    if tree[0] in "+*" and rng.random() < 0.5:
        return tree[0], right, left
    return ("+", ("neg", right), left) if tree[0] == "-" and rng.random() < 0.5 else (tree[0], left, right)


@given(tree=TREES, rng=st.randoms(use_true_random=False))
def test_trees_are_read_as_they_were_made(tree: Any, rng: Random) -> None:
    found = read_arithmetic(spelled(tree, rng))
    try:
        value = trusted(tree)
    except ZeroDivisionError:
        assert found == NotArithmetic("it divides by zero")
        return
    assert isinstance(found, Arithmetic)
    assert found.value == value and found.numbers == tuple(sorted(leaves(tree)))
    again = read_arithmetic(found.canonical)
    assert again == found, "the canonical form is an expression of the same value and numbers, and its own form"
    other = read_arithmetic(spelled(shuffled(tree, rng), rng))
    assert other == found, "order changes nothing"


@given(
    numbers=st.lists(NUMBERS, min_size=2, max_size=6),
    operators=st.lists(OPERATORS, min_size=5, max_size=5),
)
def test_precedence_is_that_of_python(numbers: list[int], operators: list[str]) -> None:
    """Without brackets; the text is the test's own, of one digit or two and four operators."""
    text = str(numbers[0]) + "".join(f" {op} {n}" for op, n in zip(operators, numbers[1:], strict=False))
    found = read_arithmetic(text)
    try:
        value = eval("".join(f"Fraction({word})" if word.isdigit() else word for word in text.split()))
    except ZeroDivisionError:
        assert isinstance(found, NotArithmetic)
    else:
        assert isinstance(found, Arithmetic) and found.value == value


@given(st.text(alphabet=string.printable + "×÷−²٣", max_size=40))
def test_no_text_raises(text: str) -> None:
    found = read_arithmetic(text)
    assert isinstance(found, Arithmetic) or found.reason


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (("8 + 3 * 2", "(2*3) + 8", "8+((3)*2)"), "8 + 2 * 3"),
        (("9 - (4 - 1)", "9 + 1 - 4", "-4+9--1", "(1 - 4) + 9"), "1 + 9 - 4"),
        (("(5 - 2) * 7", "7 * -(2 - 5)", "-7 * (2 - 5)"), "7 * (5 - 2)"),
        (("8 / (4 * 2)", "8 / 2 / 4", "8 / 4 / 2"), "8 / 2 / 4"),
        (("8 / (4 / 2)", "2 * 8 / 4", "2 / (4 / 8)"), "2 * 8 / 4"),
        (("-(3 * 2)", "3 * -2"), "- 2 * 3"),
        (("10 + 9 + 2",), "2 + 9 + 10"),
        (("5 - 5", "-5 + 5", "-(5 - 5)"), "5 - 5"),
    ],
)
def test_canonical_forms(texts: tuple[str, ...], form: str) -> None:
    assert {read_arithmetic(text).canonical for text in texts} == {form}


def test_forms_that_are_not_the_same() -> None:
    """Equal values do not make equal answers."""
    texts = ["6 * 1", "6 / 1", "6", "2 * 3", "3 + 3", "6 + 0", "6 - 0", "12 / 2", "(6 - 0) * 1", "6 * 1 - 0"]
    found = [read_arithmetic(text) for text in texts]
    assert {one.value for one in found} == {6} and len({one.canonical for one in found}) == len(texts)


def test_latex() -> None:
    found = read_arithmetic(r"\dfrac{3 \times 8}{2} \cdot \left(7 − 1\right) \div 4")
    assert found == read_arithmetic("3 * 8 / 2 * (7 - 1) / 4") and found.value == 18
    assert read_arithmetic(r"2\,×\,3 ÷ 6").value == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("2 ** 3", "'*' stands where a number should"),
        ("9 // 2", "'/' stands where a number should"),
        ("1 2", "'2' stands where an operator or the end should"),
        ("2(3)", "'(' stands where an operator"),
        ("(1 + 2", "'(' is not closed"),
        ("(1 + 2}", "'(' is not closed"),
        ("1 + 2)", "')' stands where an operator"),
        ("1 +", "it ends where a number should"),
        ("+ 1", "'+' stands where a number"),
        ("1.5", "'.' is no part of arithmetic"),
        ("1 + x", "'x' is no part"),
        ("3 * 8 = 24", "'=' is no part"),
        ("__import__('os')", "'_' is no part"),
        ("٣ + 1", "'٣' is no part"),
        (r"\frac 1 2", "a fraction needs two parts in braces"),
        (r"\fraction{1}{2}", r"'\\' is no part"),
        ("1 / (2 - 2)", "it divides by zero"),
        ("9" * 13, "more than 12 digits"),
        ("1+" * 200 + "1", "longer than 256 characters"),
        ("(" * 17 + "1" + ")" * 17, "more than 16 deep"),
        ("-" * 100 + "1", "more than 16 deep"),
    ],
)
def test_reasons(text: str, reason: str) -> None:
    found = read_arithmetic(text)
    assert isinstance(found, NotArithmetic) and reason in found.reason


def test_bounds_are_options() -> None:
    assert read_arithmetic("12 + 3", max_digits=1) == NotArithmetic("a number has more than 1 digits")
    assert read_arithmetic("(((1)))", max_depth=2) == NotArithmetic("brackets or signs are nested more than 2 deep")
    assert isinstance(read_arithmetic("(((1)))", max_depth=3), Arithmetic)
    assert read_arithmetic("1 + 1", max_length=4) == NotArithmetic("it is longer than 4 characters")


def test_the_longest_expressions_are_quick_and_exact() -> None:
    text = "*".join(["999999999999"] * 19)
    found = read_arithmetic(text)
    assert isinstance(found, Arithmetic) and found.value == 999999999999**19


def test_trees_made_by_hand() -> None:
    tree = Product(((1, Sum(((1, 2), (-1, 5)))), (-1, 3)))
    assert written(tree) == "(2 - 5) / 3" and value_of(tree) == -1
    assert written(canonical(tree)) == read_arithmetic("(2 - 5) / 3").canonical == "- (5 - 2) / 3"
