"""Unit tests of a program, run in a sandbox; what a program prints or does in its process decides nothing by itself."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from lit_rl.protocols import Execution, Sandbox
from lit_rl.verification import code_worker
from lit_rl.verification.assertions import Assertions

TOLD = 600  # characters of each piece of text that is told
_WORKER = Path(code_worker.__file__).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class StdinTest:
    """One run of a program: what it reads, and what it has to print."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Result:
    """How one test ended, and in words what it showed."""

    passed: bool
    told: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Of one run in the sandbox, see `lit_rl.protocols.Sandbox`."""

    seconds: float = 5.0
    megabytes: int = 512

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.megabytes < 32:
            raise ValueError(
                f"Limits: {self.seconds} seconds and {self.megabytes} megabytes; a program needs more than 0 seconds "
                "and Python at least 32 megabytes."
            )


def run_stdin_test(code: str, test: StdinTest, sandbox: Sandbox, limits: Limits) -> Result:
    """Run a whole program: it has to end by itself, without an error, and to have printed what was expected."""
    done = sandbox.run(code, stdin=test.input, seconds=limits.seconds, megabytes=limits.megabytes)
    if done.returncode == 0 and not done.timed_out and same_output(done.stdout, test.output):
        return Result(True)
    got = f"Input:\n{cut(test.input)}\nExpected:\n{cut(test.output)}\nGot:\n{cut(done.stdout)}"
    return Result(False, f"{got}\n{_ending(done, limits)}".rstrip())


def run_assertions(
    code: str, tests: Sequence[Assertions], sandbox: Sandbox, limits: Limits, preamble: str = ""
) -> tuple[list[Result], str]:
    """Run unit tests of one program, all in one process.

    What cannot pass: an exit, a printed word, an object that claims to equal everything, a redefined helper, a right
    value looked up in the process, for it is not there.  Exceptions, where right values do reach the process: those a
    test computes, loops over, or hands to functions of its own, and tests that hold none, such as one that an error
    is raised; a program that digs out the pipe its values go through can forge these.

    Returns:
        One outcome for each test, and the error of a program that fails before any test, or "".
    """
    task = {"preamble": preamble, "code": code, "tests": [test.program for test in tests]}
    done = _work(task, sandbox, limits)
    load: str | None = None
    reports: list[list[dict[str, Any]]] = [[] for _ in tests]
    for facts in _facts(done.stdout):
        if isinstance(facts.get("load"), str):
            load = facts["load"]
        elif type(number := facts.get("test")) is int and 0 <= number < len(tests):
            reports[number].append(facts)
    if load != "":
        return [Result(False) for _ in tests], cut(load or "") or _ending(done, limits) or "it ends the process"
    right = _judge(tests, reports, sandbox, limits)
    ending = _ending(done, limits) or "It ended the process."
    return [_outcome(*parts, ending) for parts in zip(tests, reports, right, strict=True)], ""


def _work(task: dict[str, Any], sandbox: Sandbox, limits: Limits) -> Execution:
    stdin = json.dumps(task)
    return sandbox.run(_WORKER, stdin=stdin, seconds=limits.seconds, megabytes=limits.megabytes)


def _facts(output: str) -> Iterator[dict[str, Any]]:
    """The lines that are JSON objects; a program may have written others."""
    for line in output.split("\n"):
        try:
            facts = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(facts, dict):
            yield facts


def _judge(
    tests: Sequence[Assertions], reports: Sequence[Sequence[dict[str, Any]]], sandbox: Sandbox, limits: Limits
) -> list[bool]:
    """For each test, whether it came to its end with all assertions reached and all of their values right."""
    checks: list[list[Any]] = []
    parts: dict[int, slice] = {}
    for number, (test, facts) in enumerate(zip(tests, reports, strict=True)):
        made = [f for f in facts if _is_report(f, len(test.checks))]
        reached = test.required <= {f["check"] for f in made} and (made or not test.needs_report)
        if reached and any(f.get("done") is True for f in facts):
            parts[number] = slice(len(checks), len(checks) + len(made))
            checks += [[test.checks[f["check"]], f["values"]] for f in made]
    verdicts: list[bool] = []
    if checks:
        done = _work({"checks": checks}, sandbox, limits)
        verdicts = [facts.get("right") is True for facts in _facts(done.stdout)]
    verdicts += [False] * (len(checks) - len(verdicts))  # it ran into its limits
    return [number in parts and all(verdicts[parts[number]]) for number in range(len(tests))]


def _is_report(facts: dict[str, Any], checks: int) -> bool:
    check = facts.get("check")
    return type(check) is int and 0 <= check < checks and isinstance(facts.get("values"), str)


def _outcome(test: Assertions, facts: Sequence[dict[str, Any]], right: bool, ending: str) -> Result:
    if right:
        return Result(True)
    errors = [f["error"] for f in facts if isinstance(f.get("error"), str)]
    values = [v for f in facts if isinstance(f.get("shown"), list) for v in f["shown"] if isinstance(v, str)]
    lines = [f"Test: {cut(test.source)}"]
    if values:
        lines.append(f"Got: {cut(', '.join(values))}")
    if errors:
        lines.append(f"Error: {cut(errors[-1])}")
    elif not any(f.get("done") is True for f in facts):
        lines.append(ending)
    return Result(False, "\n".join(lines))


def _ending(done: Execution, limits: Limits) -> str:
    """In words, why a program did not end well; "" if it did."""
    if done.timed_out:
        return f"It took longer than {limits.seconds:g} seconds."
    if done.returncode == 0:
        return ""
    last = done.stderr.strip().split("\n")[-1]
    return f"It ended with an error: {cut(last)}" if last else f"It ended with exit status {done.returncode}."


def same_output(output: str, expected: str) -> bool:
    """Line by line the same but for spaces around lines and words, and for how a number is written (1.50, 1.5)."""
    ours, theirs = output.strip().split("\n"), expected.strip().split("\n")
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _same_line(ours: str, theirs: str) -> bool:
    if ours.strip() == theirs.strip():
        return True
    words, wanted = ours.split(), theirs.split()
    return len(words) == len(wanted) and all(map(_same_word, words, wanted))


def _same_word(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    try:
        return Decimal(ours) == Decimal(theirs)
    except InvalidOperation:
        return False


def cut(text: str, most: int = TOLD) -> str:
    """A text without spaces around it, or its beginning and what is left out."""
    text = text.strip()
    return text if len(text) <= most else f"{text[:most]} ... ({len(text) - most} more characters)"
