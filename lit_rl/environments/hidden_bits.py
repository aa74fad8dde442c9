"""HiddenBits: ask for one bit after the other, or guess the number they make; which is better is known exactly.

Our small world for SML: with a discount and free guesses it is often best to guess too early, and a penalty for wrong
guesses makes questions pay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lit_rl.environments.problems import Attempt, Problem
from lit_rl.environments.teachers import PLEASE, TeacherContext
from lit_rl.verification.answers import marked_answer

BIT_WORDS = ("off", "on")  # words, so that no reply can hold the number that is the answer


class HiddenBits:
    """``find 3 bits`` hides a number of 0 .. 7; ``ans 5`` guesses it, ``ask`` asks for its next bit.

    Args:
        bits: How many; there is one problem for each number.

    Raises:
        ValueError: Fewer than one bit, or more than 16.
    """

    name = "HiddenBits"

    def __init__(self, bits: int = 3):
        if not 1 <= bits <= 16:
            raise ValueError(f"HiddenBits.bits is {bits}; it must lie in 1 .. 16.")
        self.bits = bits

    def __len__(self) -> int:
        return 1 << self.bits

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Problem(
            id=str(index),
            domain="hidden_bits",
            prompt=f"find {self.bits} bits",
            gold=str(index),
            private={"answer": str(index), "bits": f"{index:0{self.bits}b}"},
        )

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return marked_answer(utterance, problem.gold)

    def incomplete(self, problem: Problem, heard: Sequence[str]) -> bool:
        """Whether a student who heard this does not know all bits yet."""
        return sum(said in BIT_WORDS for said in heard) < self.bits

    def ceiling(self, turns: int) -> list[float]:
        """Best accuracy within ``k`` turns: every turn before the last halves the numbers left, ``2^(k-1) / 2^bits``.

        Each entry is the best of its own; no one student need reach all of them.
        """
        return [min(1.0, 2.0 ** (k - 1 - self.bits)) for k in range(1, turns + 1)]


class BitTeacher:
    """Tells the next bit, most significant first, as ``on`` or ``off``, to whoever asks, and of a guess only ``no``.

    An attempt that also asks is an attempt.  Whoever asks after all bits were told hears ``no`` too: there is nothing
    left to tell.  Whoever does neither hears ``please answer or ask``.
    """

    def __call__(self, context: TeacherContext, key: int) -> str:
        if context.attempt.kind == "question":
            told = sum(said in BIT_WORDS for _, said in context.history)
            bits = context.problem.private["bits"]
            return BIT_WORDS[int(bits[told])] if told < len(bits) else "no"
        return PLEASE if context.attempt.answer is None else "no"


@dataclass(frozen=True, slots=True)
class PlanValue:
    """What a plan is worth: probability of solving, and expected discounted return."""

    solved: float
    value: float


def plan_value(bits: int, turns: int, asks: int, gamma: float = 1.0, penalty: float = 0.0) -> PlanValue:
    """Exact value of "ask ``asks`` times, then guess without repeats" in `HiddenBits`.

    With ``M = 2^(bits - asks)`` numbers left and ``G = min(turns - asks, M)`` guesses, guess ``i`` is right with
    probability ``1 / M``, so ``P(solved) = G / M`` and the return is
    ``sum_i gamma^(asks + i - 1) (1 - penalty (M - i)) / M``.

    Args:
        bits: Hidden bits.
        turns: Student turns.
        asks: Questions before the first guess; those after the last bit tell nothing.
        gamma: Discount per turn, from the first turn on.
        penalty: Taken from the reward of each wrong guess.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> plan_value(bits=3, turns=4, asks=1)
        PlanValue(solved=0.75, value=0.75)
    """
    if bits < 1 or turns < 1 or not 0 <= asks <= turns:
        raise ValueError(
            f"plan_value: bits {bits} and turns {turns} must be at least 1, and asks {asks} lie in 0 .. turns."
        )
    if not 0 <= gamma <= 1 or penalty < 0:
        raise ValueError(f"plan_value: gamma {gamma} must lie in [0, 1], and penalty {penalty} be at least 0.")
    left = 2 ** max(0, bits - asks)
    guesses = min(turns - asks, left)
    value = sum(gamma ** (asks + i - 1) * (1 - penalty * (left - i)) / left for i in range(1, guesses + 1))
    return PlanValue(guesses / left, value)


def best_asks(bits: int, turns: int, gamma: float = 1.0, penalty: float = 0.0) -> int:
    """The number of questions whose `plan_value` is highest; the smallest of equals.

    Example:
        >>> best_asks(bits=3, turns=4, gamma=0.7), best_asks(bits=2, turns=4, gamma=0.7)
        (2, 0)
    """
    return max(range(turns + 1), key=lambda asks: plan_value(bits, turns, asks, gamma, penalty).value)
