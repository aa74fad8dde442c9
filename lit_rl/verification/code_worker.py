"""What runs in the sandbox when a program is tested; its text is sent there, and it imports nothing of lit-rl.

`run_program` reports the values a program gives, `judge` compares such values with the right ones, in another process.
What it imports is paid for in each run: as little as can be.
"""

from __future__ import annotations

import json
import math
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

KINDS: tuple[Any, ...] = (list, tuple, set, frozenset)
SHOWN = 300  # characters of a value or an error that are told


def main() -> None:
    """Read a task from standard input and write a line of JSON for each thing found out."""
    task = json.loads(sys.stdin.read())
    out = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what the program prints is no result
        os.dup2(nowhere, stream)

    def write(**facts: Any) -> None:
        line = json.dumps(facts).encode() + b"\n"
        while line:
            line = line[os.write(out, line) :]

    if "checks" in task:
        judge(task["checks"], write)
    else:
        run_program(task["preamble"], task["code"], task["tests"], write)
    os._exit(0)  # neither threads nor farewells of the program can delay it


def run_program(preamble: str, code: str, tests: list[str], write: Callable[..., None]) -> None:
    """Run a program, then each test with the names it has defined."""
    module = type(sys)("solution")  # under another name than __main__, its main program is not run
    sys.modules["solution"] = module
    try:
        exec(compile(preamble, "preamble.py", "exec", dont_inherit=True), module.__dict__)
        exec(compile(code, "solution.py", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        write(load=described(error))
        return
    write(load="")
    for number, test in enumerate(tests):
        scope = dict(module.__dict__)
        scope["_report"] = reporter(number, write)
        try:
            exec(compile(test, "test.py", "exec", dont_inherit=True), scope)
        except BaseException as error:
            write(test=number, error=described(error))
        else:
            write(test=number, done=True)


def reporter(test: int, write: Callable[..., None]) -> Callable[..., None]:
    """What a test calls in place of an assertion."""

    def report(check: int, *values: Any) -> None:
        # As a text within the line, so that nothing nested is opened outside the sandbox.
        write(test=test, check=check, values=packed(values), shown=[shown(v) for v in values])

    return report


def packed(values: tuple[Any, ...]) -> str:
    """Values as the text of a JSON list."""
    try:
        return json.dumps([encode(value) for value in values])
    except RecursionError:
        return json.dumps([{"opaque": True} for _ in values])


def judge(checks: list[Any], write: Callable[..., None]) -> None:
    """Evaluate each ``[expression, packed values]``."""
    for expression, values in checks:
        try:
            names = {"_values": [decode(value) for value in json.loads(values)], "math": math, "isclose": math.isclose}
            right = bool(eval(expression, names))
        except Exception:  # values that do not fit the test: it fails
            right = False
        write(right=right)


class Opaque:
    """In place of a value that is not plain data: equal to nothing, true or false as it was."""

    def __init__(self, truth: bool):
        self.truth = truth

    def __bool__(self) -> bool:
        return self.truth


def encode(value: Any) -> Any:
    """Plain data as JSON, subclasses as what they extend, so that no method of the program decides a comparison."""
    try:
        return _encode(value)
    except (RecursionError, MemoryError, ValueError):
        return {"opaque": True}


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return {"int": hex(int.__int__(value))}
    if isinstance(value, float):
        return {"float": float.hex(value)}
    if isinstance(value, complex):
        return {"complex": [float.hex(value.real), float.hex(value.imag)]}
    if isinstance(value, bytes):
        return {"bytes": bytes.hex(value)}
    if isinstance(value, dict):
        return {"dict": [[_encode(key), _encode(item)] for key, item in dict.items(value)]}
    for kind in KINDS:
        if isinstance(value, kind):
            return {kind.__name__: [_encode(item) for item in kind.__iter__(value)]}
    return {"opaque": bool(value)}


def decode(code: Any) -> Any:
    """The value `encode` was given."""
    if not isinstance(code, dict):
        return code
    ((kind, content),) = code.items()
    if kind == "dict":
        return {decode(key): decode(item) for key, item in content}
    for known in KINDS:
        if kind == known.__name__:
            return known(map(decode, content))
    if kind == "complex":
        return complex(*map(float.fromhex, content))
    if kind == "opaque":
        return Opaque(bool(content))
    if kind == "int":
        return int(content, 16)
    return float.fromhex(content) if kind == "float" else bytes.fromhex(content)


def shown(value: Any) -> str:
    """A value as its program writes it, cut."""
    try:
        return str.__str__(repr(value))[:SHOWN]
    except Exception as error:
        return f"a {type(value).__name__} whose repr raises {type(error).__name__}"


def described(error: BaseException) -> str:
    """An error and the line of the program it comes from."""
    try:
        text = f"{type(error).__name__}: {error}"[:SHOWN]
    except Exception:
        text = type(error).__name__
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "solution.py":
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{text} (line {line})" if line else text


if __name__ == "__main__":
    main()
