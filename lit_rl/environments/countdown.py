"""Countdown: make a number from others, in any of several right ways.

The puzzles are reasoning-gym's.  Its verifier evaluates a model's text as code, so no answer meets it: answers are read
by `lit_rl.verification.arithmetic` alone.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from typing import Any

from lit_rl.environments.problems import Attempt, Problem
from lit_rl.environments.reasoning import check_prompt, filled_prompt, gym_dataset
from lit_rl.verification.answers import AnswerFormat, verify_answer
from lit_rl.verification.arithmetic import (
    Arithmetic,
    Expression,
    NotArithmetic,
    Product,
    Sum,
    canonical,
    read_arithmetic,
    written,
)

MOST_NUMBERS = 4  # whose solutions are enumerated: five already have hundreds of thousands of expressions


class CountdownTasks:
    """``ans 3 * (1 + 7)`` makes 24 of 7, 3 and 1; every expression that does, with each number used once, is right.

    An attempt's ``answer`` is the canonical form of its expression (`lit_rl.verification.arithmetic.Arithmetic`), so
    that counting different answers counts different solutions.

    Args:
        size: Number of problems.
        seed: Of the problems.
        options: Of reasoning-gym's config: ``min_numbers``, ``max_numbers`` (4 to 6 unless said otherwise),
            ``min_value``, ``max_value``, ``min_target``, ``max_target``, ``operators``, ``shuffle``.
        prompt: What the student reads, with ``{question}``, ``{numbers}`` and ``{target}`` filled in as in
            `ReasoningGymTasks`: "make {target} of {numbers}" becomes "make 24 of 7 3 1".
        answer_format: "marked" for ``ans ...``, "boxed" for LaTeX's box.
        distinct: No two problems with the same numbers and target, so that held-out problems are new; all are then made
            at once, about 15 ms each with six numbers.  False makes each when it is asked for.
        min_solutions: Leave out problems with fewer solutions of different canonical forms.  More than 1 needs
            ``distinct`` and at most 4 numbers.

    Raises:
        ValueError: An option or a field that does not exist, or too few problems that fit.
        ImportError: reasoning-gym is not installed.
    """

    name = "countdown"

    def __init__(
        self,
        size: int = 1000,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        prompt: str = "{question}",
        *,
        answer_format: AnswerFormat = "marked",
        distinct: bool = True,
        min_solutions: int = 1,
    ):
        for option, value in (("size", size), ("min_solutions", min_solutions)):
            if value < 1:
                raise ValueError(f"CountdownTasks.{option} is {value}; it must be at least 1.")
        if answer_format not in ("marked", "boxed"):
            raise ValueError(f"CountdownTasks.answer_format is {answer_format!r}; it must be 'marked' or 'boxed'.")
        self.size, self.seed, self.prompt, self.answer_format = size, seed, prompt, answer_format
        self.min_solutions = min_solutions
        self._dataset = gym_dataset("countdown", 20 * size + 20, seed, dict(options or {}), owner="CountdownTasks")
        for number in range(8):
            self._item(number)
        check_prompt(prompt, self._dataset, owner="CountdownTasks")
        if min_solutions > 1:
            self._check_enumerable(distinct)
        self._made: dict[int, Problem] = {}
        self._items: Sequence[int] = self._distinct() if distinct else range(size)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < self.size:
            raise IndexError(index)
        number = self._items[index]
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        attempt = verify_answer(
            utterance, problem.gold, self.answer_format, lambda answer: solves(answer, **problem.meta)
        )
        found = None if attempt.answer is None else read_arithmetic(attempt.answer)
        return replace(attempt, answer=found.canonical) if isinstance(found, Arithmetic) else attempt

    def _item(self, number: int) -> Any:
        try:
            return self._dataset[number]
        except ValueError as error:  # it tries a hundred random expressions
            raise ValueError(
                f"CountdownTasks.options: reasoning-gym found no puzzle number {number} that fits them ({error}); move "
                "or widen the targets."
            ) from error

    def _make(self, number: int) -> Problem:
        item = self._item(number)
        found = read_arithmetic(item["answer"])
        if isinstance(found, NotArithmetic):
            raise ValueError(f"countdown {number} of reasoning-gym has the answer {item['answer']!r}: {found.reason}.")
        return Problem(
            id=f"{self.name}-{self.seed}-{number}",
            domain=self.name,
            prompt=filled_prompt(self.prompt, item),
            gold=found.canonical,
            private={"answer": found.canonical},
            meta={"numbers": tuple(item["metadata"]["numbers"]), "target": int(item["metadata"]["target"])},
        )

    def _distinct(self) -> list[int]:
        """The first ``size`` items with different puzzles, in another order if some were drawn twice."""
        seen: set[tuple[tuple[int, ...], int]] = set()
        items: list[int] = []
        drawn = 0
        while len(items) < self.size:
            if drawn == len(self._dataset):
                raise ValueError(
                    f"CountdownTasks.size is {self.size}, but {drawn} problems of reasoning-gym hold only {len(items)} "
                    f"different ones with at least {self.min_solutions} solutions; lower it or widen the options."
                )
            problem = self._make(drawn)
            numbers, target = problem.meta["numbers"], problem.meta["target"]
            puzzle = tuple(sorted(numbers)), target
            if puzzle not in seen and self._has_enough(numbers, target):
                items.append(drawn)
                self._made[drawn] = problem
            seen.add(puzzle)
            drawn += 1
        if drawn > self.size:  # the likely ones came first, and the last are what is held out
            random.Random(self.seed).shuffle(items)
        return items

    def _has_enough(self, numbers: Sequence[int], target: int) -> bool:
        return self.min_solutions == 1 or len(countdown_solutions(numbers, target)) >= self.min_solutions

    def _check_enumerable(self, distinct: bool) -> None:
        most = self._dataset.config.max_numbers
        if not distinct or most > MOST_NUMBERS:
            raise ValueError(
                f"CountdownTasks.min_solutions is {self.min_solutions}, which needs distinct=True and the option "
                f"max_numbers at most {MOST_NUMBERS}; they are {distinct} and {most}."
            )


def solves(answer: str, numbers: Sequence[int], target: int) -> bool:
    """Whether an expression equals ``target`` exactly and uses every one of ``numbers`` once, and no other.

    Example:
        >>> solves("3 * (1 + 7)", (7, 3, 1), 24), solves("3 * 8", (7, 3, 1), 24)
        (True, False)
    """
    found = read_arithmetic(answer)
    return isinstance(found, Arithmetic) and found.value == target and found.numbers == tuple(sorted(numbers))


def countdown_solutions(numbers: Sequence[int], target: int) -> frozenset[str]:
    """Canonical forms of all solutions; only for up to four numbers.

    Example:
        >>> sorted(countdown_solutions((2, 3, 6), 9))
        ['2 * 6 - 3', '3 * 6 / 2']
    """
    if not 1 <= len(numbers) <= MOST_NUMBERS:
        raise ValueError(f"countdown_solutions: there are {len(numbers)} numbers; give 1 .. {MOST_NUMBERS}.")
    found = _expressions(tuple((number, Fraction(number)) for number in numbers))
    return frozenset(written(canonical(expression)) for expression, value in found if value == target)


_Valued = tuple[Expression, Fraction]


def _expressions(parts: tuple[_Valued, ...]) -> Iterator[_Valued]:
    """Whatever can be made of all parts."""
    if len(parts) == 1:
        yield parts[0]
        return
    for i, k in combinations(range(len(parts)), 2):
        others = tuple(part for place, part in enumerate(parts) if place not in (i, k))
        for joined in _joined(parts[i], parts[k]):
            yield from _expressions((joined, *others))


def _joined(left: _Valued, right: _Valued) -> Iterator[_Valued]:
    (a, x), (b, y) = left, right
    yield Sum(((1, a), (1, b))), x + y
    yield Sum(((1, a), (-1, b))), x - y
    yield Sum(((1, b), (-1, a))), y - x
    yield Product(((1, a), (1, b))), x * y
    if y:
        yield Product(((1, a), (-1, b))), x / y
    if x:
        yield Product(((1, b), (-1, a))), y / x
