"""DigitEdit: sums or small programs whose answers are corrected digit by digit (our small worlds for SML).

Feedback and the edit it asks for are the same in both domains, the computation is not: whoever learned to use the
feedback in one can use it in the other.
"""

import re
from random import Random
from typing import Literal

from lit_rl.environments.problems import Attempt, Problem
from lit_rl.environments.teachers import PLEASE, TeacherContext
from lit_rl.verification.answers import marked_answer

_ASK = re.compile(r"\bask\s+digit\s+(\d)(?!\d)")
_STEPS = [*(("+", n) for n in range(10)), *(("*", n) for n in range(2, 10))]


class DigitEdit:
    """``add 47 85`` is ``ans 1 3 2``, ``run a = 4 ; a + 7 ; a * 2`` is ``ans 0 2 2``; all problems differ.

    Args:
        domain: "add" two numbers of ``width - 1`` digits, or "prog", a number below 10 and two steps.
        size: Number of problems.
        seed: Which of all problems, and in which order.
        width: Digits of every answer, leading zeros included.
    """

    def __init__(self, domain: Literal["add", "prog"] = "add", size: int = 1000, seed: int = 0, width: int = 3):
        if domain not in ("add", "prog"):
            raise ValueError(f"DigitEdit.domain is {domain!r}; it must be 'add' or 'prog'.")
        if not 2 <= width <= 9:  # with one digit, any number the teacher says could be the answer
            raise ValueError(f"DigitEdit.width is {width}; it must lie in 2 .. 9.")
        self.name, self.domain, self.size, self.width = f"DigitEdit-{domain}", domain, size, width
        codes = range(10 ** (2 * width - 2)) if domain == "add" else _program_codes(width)
        if not 1 <= size <= len(codes):
            raise ValueError(
                f"DigitEdit.size is {size}; with width {width}, {domain!r} has 1 .. {len(codes)} problems."
            )
        self._codes = Random(seed).sample(codes, size)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < self.size:
            raise IndexError(index)
        code = self._codes[index]
        prompt, result = self._sum(code) if self.domain == "add" else _program(code)
        digits = f"{result:0{self.width}d}"
        return Problem(
            id=f"{self.domain}-{code}",
            domain=self.domain,
            prompt=prompt,
            gold=" ".join(digits),
            private={"answer": digits},
        )

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return marked_answer(utterance, problem.gold)

    def _sum(self, code: int) -> tuple[str, int]:
        a, b = divmod(code, 10 ** (self.width - 1))
        return f"add {a} {b}", a + b


def _program(code: int) -> tuple[str, int]:
    rest, second = divmod(code, len(_STEPS))
    start, first = divmod(rest, len(_STEPS))
    prompt, result = f"run a = {start}", start
    for operator, number in (_STEPS[first], _STEPS[second]):
        prompt += f" ; a {operator} {number}"
        result = result + number if operator == "+" else result * number
    return prompt, result


def _program_codes(width: int) -> list[int]:
    return [code for code in range(10 * len(_STEPS) ** 2) if _program(code)[1] < 10**width]


class DigitHint:
    """Names the first wrong digit and its direction; says of a digit asked for whether it is even, then its size.

    For 1 3 2, the attempt 1 2 2 hears ``digit 2 up``, 1 4 2 ``digit 2 down``, 1 3 ``need 3 digits``.  ``ask digit 2``
    hears ``digit 2 odd`` the first time and ``digit 2 small`` (below 5, else ``big``) from then on.
    """

    def __call__(self, context: TeacherContext, key: int) -> str:
        gold = context.problem.gold.split()
        if context.attempt.answer is not None:
            return self._correct(context.attempt.answer.split(), gold)
        asked = _ASK.search(context.utterance) if context.attempt.kind == "question" else None
        if asked is None or not 1 <= int(asked[1]) <= len(gold):
            return PLEASE
        place = int(asked[1])
        before = any(f"digit {place} {parity}" == said for _, said in context.history for parity in ("even", "odd"))
        return f"digit {place} {self._fact(int(gold[place - 1]), before)}"

    @staticmethod
    def _correct(given: list[str], gold: list[str]) -> str:
        if len(given) != len(gold) or any(len(digit) != 1 for digit in given):
            return f"need {len(gold)} digits"
        for place, (ours, theirs) in enumerate(zip(given, gold, strict=True), start=1):
            if ours != theirs:
                return f"digit {place} {'up' if int(theirs) > int(ours) else 'down'}"
        return PLEASE  # right: only a teacher who has another problem in mind gets here

    @staticmethod
    def _fact(digit: int, told_parity: bool) -> str:
        if told_parity:
            return "big" if digit >= 5 else "small"
        return "odd" if digit % 2 else "even"
