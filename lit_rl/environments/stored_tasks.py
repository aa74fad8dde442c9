"""Problems with answers, from local files or the Hugging Face hub."""

import re
from pathlib import Path
from typing import Any

from lit_rl.environments.problems import Attempt, Problem
from lit_rl.environments.rows import read_rows
from lit_rl.verification.answers import AnswerFormat, verify_answer


class StoredTasks:
    r"""One problem for each row of a data set, in its order.

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or the id of a data set on the hub.
        prompt: Column with the problem.
        answer: Column with the right answer, text or number.
        split: Of a hub data set.
        subset: Of a hub data set that has several.
        answer_format: "boxed" for ``\boxed{...}`` compared by meaning, "marked" for ``ans ...`` compared as text.
        answer_pattern: Regular expression whose first group is the answer within its column, such as
            ``#### (.+)``; None takes the column as it is.
        solution: Column with a worked solution, which only a teacher sees.
        id: Column that names problems; None counts rows.

    Raises:
        ValueError: As `read_rows`, or a row whose prompt or answer is empty or no text, or an id that occurs twice.
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
    ):
        if answer_format not in ("marked", "boxed"):
            raise ValueError(f"StoredTasks.answer_format is {answer_format!r}; it must be 'marked' or 'boxed'.")
        self.name, self.answer_format = str(path), answer_format
        self._pattern = None if answer_pattern is None else re.compile(answer_pattern)
        if self._pattern is not None and self._pattern.groups < 1:
            raise ValueError(f"StoredTasks.answer_pattern {answer_pattern!r} needs a group (...) around the answer.")
        columns = list(dict.fromkeys(name for name in (prompt, answer, solution, id) if name is not None))
        rows = read_rows(path, columns, split=split, subset=subset)
        self._problems = [self._problem(row, i + 1, prompt, answer, solution, id) for i, row in enumerate(rows)]
        self._check_ids()

    def __len__(self) -> int:
        return len(self._problems)

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._problems[index]

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return verify_answer(utterance, problem.gold, self.answer_format)

    def _problem(
        self, row: dict[str, Any], number: int, prompt: str, answer: str, solution: str | None, id: str | None
    ) -> Problem:
        where = f"{self.name}, row {number}"
        gold = self._gold(_text(row[answer], answer, where), answer, where)
        private = {"answer": gold}
        if solution is not None:
            private["solution"] = _text(row[solution], solution, where)
        return Problem(
            id=str(number) if id is None else _text(row[id], id, where),
            domain=Path(self.name).stem,
            prompt=_text(row[prompt], prompt, where),
            gold=gold,
            private=private,
        )

    def _gold(self, text: str, column: str, where: str) -> str:
        if self._pattern is None:
            return text
        found = self._pattern.search(text)
        if found is None or not (found[1] or "").strip():
            raise ValueError(f"{where}: answer_pattern {self._pattern.pattern!r} finds no answer in column {column!r}.")
        return str(found[1]).strip()

    def _check_ids(self) -> None:
        seen: dict[str, int] = {}
        for number, problem in enumerate(self._problems, start=1):
            if problem.id in seen:
                raise ValueError(
                    f"{self.name}, row {number}: the id {problem.id!r} is that of row {seen[problem.id]} too; each "
                    "problem needs its own."
                )
            seen[problem.id] = number


def _text(value: Any, column: str, where: str) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers in which some were missing
    text = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if not text:
        raise ValueError(f"{where}: column {column!r} holds {str(value)[:60]!r}; wanted text that is not empty.")
    return text
