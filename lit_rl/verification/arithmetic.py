"""Arithmetic that a model wrote, read by a small parser of our own: exact values, and no text ever runs as code.

``sum = product (("+" | "-") product)*``, ``product = factor (("*" | "/") factor)*``, ``factor = "-" factor | number |
"(" sum ")"``.  There is no power, so values have at most as many digits as the text has characters.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 256  # characters of an expression
MAX_DEPTH = 16  # of brackets and signs in each other
MAX_DIGITS = 12  # of a number

_TOKEN = re.compile(r"\s*([0-9]+|[-+*/(){}]|\\[dt]?frac(?![a-zA-Z]))")
_SIGNS = {"\\times": "*", "\\cdot": "*", "×": "*", "·": "*", "\\div": "/", "÷": "/", "−": "-"}
_SIGN = re.compile(r"\\(?:times|cdot|div)(?![a-zA-Z])|[×·÷−]")
_NO_MEANING = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\[,;:! ]")
_CLOSING = {"(": ")", "{": "}"}


@dataclass(frozen=True, slots=True)
class Sum:
    """Terms, each with its sign, 1 or -1."""

    terms: tuple[tuple[int, "Expression"], ...]


@dataclass(frozen=True, slots=True)
class Product:
    """Factors, each with its exponent: 1 where it multiplies, -1 where it divides; the first multiplies."""

    factors: tuple[tuple[int, "Expression"], ...]


Expression = int | Sum | Product


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What an expression is.

    Attributes:
        value: Exact.
        numbers: All numbers in it, as often as they occur, sorted; without signs.
        canonical: The same text for all expressions that differ only in order, in brackets that do not matter, and in
            where signs stand: ``8 + 3 * 2`` and ``(2*3) + 8``, ``9 - (4 - 1)`` and ``9 + 1 - 4``.
    """

    value: Fraction
    numbers: tuple[int, ...]
    canonical: str


@dataclass(frozen=True, slots=True)
class NotArithmetic:
    """Why a text is no expression that we read."""

    reason: str


def read_arithmetic(
    text: str, *, max_length: int = MAX_LENGTH, max_depth: int = MAX_DEPTH, max_digits: int = MAX_DIGITS
) -> Arithmetic | NotArithmetic:
    r"""Read integers, ``+ - * /`` and brackets; never raises, whatever the text.

    LaTeX's ``\times``, ``\cdot``, ``\div`` and ``\frac{..}{..}`` and their printed signs are read too.

    Args:
        text: What was written, without ``=``.
        max_length: Characters read at most.
        max_depth: Brackets and signs in each other at most.
        max_digits: Of each number at most.

    Example:
        >>> read_arithmetic("(1 + 7) * 3 / 2").value, read_arithmetic("2 ** 3").reason
        (Fraction(12, 1), "'*' stands where a number should")
    """
    if len(text) > max_length:
        return NotArithmetic(f"it is longer than {max_length} characters")
    try:
        tree = _Reader(text, max_depth, max_digits).whole()
        return Arithmetic(value_of(tree), tuple(sorted(_numbers(tree))), written(canonical(tree)))
    except _UnreadableError as error:
        return NotArithmetic(str(error))
    except ZeroDivisionError:
        return NotArithmetic("it divides by zero")


def value_of(expression: Expression) -> Fraction:
    """Exact value; raises ZeroDivisionError where it divides by zero."""
    if isinstance(expression, int):
        return Fraction(expression)
    value = Fraction(0 if isinstance(expression, Sum) else 1)
    if isinstance(expression, Sum):
        for sign, term in expression.terms:
            value += sign * value_of(term)
        return value
    for exponent, factor in expression.factors:
        value = value * value_of(factor) if exponent == 1 else value / value_of(factor)
    return value


def written(expression: Expression) -> str:
    """The expression as text that `read_arithmetic` reads."""
    if isinstance(expression, int):
        return str(expression)
    if isinstance(expression, Sum):
        text = "".join(f" {'+' if sign == 1 else '-'} {_inside(term, Sum)}" for sign, term in expression.terms)
        return text.removeprefix(" + ") if expression.terms[0][0] == 1 else text[1:]
    text = "".join(
        f" {'*' if exponent == 1 else '/'} {_inside(factor, (Sum, Product))}" for exponent, factor in expression.factors
    )
    return text.removeprefix(" * ")


def canonical(expression: Expression) -> Expression:
    """The normal form behind ``Arithmetic.canonical``: sums and products flat and sorted, signs as far out as can be.

    Raises:
        ZeroDivisionError: It divides by zero.
    """
    sign, form = _normal(expression)
    if sign == 1:
        return form
    if isinstance(form, Sum):
        return Sum(_sorted_parts([(-s, term) for s, term in form.terms]))
    return Sum(((-1, form),))


def _inside(expression: Expression, bracketed: type | tuple[type, ...]) -> str:
    return f"({written(expression)})" if isinstance(expression, bracketed) else written(expression)


