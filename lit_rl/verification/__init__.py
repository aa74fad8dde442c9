"""Verification: finding the answer in a text and checking it."""

from lit_rl.verification.answers import AnswerFormat, boxed_answer, marked_answer, marked_text, verify_answer
from lit_rl.verification.arithmetic import Arithmetic, NotArithmetic, read_arithmetic
from lit_rl.verification.assertions import Assertions
from lit_rl.verification.attempts import Attempt, AttemptKind
from lit_rl.verification.code import CodeTests, code_answer, run_tests
from lit_rl.verification.code_runs import Limits, StdinTest
from lit_rl.verification.equality import math_equal
from lit_rl.verification.labels import extract_label, same_label
from lit_rl.verification.traces import ThinkTags, keep, prefixes, split_trace

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
    "ThinkTags",
    "boxed_answer",
    "code_answer",
    "extract_label",
    "keep",
    "marked_answer",
    "marked_text",
    "math_equal",
    "prefixes",
    "read_arithmetic",
    "run_tests",
    "same_label",
    "split_trace",
    "verify_answer",
]
