"""A speaker's reasoning with the right answer behind it: what REMUL's second stage learns from (arXiv 2602.16154)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from lit_rl.demonstrations import TargetRow
from lit_rl.environments.rows import read_rows
from lit_rl.policy import Policy

AnswerFilter = Literal["all", "consistent", "executable"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedTrace:
    """One output of the speaker, in the token ids it was sampled in.

    Attributes:
        problem_id: Of the task source.
        prompt_ids: All before the first sampled token.
        reasoning_ids: Sampled, up to the closing tag; all there is if it was never closed.
        close_ids: The closing tag; empty if it was never sampled.
        text: The whole output.
        correct: Whether its own answer is right.
        gold: The right answer.
        executable: Whether a listener came to the right answer after the longest beginning; False if none was asked.
        source: Fingerprint of who said it and how it was sampled.
    """

    problem_id: str
    prompt_ids: tuple[int, ...]
    reasoning_ids: tuple[int, ...]
    close_ids: tuple[int, ...]
    text: str
    correct: bool
    gold: str
    executable: bool
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedAnswer:
    """A training row: ``ids`` of prompt, reasoning with its tags, answer and end; targets from ``start`` on."""

    problem_id: str
    ids: tuple[int, ...]
    start: int

    def row(self, policy: Policy, party: str) -> TargetRow:
        targets = [place >= self.start for place in range(len(self.ids))]
        exchanges = [0 if target else -1 for target in targets]
        nothing = [False] * len(self.ids)
        return TargetRow(f"The masked answer to {self.problem_id}", list(self.ids), targets, nothing, exchanges)


def cut_at_tag(ids: Sequence[int], tokenizer: Any, tag: str) -> tuple[list[int], list[int]]:
    """The ids before the first ``tag`` and those of the tag; all of them and none if there is no tag.

    Where a token holds the end of the tag and what follows, both parts are spelled anew; where one holds the end of the
    reasoning and the beginning of the tag, it is part of the tag.

    Args:
        ids: Sampled.
        tokenizer: Of transformers.
        tag: Its text.
    """

    def text(count: int) -> str:
        decoded: str = tokenizer.decode(ids[:count], clean_up_tokenization_spaces=False)
        return decoded

    whole = text(len(ids))
    begin = whole.find(tag)
    if begin < 0:
        return list(ids), []
    stop = _first(len(ids), lambda count: tag in text(count))
    if text(stop).endswith(tag):
        start = _first(stop, lambda count: len(text(count)) > begin) - 1
        return list(ids[:start]), list(ids[start:stop])
    return _spelled(tokenizer, whole[:begin]), _spelled(tokenizer, tag)


def _spelled(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _first(most: int, holds: Callable[[int], bool]) -> int:
    """The least count for which ``holds``, which stays true from there on, as it is for ``most``."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def is_kept(trace: RecordedTrace, answer_filter: AnswerFilter) -> bool:
    """Whether a filter keeps a trace; one that was never closed is kept by none."""
    if not trace.close_ids:
        return False
    return {"all": True, "consistent": trace.correct, "executable": trace.executable}[answer_filter]


def masked_answer(trace: RecordedTrace, answer_ids: Sequence[int], max_length: int) -> MaskedAnswer | None:
    """The row of a closed trace with another answer, made by adding up lists of ids; None if the answer does not fit.

    Of too long a row the end of the reasoning is left out (our reading of "from the left of the answer"), never the
    closing tag or the answer.

    Args:
        trace: With a closing tag.
        answer_ids: What is to be learned.
        max_length: Of the row, in tokens.
    """
    room = max_length - len(trace.prompt_ids) - len(trace.close_ids) - len(answer_ids)
    if room < 0:
        return None
    ids = (*trace.prompt_ids, *trace.reasoning_ids[:room], *trace.close_ids)
    return MaskedAnswer(problem_id=trace.problem_id, ids=(*ids, *answer_ids), start=len(ids))


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of an answer that was written, not sampled.

    Raises:
        ValueError: It is empty, or the tokenizer cannot spell it.
    """
    ids = _spelled(tokenizer, text)
    if not ids:
        raise ValueError(f"The answer {text!r} has no tokens, so there is nothing to learn; see data.answer_template.")
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        raise ValueError(f"The tokenizer cannot spell the answer {text!r}; see data.answer_template.")
    return ids


def read_traces(path: str | Path) -> list[RecordedTrace]:
    """All traces of a file of JSON lines.

    Raises:
        ValueError: No such file, an empty one, or a row that is no recorded trace, naming file and row.
    """
    found = []
    for number, row in enumerate(read_rows(path, [field.name for field in fields(RecordedTrace)]), start=1):
        try:
            found.append(RecordedTrace(**row | {name: tuple(row[name]) for name in row if name.endswith("_ids")}))
        except TypeError as error:
            raise ValueError(f"{path}, row {number}: it is no recorded trace ({error}).") from error
    return found
