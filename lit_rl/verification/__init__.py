"""Verification: finding the answer in a text and checking it."""

from lit_rl.verification.answers import AnswerFormat, boxed_answer, marked_answer, marked_text, verify_answer
from lit_rl.verification.arithmetic import Arithmetic, NotArithmetic, read_arithmetic
from lit_rl.verification.assertions import Assertions
from lit_rl.verification.attempts import Attempt, AttemptKind
from lit_rl.verification.code import CodeTests, code_answer, run_tests
from lit_rl.verification.code_runs import Limits, StdinTest
from lit_rl.verification.equality import math_equal

__all__ = [
    "AnswerFormat",
    "Arithmetic",
    "Assertions",
    "Attempt",
    "AttemptKind",
    "CodeTests",
    "Limits",
    "NotArithmetic",
    "StdinTest",
    "boxed_answer",
    "code_answer",
    "marked_answer",
    "marked_text",
    "math_equal",
    "read_arithmetic",
    "run_tests",
    "verify_answer",
]
