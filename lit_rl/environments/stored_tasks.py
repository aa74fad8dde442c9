"""Problems with answers, from local files or the Hugging Face hub."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lit_rl.environments.parts import check_part, part_of
from lit_rl.environments.problems import Attempt, Problem, ProblemList
from lit_rl.environments.rows import read_rows
from lit_rl.verification.answers import AnswerFormat, verify_answer
from lit_rl.verification.extraction import boxed_texts


class StoredTasks(ProblemList):
    r"""One problem for each row of a data set, in its order or shuffled.

    Two parts with the same ``shuffle_seed`` share no row: ``take: 2000`` to train on and ``skip: 2000, take: 500`` to
    validate on split Omni-MATH (sml.md section 13; the split is ours).  As YAML, of KbsdJames/Omni-MATH on the hub::

        class_path: lit_rl.environments.StoredTasks
        init_args: {path: KbsdJames/Omni-MATH, split: test, prompt: problem, answer: answer, solution: solution,
                    shuffle_seed: 0, take: 2000}

    HardMath2 (rl2f.md section 12) has its answer at the end of its solution, in a box::

        class_path: lit_rl.environments.StoredTasks
        init_args: {path: hard_math2.jsonl, prompt: prompt, answer: solution, solution: solution, answer_pattern: boxed}

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or the id of a data set on the hub.
        prompt: Column with the problem.
        answer: Column with the right answer, text or number.
        split: Of a hub data set.
        subset: Of a hub data set that has several.
        answer_format: "boxed" for ``\boxed{...}`` compared by meaning, "marked" for ``ans ...`` compared as text.
        answer_pattern: Regular expression whose first group is the answer within its column, such as
            ``#### (.+)``; "boxed" is what stands in the last ``\boxed{...}``; None takes the column as it is.
        solution: Column with a worked solution, which only a teacher sees.
        id: Column that names problems; None takes the number of the row, counted from 1.
        shuffle_seed: Of a fixed order of all rows; None keeps theirs.
        skip: Rows of that order that are left out at its beginning.
        take: Rows that are taken then; None takes all.

    Raises:
        ValueError: As `read_rows`, or a row whose prompt or answer is empty or no text, or an id that occurs twice, or
            fewer rows than ``skip`` and ``take`` need.
    """

    def __init__(
        self,
        path: str | Path,
        prompt: str = "prompt",
        answer: str = "answer",
        *,
        split: str = "train",
        subset: str | None = None,
        answer_format: AnswerFormat = "boxed",
        answer_pattern: str | None = None,
        solution: str | None = None,
        id: str | None = None,
        shuffle_seed: int | None = None,
        skip: int = 0,
        take: int | None = None,
    ):
        if answer_format not in ("marked", "boxed"):
            raise ValueError(f"StoredTasks.answer_format is {answer_format!r}; it must be 'marked' or 'boxed'.")
        self.name, self.answer_format = str(path), answer_format
        self._pattern = answer_pattern
        if answer_pattern not in (None, "boxed") and re.compile(str(answer_pattern)).groups < 1:
            raise ValueError(f"StoredTasks.answer_pattern {answer_pattern!r} needs a group (...) around the answer.")
        check_part("StoredTasks", skip, take)
        columns = list(dict.fromkeys(name for name in (prompt, answer, solution, id) if name is not None))
        rows = read_rows(path, columns, split=split, subset=subset)
        chosen = part_of(self.name, len(rows), shuffle_seed, skip, take)
        self._problems = [self._problem(rows[i], i + 1, prompt, answer, solution, id) for i in chosen]
        check_ids(self.name, ((problem.id, i + 1) for problem, i in zip(self._problems, chosen, strict=True)))

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return verify_answer(utterance, problem.gold, self.answer_format)

    def _problem(
        self, row: dict[str, Any], number: int, prompt: str, answer: str, solution: str | None, id: str | None
    ) -> Problem:
        where = f"{self.name}, row {number}"
        gold = self._gold(cell_text(row[answer], answer, where), answer, where)
        private = {"answer": gold}
        if solution is not None:
            private["solution"] = cell_text(row[solution], solution, where)
        return Problem(
            id=str(number) if id is None else cell_text(row[id], id, where),
            domain=Path(self.name).stem,
            prompt=cell_text(row[prompt], prompt, where),
            gold=gold,
            private=private,
        )

    def _gold(self, text: str, column: str, where: str) -> str:
        if self._pattern is None:
            return text
        answer = _boxed(text) if self._pattern == "boxed" else _first_group(self._pattern, text)
        if not answer:
            raise ValueError(f"{where}: answer_pattern {self._pattern!r} finds no answer in column {column!r}.")
        return answer


def _boxed(text: str) -> str:
    boxes = boxed_texts(text)
    return boxes[-1] if boxes else ""


def _first_group(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return "" if found is None else (found[1] or "").strip()


def check_ids(name: str, numbered: Iterable[tuple[str, int]], column: str = "id") -> None:
    """Raise ValueError if an id occurs twice among ``(id, row number)`` of the data set ``name``."""
    seen: dict[str, int] = {}
    for id, number in numbered:
        if id in seen:
            raise ValueError(
                f"{name}, row {number}: the {column} {id!r} is that of row {seen[id]} too; each problem needs its own."
            )
        seen[id] = number


def cell_text(value: Any, column: str, where: str) -> str:
    """The text in a cell, numbers as text; raises ValueError, which says ``where``, for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers in which some were missing
    text = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if not text:
        raise ValueError(f"{where}: column {column!r} holds {str(value)[:60]!r}; wanted text that is not empty.")
    return text
