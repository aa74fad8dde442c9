"""Reasoning and answer of a reply, and how reasoning is cut into beginnings (REMUL, arXiv:2602.16154, section 2.2)."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Unit = Literal["line", "sentence", "token"]
ShortTrace = Literal["as_is", "refine"]

UNITS: tuple[Unit, ...] = ("line", "sentence", "token")  # from the longest to the shortest
FRACTIONS = (0.25, 0.5, 0.75)  # as published
FEWEST_UNITS = 4  # with fewer, beginnings at different fractions coincide
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)  # no slots: the command line reads defaults from __dict__
class ThinkTags:
    """What opens and closes the reasoning of a model; other families of models have others."""

    open: str = "<think>"
    close: str = "</think>"

    def __post_init__(self) -> None:
        if not self.open.strip() or not self.close.strip() or self.open == self.close:
            raise ValueError(f"think tags are {self.open!r} and {self.close!r}; give two different texts.")


DEFAULT_TAGS = ThinkTags()


@dataclass(frozen=True, slots=True)
class Trace:
    """A reply in its parts."""

    reasoning: str  # strictly inside the first think block
    answer_section: str  # behind it; empty if the block is not closed
    closed: bool


def split_trace(text: str, tags: ThinkTags = DEFAULT_TAGS) -> Trace:
    """The parts of a reply.

    A block without an opening tag was opened by the prompt and begins with the reply.

    Example:
        >>> split_trace("<think> so </think> Answer: B")
        Trace(reasoning=' so ', answer_section=' Answer: B', closed=True)
    """
    before, close, answer_section = text.partition(tags.close)
    _, opened, inside = before.partition(tags.open)
    return Trace(inside if opened else before, answer_section, bool(close))


def split_units(text: str, unit: Unit = "line") -> list[str]:
    """The units of a reasoning, without white space around them; blank ones are none.

    Args:
        text: The reasoning.
        unit: "line"; "sentence", which ends with ``.``, ``!`` or ``?`` before white space; "token", by which we mean a
            word: the tokenizers of speaker and listeners differ.
    """
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}; it must be one of {list(UNITS)}.")
    if unit == "token":
        return text.split()
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    return lines if unit == "line" else [piece for piece in _SENTENCE_END.split("\n".join(lines)) if piece]


def join_units(units: Sequence[str], unit: Unit = "line") -> str:
    """Text of units: lines stand below each other, sentences and tokens one space apart."""
    return ("\n" if unit == "line" else " ").join(units)


def keep(n: int, p: float) -> int:
    """How many of ``n`` units the fraction ``p`` keeps: ``floor(n p)``, and at least one of any.

    Example:
        >>> [keep(7, p) for p in (0.25, 0.5, 0.75)], keep(100, 0.29)
        ([1, 3, 5], 29)
    """
    return 0 if n == 0 else max(1, math.floor(n * p + 1e-9))  # 1e-9 against binary rounding: 100 * 0.29 < 29


def refined_units(
    reasoning: str, unit: Unit = "line", short_trace: ShortTrace = "refine"
) -> tuple[Unit | None, list[str]]:
    """The units a reasoning is cut at, and of which kind they are.

    Args:
        reasoning: Of one reply.
        unit: Of which there should be at least four.
        short_trace: "as_is" takes fewer (as in the authors' code, which pays for leaving out line breaks); "refine"
            takes the longest shorter kind of which there are four (ours).

    Returns:
        Kind and units; None and no units if there is nothing to cut.
    """
    if short_trace not in ("as_is", "refine"):
        raise ValueError(f"short_trace is {short_trace!r}; it must be 'as_is' or 'refine'.")
    units = split_units(reasoning, unit)
    if short_trace == "as_is":
        return (unit, units) if units else (None, [])
    for kind in UNITS[UNITS.index(unit) :]:
        units = split_units(reasoning, kind)
        if len(units) >= FEWEST_UNITS:
            return kind, units
    return None, []


def prefixes(
    reasoning: str,
    fractions: Sequence[float] = FRACTIONS,
    unit: Unit = "line",
    short_trace: ShortTrace = "refine",
) -> list[str]:
    """Beginnings of a reasoning, one for each fraction of its units; none at all if it cannot be cut.

    Args:
        reasoning: Of one reply.
        fractions: Each strictly between 0 and 1.
        unit: As for `refined_units`, as is ``short_trace``.
        short_trace: What to do with fewer than four units.

    Example:
        >>> prefixes("a\\nb\\n\\nc\\nd\\n")
        ['a', 'a\\nb', 'a\\nb\\nc']
    """
    check_fractions(fractions)
    kind, units = refined_units(reasoning, unit, short_trace)
    if kind is None:
        return []
    return [join_units(units[: keep(len(units), fraction)], kind) for fraction in fractions]


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise ValueError unless there are fractions and each lies strictly between 0 and 1."""
    if not fractions or not all(0 < fraction < 1 for fraction in fractions):
        raise ValueError(f"fractions are {list(fractions)}; give at least one, each strictly between 0 and 1.")
