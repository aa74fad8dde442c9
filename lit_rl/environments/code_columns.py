"""From the columns of code data sets to tests."""

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lit_rl.verification.assertions import Assertions
from lit_rl.verification.code import CodeTests, UnitTest
from lit_rl.verification.code_runs import StdinTest

# What solutions in the form of LeetCode take for granted.
FUNCTION_PREAMBLE = """
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
"""


@dataclass(frozen=True, kw_only=True)
class CodeColumns:
    """Names of the columns of a code data set; None where it has none.

    Args:
        prompt: The problem.
        assertions: Unit tests with ``assert``: a list of texts, or the text of a JSON list of them.
        public_cases: A JSON list of objects with ``input``, ``output`` and ``testtype``, "stdin" or "functional", whose
            outcome a teacher may know.
        hidden_cases: Likewise, of which nothing is told; or the same compressed, as LiveCodeBench has it.
        metadata: A JSON object whose ``func_name`` functional tests call, as a method of ``Solution``: their input
            is one argument in JSON on each line.
        starter: Code that an answer has to complete; may be empty.
        solution: A right program, or a text whose last fenced block is one; only a teacher sees it.
        score: Share of its tests the solution passes; rows with less than 1 are left out.
        id: Names problems.

    Raises:
        ValueError: No column holds tests.
    """

    prompt: str
    assertions: str | None = None
    public_cases: str | None = None
    hidden_cases: str | None = None
    metadata: str | None = None
    starter: str | None = None
    solution: str | None = None
    score: str | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if self.assertions is None and self.public_cases is None and self.hidden_cases is None:
            raise ValueError(
                "CodeColumns names no column with tests; give assertions, public_cases or hidden_cases (or several)."
            )

    def names(self) -> list[str]:
        """All columns, each once."""
        values = (getattr(self, field.name) for field in fields(self))
        return list(dict.fromkeys(value for value in values if value is not None))


LAYOUTS = {
    # nvidia/OpenCodeInstruct (sml.md section 13): ten assertions a row, written by a model
    "open_code_instruct": CodeColumns(
        prompt="input", assertions="unit_tests", solution="output", score="average_test_score", id="id"
    ),
    # livecodebench/code_generation and code_generation_lite; names as its loader has them
    "live_code_bench": CodeColumns(
        prompt="question_content",
        public_cases="public_test_cases",
        hidden_cases="private_test_cases",
        metadata="metadata",
        starter="starter_code",
        id="question_id",
    ),
}


def tests_of(row: Mapping[str, Any], columns: CodeColumns, public_assertions: int) -> CodeTests:
    """All tests of a row; the first ``public_assertions`` of its assertions are public.

    Raises:
        ValueError: A column does not hold what it should, or there is no test; the sentence begins in lower case.
    """
    public: list[UnitTest] = []
    hidden: list[UnitTest] = []
    if columns.assertions is not None:
        made = [Assertions(text) for text in _texts(row[columns.assertions], columns.assertions)]
        public, hidden = list(made[:public_assertions]), list(made[public_assertions:])
    function = _function(row, columns)
    if columns.public_cases is not None:
        public += _cases(row[columns.public_cases], columns.public_cases, function)
    if columns.hidden_cases is not None:
        hidden += _cases(row[columns.hidden_cases], columns.hidden_cases, function)
    if not public and not hidden:
        raise ValueError("there are no tests in it; any program would pass.")
    preamble = FUNCTION_PREAMBLE if function else ""
    return CodeTests(public=tuple(public), hidden=tuple(hidden), preamble=preamble)


def _texts(value: Any, column: str) -> list[str]:
    found = _json(value, column) if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"column {column!r} holds {str(value)[:60]!r}; wanted a list of texts, or JSON of one.")
    return found


def _function(row: Mapping[str, Any], columns: CodeColumns) -> str:
    """The name of the method that functional tests call, "" if there is none."""
    if columns.metadata is None:
        return ""
    value = row[columns.metadata]
    found = _json(value, columns.metadata) if isinstance(value, str) else value
    name = found.get("func_name") if isinstance(found, Mapping) else None
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(f"column {columns.metadata!r} has the func_name {name!r}, which is no name of a function.")
    return name or ""


def _cases(value: Any, column: str, function: str) -> list[UnitTest]:
    cases = value
    if isinstance(value, str):
        cases = _json(value if value.lstrip().startswith("[") else _unpacked(value, column), column)
    if not isinstance(cases, list) or not all(_is_case(case) for case in cases):
        raise ValueError(
            f"column {column!r} holds {str(cases)[:60]!r}; wanted a JSON list of objects with the texts input, output "
            "and testtype ('stdin' or 'functional')."
        )
    return [
        StdinTest(case["input"], case["output"])
        if case["testtype"] == "stdin"
        else _called(case["input"], case["output"], column, function)
        for case in cases
    ]


def _is_case(case: Any) -> bool:
    return (
        isinstance(case, Mapping)
        and all(isinstance(case.get(name), str) for name in ("input", "output"))
        and case.get("testtype") in ("stdin", "functional")
    )


def _called(given: str, output: str, column: str, function: str) -> Assertions:
    """A functional test as an assertion; a tuple may be given for a list, as in LiveCodeBench."""
    if not function:
        raise ValueError(f"column {column!r} has a functional test, but there is no func_name to call in the metadata.")
    arguments = ", ".join(repr(_json(line, column)) for line in given.split("\n") if line.strip())
    expected, call = _json(output, column), f"Solution().{function}({arguments})"
    return Assertions(f"assert {f'list({call})' if isinstance(expected, list) else call} == {expected!r}")


def _json(text: str, column: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"column {column!r} holds {text[:60]!r}, which is not JSON ({error}).") from error


def _unpacked(text: str, column: str) -> str:
    """LiveCodeBench's hidden tests: base64 of zlib of a pickled text; a pickle of anything else is refused."""
    try:
        found = _TextUnpickler(io.BytesIO(zlib.decompress(base64.b64decode(text, validate=True)))).load()
    except (binascii.Error, ValueError, zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"column {column!r} holds {text[:60]!r}, neither a JSON list nor a packed one.") from error
    if not isinstance(found, str):
        raise ValueError(f"column {column!r} holds a packed {type(found).__name__}; wanted the text of a JSON list.")
    return found


class _TextUnpickler(pickle.Unpickler):
    """Reads texts and numbers; whatever names a class or a function, and could run code by it, is refused."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")
