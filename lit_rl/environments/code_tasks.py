"""Programming problems with unit tests, from local files or the Hugging Face hub."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lit_rl.environments.code_columns import LAYOUTS, CodeColumns, tests_of
from lit_rl.environments.parts import check_part, check_rest, row_order
from lit_rl.environments.problems import Attempt, Problem, ProblemList
from lit_rl.environments.rows import read_rows
from lit_rl.environments.stored_tasks import cell_text, check_ids
from lit_rl.protocols import Sandbox
from lit_rl.sandbox import Bubblewrap
from lit_rl.verification.code import CodeTests, code_answer, last_code_block, run_tests
from lit_rl.verification.code_runs import Limits, StdinTest

Layout = Literal["open_code_instruct", "live_code_bench"]

CODE_INSTRUCTION = (
    "In each message you may ask a question or give your answer. Give an answer as a complete Python program in one "
    "fenced code block (```python ... ```)."
)
STDIN_NOTE = "The program reads standard input and prints to standard output."
STARTER_NOTE = "Complete this code:"


class CodeTasks(ProblemList):
    """One problem for each row of a data set with unit tests; an attempt is right if its program passes all of them.

    The attempt's ``detail`` says which public test failed first, with what was expected and what came: what a teacher
    may know of the latest attempt (sml.md section 2), beside the reference solution where there is one.

    As YAML, 2 000 problems of OpenCodeInstruct whose solution passes its tests here too::

        class_path: lit_rl.environments.CodeTasks
        init_args: {path: nvidia/OpenCodeInstruct, layout: open_code_instruct, split: 'train[:20000]',
                    bad_rows: skip, check_solutions: true, shuffle_seed: 0, take: 2000}

    and LiveCodeBench, from a file of its repository on the hub::

        class_path: lit_rl.environments.CodeTasks
        init_args: {path: test.jsonl, layout: live_code_bench}

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or the id of a data set on the hub.
        layout: "open_code_instruct", "live_code_bench", or the names of the columns.
        sandbox: Runs programs; None is `Bubblewrap`.
        split: Of a hub data set.
        subset: Of a hub data set that has several.
        public_assertions: How many of a row's assertions, from the first, are public (our choice; cases have a column
            for each kind).
        instruction: Stands behind each problem; "" is nothing.
        seconds: Of processor time for all assertions of an attempt, or for each run with standard input.
        megabytes: Of memory for each run.
        bad_rows: On a row that cannot be used, "stop" with an error, or "skip" it and say why in ``left_out``.
        check_solutions: Whether a row can be used only if its solution passes its tests here; each is run once, at the
            start.
        shuffle_seed: Of a fixed order of all rows; None keeps theirs.
        skip: Usable rows of that order that are left out at its beginning.
        take: Usable rows that are taken then; None takes all.

    Raises:
        ValueError: As `read_rows`, `Bubblewrap` and `CodeColumns`; an option out of range; a row without a prompt or
            tests that can be read, or whose solution fails (with ``bad_rows="stop"``); an id that occurs twice; fewer
            usable rows than ``skip`` and ``take`` need.
    """

    def __init__(
        self,
        path: str | Path,
        layout: Layout | CodeColumns,
        sandbox: Sandbox | None = None,
        *,
        split: str = "train",
        subset: str | None = None,
        public_assertions: int = 3,
        instruction: str = CODE_INSTRUCTION,
        seconds: float = 5.0,
        megabytes: int = 512,
        bad_rows: Literal["stop", "skip"] = "stop",
        check_solutions: bool = False,
        shuffle_seed: int | None = None,
        skip: int = 0,
        take: int | None = None,
    ):
        self.name, self.instruction, self.public_assertions = str(path), instruction, public_assertions
        self.columns = _columns(layout)
        self.limits = Limits(seconds=seconds, megabytes=megabytes)
        self.bad_rows, self.check_solutions = bad_rows, check_solutions
        self.left_out: list[str] = []  # one sentence for each row that was skipped as bad
        self._check()
        check_part("CodeTasks", skip, take)
        self.sandbox = Bubblewrap() if sandbox is None else sandbox
        rows = read_rows(path, self.columns.names(), split=split, subset=subset)
        found = self._usable(rows, row_order(len(rows), shuffle_seed), None if take is None else skip + take)
        check_rest(self.name, len(found), skip, take)
        self._problems = [problem for problem, _ in found[skip:]]
        check_ids(self.name, ((problem.id, number) for problem, number in found))

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return code_answer(utterance, problem.meta["tests"], self.sandbox, self.limits)

    def _check(self) -> None:
        if self.bad_rows not in ("stop", "skip"):
            raise ValueError(f"CodeTasks.bad_rows is {self.bad_rows!r}; it must be 'stop' or 'skip'.")
        if self.public_assertions < 0:
            raise ValueError(f"CodeTasks.public_assertions is {self.public_assertions}; it must be 0 or more.")
        if self.check_solutions and self.columns.solution is None:
            raise ValueError("CodeTasks.check_solutions needs a column with solutions, and the layout names none.")

    def _usable(self, rows: list[dict[str, Any]], order: list[int], most: int | None) -> list[tuple[Problem, int]]:
        """The first problems that can be made, each with the number of its row."""
        found: list[tuple[Problem, int]] = []
        for i in order:
            if len(found) == most:
                break
            score = self.columns.score
            if score is not None and not _is_one(rows[i][score]):
                continue
            try:
                found.append((self._problem(rows[i], i + 1), i + 1))
            except ValueError as error:
                if self.bad_rows == "stop":
                    raise ValueError(f"{error} With bad_rows='skip' such rows are left out.") from error
                self.left_out.append(str(error))
        return found

    def _problem(self, row: Mapping[str, Any], number: int) -> Problem:
        where, columns = f"{self.name}, row {number}", self.columns
        prompt = cell_text(row[columns.prompt], columns.prompt, where)
        try:
            tests = tests_of(row, columns, self.public_assertions)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        self._check_outputs(tests, where)
        solution = "" if columns.solution is None else _program(row[columns.solution], columns.solution, where)
        if self.check_solutions:
            tested = run_tests(solution, tests, self.sandbox, self.limits)
            if not tested.correct:
                raise ValueError(
                    f"{where}: its solution does not pass its tests ({' '.join(tested.log.split())[:300]})."
                )
        return Problem(
            id=str(number) if columns.id is None else cell_text(row[columns.id], columns.id, where),
            domain=Path(self.name).stem,
            prompt=self._prompt(prompt, "" if columns.starter is None else str(row[columns.starter]), tests),
            gold=solution or f"tests {hashlib.sha256(repr(tests).encode()).hexdigest()}",
            private={"solution": solution} if solution else {},
            meta={"tests": tests},
        )

    def _prompt(self, problem: str, starter: str, tests: CodeTests) -> str:
        parts = [problem]
        if starter.strip():
            parts.append(f"{STARTER_NOTE}\n```python\n{starter.rstrip()}\n```")
        if self.instruction:
            reads = any(isinstance(test, StdinTest) for test in (*tests.public, *tests.hidden))
            parts.append(f"{STDIN_NOTE} {self.instruction}" if reads else self.instruction)
        return "\n\n".join(parts)

    def _check_outputs(self, tests: CodeTests, where: str) -> None:
        most = getattr(self.sandbox, "output_bytes", None)
        outputs = [test.output for test in (*tests.public, *tests.hidden) if isinstance(test, StdinTest)]
        longest = max((len(output.encode()) for output in outputs), default=0)
        if most is not None and longest >= most:
            raise ValueError(
                f"{where}: a test wants {longest} bytes of output and the sandbox allows {most}, so no program could "
                "pass; raise sandbox.output_bytes."
            )


def _columns(layout: Layout | CodeColumns) -> CodeColumns:
    if isinstance(layout, CodeColumns):
        return layout
    if layout not in LAYOUTS:
        raise ValueError(f"CodeTasks.layout is {layout!r}; it must be one of {sorted(LAYOUTS)}, or CodeColumns.")
    return LAYOUTS[layout]


def _is_one(score: Any) -> bool:
    try:
        return float(score) >= 1.0
    except (TypeError, ValueError):
        return False


def _program(value: Any, column: str, where: str) -> str:
    text = cell_text(value, column, where)
    block = last_code_block(text)
    return text if block is None else block
