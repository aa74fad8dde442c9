"""Verification: finding the answer in a text and checking it."""

from lit_rl.verification.answers import AnswerFormat, boxed_answer, marked_answer, marked_text, verify_answer
from lit_rl.verification.attempts import Attempt, AttemptKind
from lit_rl.verification.equality import math_equal

__all__ = [
    "AnswerFormat",
    "Attempt",
    "AttemptKind",
    "boxed_answer",
    "marked_answer",
    "marked_text",
    "math_equal",
    "verify_answer",
]
