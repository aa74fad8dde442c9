"""What a reply answers, and whether it is right."""

from collections.abc import Callable, Sequence
from typing import Literal

from lit_rl.verification.attempts import Attempt
from lit_rl.verification.equality import math_equal
from lit_rl.verification.extraction import (
    asks,
    boxed_texts,
    marked_numbers,
    marked_question,
    marked_texts,
    normalized,
    visible,
)

AnswerFormat = Literal["marked", "boxed"]
Right = Callable[[str], bool]


def marked_answer(utterance: str, gold: str) -> Attempt:
    """An answer of the small worlds: ``ans`` and whole numbers, ``ask`` for a question."""
    asked = "ask" in utterance.split()
    return _attempt(utterance, marked_numbers(utterance), str.__eq__, gold.__eq__, asked)


def marked_text(utterance: str, gold: str, right: Right | None = None) -> Attempt:
    """Like `marked_answer` where answers are words, or numbers that are not whole.

    Args:
        utterance: What was said.
        gold: The right answer.
        right: Whether an answer is right; None compares it with ``gold`` without spaces.
    """
    answers, asked = marked_texts(utterance), marked_question(utterance)
    return _attempt(utterance, answers, same_text, right or (lambda answer: same_text(answer, gold)), asked)


def boxed_answer(utterance: str, gold: str, right: Right | None = None) -> Attempt:
    r"""The answer in ``\boxed{...}``, outside hidden reasoning; several that differ in value are a hedge.

    Args:
        utterance: What was said.
        gold: The right answer.
        right: Whether an answer is right; None compares it with ``gold`` by `math_equal`.
    """
    said = visible(utterance)
    right = right or (lambda answer: math_equal(answer, gold))
    return _attempt(utterance, boxed_texts(said), math_equal, right, asks(said))


def verify_answer(utterance: str, gold: str, answer_format: AnswerFormat, right: Right | None = None) -> Attempt:
    """Read and check an utterance.

    Args:
        utterance: What was said.
        gold: The right answer.
        answer_format: "marked" is `marked_answer`, or `marked_text` where ``gold`` is no whole number; "boxed" is
            `boxed_answer`.
        right: Whether an answer is right; None compares it with ``gold`` as the format does.
    """
    if answer_format == "boxed":
        return boxed_answer(utterance, gold, right)
    if right is None and marked_numbers(f"ans {gold}") == [gold]:
        return marked_answer(utterance, gold)
    return marked_text(utterance, gold, right)


def same_text(answer: str, gold: str) -> bool:
    """Whether two texts are the same but for spaces and punctuation that mean nothing."""
    return normalized(answer) == normalized(gold)


def _attempt(
    utterance: str, answers: Sequence[str], same: Callable[[str, str], bool], right: Right, asked: bool
) -> Attempt:
    if not answers:
        if not utterance.strip():
            return Attempt("empty")
        return Attempt("question" if asked else "malformed")
    answer = answers[-1]
    if any(other != answer and not same(other, answer) for other in answers[:-1]):
        return Attempt("hedge")
    return Attempt("both" if asked else "answer", answer, right(answer))