def _numbers(expression: Expression) -> Iterator[int]:
    if isinstance(expression, int):
        yield expression
        return
    for _, part in expression.terms if isinstance(expression, Sum) else expression.factors:
        yield from _numbers(part)


def _normal(expression: Expression) -> tuple[int, Expression]:
    """A sign and what it stands before; of a sum and its negative only the one that is positive occurs."""
    if isinstance(expression, int):
        return 1, expression
    if isinstance(expression, Sum):
        return _normal_sum(expression)
    sign, factors = 1, list[tuple[int, Expression]]()
    for exponent, factor in expression.factors:
        own_sign, form = _normal(factor)
        sign *= own_sign
        inner = form.factors if isinstance(form, Product) else ((1, form),)
        factors += [(exponent * e, part) for e, part in inner]
    return sign, Product(_sorted_parts(factors))


def _normal_sum(expression: Sum) -> tuple[int, Expression]:
    terms: list[tuple[int, Expression]] = []
    for outer, term in expression.terms:
        sign, form = _normal(term)
        inner = form.terms if isinstance(form, Sum) else ((1, form),)
        terms += [(outer * sign * s, part) for s, part in inner]
    if len(terms) == 1:
        return terms[0]
    ours, negative = (Sum(_sorted_parts([(sign * s, part) for s, part in terms])) for sign in (1, -1))
    value = value_of(ours)
    keep = value > 0 or (value == 0 and _key(ours) <= _key(negative))
    return (1, ours) if keep else (-1, negative)


def _sorted_parts(parts: list[tuple[int, Expression]]) -> tuple[tuple[int, Expression], ...]:
    """What adds or multiplies first, each in the order of numbers, then of texts."""
    return tuple(sorted(parts, key=_part_key))


def _part_key(part: tuple[int, Expression]) -> tuple[int, bool, int, str]:
    sign, expression = part
    plain = isinstance(expression, int)
    return -sign, not plain, expression if isinstance(expression, int) else 0, "" if plain else written(expression)


def _key(expression: Sum) -> list[tuple[int, bool, int, str]]:
    return [_part_key(term) for term in expression.terms]


class _UnreadableError(Exception):
    """The text is no expression; says why."""


class _Reader:
    """Recursive descent over the tokens of a text, bounded in depth."""

    def __init__(self, text: str, max_depth: int, max_digits: int):
        self.max_depth, self.max_digits = max_depth, max_digits
        self.tokens = list(_tokens(_NO_MEANING.sub(" ", _SIGN.sub(lambda found: _SIGNS[found[0]], text))))
        self.place = 0

    def whole(self) -> Expression:
        tree = self.sum(0)
        if self.place < len(self.tokens):
            raise _UnreadableError(f"{self.tokens[self.place]!r} stands where an operator or the end should")
        return tree

    def sum(self, depth: int) -> Expression:
        terms = [(1, self.product(depth))]
        while (sign := self.peek()) in ("+", "-"):
            self.place += 1
            terms.append((1 if sign == "+" else -1, self.product(depth)))
        return Sum(tuple(terms)) if len(terms) > 1 else terms[0][1]

    def product(self, depth: int) -> Expression:
        factors = [(1, self.factor(depth))]
        while (sign := self.peek()) in ("*", "/"):
            self.place += 1
            factors.append((1 if sign == "*" else -1, self.factor(depth)))
        return Product(tuple(factors)) if len(factors) > 1 else factors[0][1]

    def factor(self, depth: int) -> Expression:
        if depth > self.max_depth:
            raise _UnreadableError(f"brackets or signs are nested more than {self.max_depth} deep")
        token = self.peek()
        self.place += 1
        if token is None:
            raise _UnreadableError("it ends where a number should stand")
        if token == "-":
            return Sum(((-1, self.factor(depth + 1)),))
        if token.startswith("\\"):
            return Product(((1, self.braces(depth)), (-1, self.braces(depth))))
        if token in _CLOSING:
            return self.bracketed(token, depth)
        if not token.isdecimal():
            raise _UnreadableError(f"{token!r} stands where a number should")
        if len(token) > self.max_digits:
            raise _UnreadableError(f"a number has more than {self.max_digits} digits")
        return int(token)

    def braces(self, depth: int) -> Expression:
        if self.peek() != "{":
            raise _UnreadableError("a fraction needs two parts in braces")
        self.place += 1
        return self.bracketed("{", depth)

    def bracketed(self, opening: str, depth: int) -> Expression:
        tree = self.sum(depth + 1)
        if self.peek() != _CLOSING[opening]:
            raise _UnreadableError(f"{opening!r} is not closed")
        self.place += 1
        return tree

    def peek(self) -> str | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None


def _tokens(text: str) -> Iterator[str]:
    text = text.rstrip()
    if not text:
        raise _UnreadableError("it is empty")
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise _UnreadableError(f"{text[place:].lstrip()[:1]!r} is no part of arithmetic")
        yield found[1]
        place = found.end()
