"""Programs as answers: found in what was said, tested in a sandbox, and what the tests showed told to the teacher."""

import re
from dataclasses import dataclass

from lit_rl.protocols import Sandbox
from lit_rl.verification.assertions import Assertions
from lit_rl.verification.attempts import Attempt
from lit_rl.verification.code_runs import Limits, Result, StdinTest, run_assertions, run_stdin_test
from lit_rl.verification.extraction import asks, visible

UnitTest = Assertions | StdinTest
_OPENING = re.compile(r" {0,3}(`{3,})[^`]*|(?: {0,3})(~{3,}).*")


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeTests:
    """Tests of one problem; a program is right if it passes all of them.

    Args:
        public: Those whose outcome a teacher may know.
        hidden: The others, of which nothing is told.
        preamble: Code that assertions' programs may rely on, such as imports.

    Raises:
        ValueError: There is no test.
    """

    public: tuple[UnitTest, ...] = ()
    hidden: tuple[UnitTest, ...] = ()
    preamble: str = ""

    def __post_init__(self) -> None:
        if not self.public and not self.hidden:
            raise ValueError("CodeTests has neither public nor hidden tests; any program would pass.")


@dataclass(frozen=True, slots=True)
class Tested:
    """Whether a program is right, and in words what the public tests showed."""

    correct: bool
    log: str


def last_code_block(text: str) -> str | None:
    """Content of the last fenced block, ``` or ~~~, of any language; one that is not closed is none."""
    block: str | None = None
    fence, lines = "", list[str]()
    for line in text.split("\n"):
        bare = line.strip()
        if fence:
            if bare.startswith(fence) and not bare.strip(fence[0]):
                block, fence = "\n".join(lines), ""
            else:
                lines.append(line)
        elif match := _OPENING.fullmatch(line.rstrip()):
            fence, lines = match[1] or match[2], []
    return block


def run_tests(code: str, tests: CodeTests, sandbox: Sandbox, limits: Limits | None = None) -> Tested:
    """Run a program's tests, of standard input one by one up to the first that fails.

    Args:
        code: The program.
        tests: All of its tests; the hidden ones decide like the public ones, but leave no trace in the log.
        sandbox: Runs it.
        limits: Of all assertions together, and of each test by standard input.
    """
    limits = limits or Limits()
    every = [*tests.public, *tests.hidden]
    outcomes: dict[int, Result] = {}
    asserting = {i: test for i, test in enumerate(every) if isinstance(test, Assertions)}
    if asserting:
        found, failure = run_assertions(code, list(asserting.values()), sandbox, limits, tests.preamble)
        if failure:
            return Tested(False, f"The program fails before any test: {failure}")
        outcomes = dict(zip(asserting, found, strict=True))
    for i, test in enumerate(every):
        if not isinstance(test, Assertions):
            outcomes[i] = run_stdin_test(code, test, sandbox, limits)
        if not outcomes[i].passed:
            return Tested(False, _log(tests, i, outcomes[i]))
    return Tested(True, _log(tests, len(every), None))


def code_answer(utterance: str, tests: CodeTests, sandbox: Sandbox, limits: Limits | None = None) -> Attempt:
    """The program in the last fenced code block outside hidden reasoning, and whether it passes all tests.

    Utterances without one are questions, malformed or empty as in `boxed_answer` (sml.md section 3.4).  The attempt's
    ``detail`` is the log of `run_tests`, which a teacher may know (verifier output as private knowledge, section 2).

    Args:
        utterance: What was said.
        tests: Of the problem.
        sandbox: Runs programs.
        limits: Of each run.
    """
    said = visible(utterance)
    code = last_code_block(said)
    if code is None or not code.strip():
        if not utterance.strip():
            return Attempt("empty")
        return Attempt("question" if asks(said) else "malformed")
    tested = run_tests(code, tests, sandbox, limits)
    return Attempt("answer", code, tested.correct, tested.log)


def _log(tests: CodeTests, failed: int, outcome: Result | None) -> str:
    count = len(tests.public)
    if outcome is not None and failed < count:
        return f"Public test {failed + 1} of {count} fails.\n{outcome.told}"
    return f"All public tests ({count}) pass." if count else ""
