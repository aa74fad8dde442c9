"""Tasks that are told in parts (shards): what they are, and where they come from (arXiv 2505.06120)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol, runtime_checkable

from lit_rl.environments.problems import Attempt
from lit_rl.environments.rows import read_rows
from lit_rl.environments.stored_tasks import check_ids
from lit_rl.verification.answers import AnswerFormat, marked_answer, verify_answer

COLUMNS = ("task", "task_id", "question", "answer", "shards")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardedProblem:
    """One task and its parts.

    Raises:
        ValueError: There is no part.
    """

    id: str
    domain: str
    question: str  # the whole task in one text
    gold: str  # for the verifier only
    shards: tuple[str, ...]  # the first holds the goal

    def __post_init__(self) -> None:
        if not self.shards:
            raise ValueError(f"ShardedProblem {self.id} has no shards; it needs at least the one with the goal.")

    def whole(self) -> "ShardedProblem":
        """The same task told at once."""
        return replace(self, shards=(self.question,))


@runtime_checkable
class ShardedSource(Protocol):
    """Sharded tasks by index, the same for every run, their verifier, and what a scripted user says."""

    name: str
    answer_format: AnswerFormat

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ShardedProblem: ...

    def verify(self, problem: ShardedProblem, utterance: str) -> Attempt:
        """What ``utterance`` is as an attempt at ``problem``; never raises, whatever a model said."""
        ...

    def tell(self, problem: ShardedProblem, left: Sequence[int], utterance: str) -> str:
        """What a scripted user says to ``utterance``: word for word one shard of those ``left``, or none of them."""
        ...


class ShardedTasks:
    """One task for each row of a data set, of the published record.

    That is ``{task, task_id, question, answer, shards: [{shard_id, shard}, ...]}``, shards in the order of the list.
    Its scripted user tells one more shard in every message, word for word and in order, whatever it hears.

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or the id of a data set on the hub.
        split: Of a hub data set.
        subset: Of a hub data set that has several.
        answer_format: "boxed" for LaTeX's box compared by meaning, "marked" for ``ans ...`` compared as text.

    Raises:
        ValueError: As `read_rows`, or a row with an empty column, with shards of another form or one of them twice, or
            with the ``task_id`` of another row.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        split: str = "train",
        subset: str | None = None,
        answer_format: AnswerFormat = "boxed",
    ):
        if answer_format not in ("marked", "boxed"):
            raise ValueError(f"ShardedTasks.answer_format is {answer_format!r}; it must be 'marked' or 'boxed'.")
        self.name, self.answer_format = str(path), answer_format
        rows = read_rows(path, COLUMNS, split=split, subset=subset)
        self._problems = [_problem(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]
        numbered = ((problem.id, number) for number, problem in enumerate(self._problems, start=1))
        check_ids(self.name, numbered, column="task_id")

    def __len__(self) -> int:
        return len(self._problems)

    def __getitem__(self, index: int) -> ShardedProblem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._problems[index]

    def verify(self, problem: ShardedProblem, utterance: str) -> Attempt:
        return verify_answer(utterance, problem.gold, self.answer_format)

    def tell(self, problem: ShardedProblem, left: Sequence[int], utterance: str) -> str:
        return problem.shards[left[0]]


class ShardedLinear:
    """``compute p * x + q``, then ``p = 3``, ``q = 2`` and ``x = 4``: ``ans 1 4``; all problems differ.

    Args:
        size: Number of problems, at most 1000.
        seed: Which of all problems, and in which order.
        reveal: "always" tells the next value in every message, as the published benchmark does; "on_ask" tells ``p`` to
            ``ask p`` and says ``hm`` to anything else.

    Raises:
        ValueError: An option is out of range.
    """

    answer_format: AnswerFormat = "marked"

    def __init__(self, size: int = 1000, seed: int = 0, reveal: Literal["always", "on_ask"] = "always"):
        if reveal not in ("always", "on_ask"):
            raise ValueError(f"ShardedLinear.reveal is {reveal!r}; it must be 'always' or 'on_ask'.")
        if not 1 <= size <= 1000:
            raise ValueError(f"ShardedLinear.size is {size}; there are 1 .. 1000 problems.")
        self.name, self.size, self.reveal = f"ShardedLinear-{reveal}", size, reveal
        self._codes = Random(seed).sample(range(1000), size)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> ShardedProblem:
        if not 0 <= index < self.size:
            raise IndexError(index)
        p, q, x = (int(digit) for digit in f"{self._codes[index]:03d}")
        values = (f"p = {p}", f"q = {q}", f"x = {x}")
        return ShardedProblem(
            id=f"linear-{self._codes[index]}",
            domain="sharded_linear",
            question=" ; ".join((*values, "compute p * x + q")),
            gold=" ".join(f"{p * x + q:02d}"),
            shards=("compute p * x + q", *values),
        )

    def verify(self, problem: ShardedProblem, utterance: str) -> Attempt:
        return marked_answer(utterance, problem.gold)

    def tell(self, problem: ShardedProblem, left: Sequence[int], utterance: str) -> str:
        if self.reveal == "always":
            return problem.shards[left[0]]
        for name in _ASKED.findall(utterance):
            wanted = "pqx".index(name) + 1
            if wanted in left:
                return problem.shards[wanted]
        return "hm"


_ASKED = re.compile(r"\bask ([pqx])\b")


def _problem(row: dict[str, Any], where: str) -> ShardedProblem:
    return ShardedProblem(
        id=_text(row["task_id"], "task_id", where),
        domain=_text(row["task"], "task", where),
        question=_text(row["question"], "question", where),
        gold=_text(row["answer"], "answer", where),
        shards=_shards(row["shards"], where),
    )


def _shards(found: Any, where: str) -> tuple[str, ...]:
    if not isinstance(found, list) or not found:
        raise ValueError(
            f"{where}: shards must be a list of at least one {{shard_id, shard}}; it is {str(found)[:60]}."
        )
    ids: set[str] = set()
    shards = []
    for place, shard in enumerate(found, start=1):
        if not isinstance(shard, dict) or not {"shard_id", "shard"} <= shard.keys():
            raise ValueError(f"{where}: shard {place} is {str(shard)[:60]}; it must be an object {{shard_id, shard}}.")
        name = _text(shard["shard_id"], f"shards[{place}].shard_id", where)
        if name in ids:
            raise ValueError(f"{where}: two shards have the shard_id {name}; each needs its own.")
        ids.add(name)
        shards.append(_text(shard["shard"], f"shards[{place}].shard", where))
    return tuple(shards)


def _text(value: Any, column: str, where: str) -> str:
    text = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if not text:
        raise ValueError(f"{where}: {column} is {str(value)[:60]!r}; wanted text that is not empty.")
    return text
