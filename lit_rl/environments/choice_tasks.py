"""Questions with options, from local files or the Hugging Face hub."""

import ast
import difflib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_rl.environments.choice_layouts import LAYOUTS, ChoiceLayout, LayoutName
from lit_rl.environments.choices import choice_prompt, inline_options, lettered, without_list
from lit_rl.environments.parts import check_part, part_of
from lit_rl.environments.problems import Attempt, Problem, ProblemList
from lit_rl.environments.rows import read_rows
from lit_rl.environments.stored_tasks import cell_text, check_ids
from lit_rl.verification.labels import canonical_label, extract_label, verify_label
from lit_rl.verification.traces import DEFAULT_TAGS, ThinkTags


class ChoiceTasks(ProblemList):
    """One problem for each row of a data set: context, question and options with letters; the answer is a letter.

    The sets of REMUL (arXiv:2602.16154; sources and sizes as published or in the authors' code), as YAML::

        init_args: {path: lukaemon/bbh, subset: tracking_shuffled_objects_five_objects, split: test, layout: bbh}
        init_args: {path: lukaemon/bbh, subset: navigate, split: test, layout: bbh_yes_no}
        init_args: {path: BBEH/bbeh, split: train, layout: bbeh, bracketed_only: true, expected_size: 120}
        init_args: {path: TAUR-Lab/MuSR, split: murder_mysteries, layout: musr, expected_size: 250}
        init_args: {path: WildEval/ZebraLogic, subset: mc_mode, split: test, layout: zebra_logic, expected_size: 3259}
        init_args: {path: yale-nlp/FOLIO, split: validation, layout: folio}

    A file of another layout names its columns::

        init_args: {path: mine.jsonl, layout: {question: q, options: choices, answer: gold}}

    A problem's ``meta`` holds ``labels``, ``options`` and ``aliases``.

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or the id of a data set on the hub.
        layout: Name of a known one, or column names.
        split: Of a hub data set.
        subset: Of a hub data set that has several.
        bracketed_only: Leave out rows whose answer does not begin with a bracket, as in ``(A)``.
        expected_size: How many rows there must be then.
        tags: Of the think block that must be closed for an answer to count; None reads the whole reply.
        shuffle_seed: Of a fixed order of all rows; None keeps theirs.
        skip: Rows of that order that are left out at its beginning.
        take: Rows that are taken then; None takes all.

    Raises:
        ValueError: As `read_rows`, a layout that is unknown, a row without options or whose answer is none of them
            (naming the row), an id that occurs twice, or another number of rows than expected or needed.
    """

    def __init__(
        self,
        path: str | Path,
        layout: LayoutName | ChoiceLayout,
        *,
        split: str = "train",
        subset: str | None = None,
        bracketed_only: bool = False,
        expected_size: int | None = None,
        tags: ThinkTags | None = DEFAULT_TAGS,
        shuffle_seed: int | None = None,
        skip: int = 0,
        take: int | None = None,
    ):
        check_part("ChoiceTasks", skip, take)
        self.name, self.layout, self.tags = str(path), _layout(layout), tags
        rows = list(enumerate(read_rows(path, self.layout.columns, split=split, subset=subset), start=1))
        if bracketed_only:
            rows = [(number, row) for number, row in rows if str(row[self.layout.answer]).lstrip().startswith("(")]
        if expected_size not in (None, len(rows)):
            raise ValueError(
                f"{self.name} has {len(rows)} usable rows ({_mix(rows, self.layout.task)}), not {expected_size}; check "
                "split, subset and bracketed_only, or change expected_size."
            )
        chosen = [rows[place] for place in part_of(self.name, len(rows), shuffle_seed, skip, take)]
        self._problems = [self._problem(row, number) for number, row in chosen]
        check_ids(self.name, ((problem.id, n) for problem, (n, _) in zip(self._problems, chosen, strict=True)))

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return verify_label(utterance, problem.gold, **problem.meta, tags=self.tags)

    def _problem(self, row: Mapping[str, Any], number: int) -> Problem:
        where, layout = f"{self.name}, row {number}", self.layout
        question = _text(row[layout.question], layout.question, where)
        aliases = {text: label for label, text in (layout.fixed or {}).items()}
        answer = cell_text(row[layout.answer], layout.answer, where)
        try:
            question, options = _options(row, layout, question)
            extract_label("", list(options), aliases)  # says what is wrong with labels of one's own
            gold = canonical_label(answer, list(options), aliases, options)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        context = "" if layout.context is None else _text(row[layout.context], layout.context, where)
        return Problem(
            id=str(number) if layout.id is None else cell_text(row[layout.id], layout.id, where),
            domain=Path(self.name).stem if layout.task is None else cell_text(row[layout.task], layout.task, where),
            prompt=choice_prompt([layout.instruction, context, question], options),
            gold=gold,
            private={"answer": gold},
            meta={"labels": list(options), "aliases": aliases, "options": options},
        )


def _layout(layout: LayoutName | ChoiceLayout) -> ChoiceLayout:
    if isinstance(layout, ChoiceLayout):
        return layout
    if layout not in LAYOUTS:
        close = difflib.get_close_matches(str(layout), LAYOUTS, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"ChoiceTasks.layout is {layout!r}; {meant}known are {list(LAYOUTS)}, or name the columns.")
    return LAYOUTS[layout]


def _options(row: Mapping[str, Any], layout: ChoiceLayout, question: str) -> tuple[str, dict[str, str]]:
    """The question without its options, and these."""
    if layout.fixed is not None:
        return without_list(question), dict(layout.fixed)
    if layout.options is None:
        return inline_options(question)
    texts = row[layout.options]
    if isinstance(texts, str):  # MuSR on the hub writes its lists out
        try:
            texts = ast.literal_eval(texts)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"column {layout.options!r} holds {texts[:60]!r}; wanted a list of texts.") from error
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"column {layout.options!r} holds {str(texts)[:60]!r}; wanted a list of texts.")
    return question, lettered(texts)


def _text(value: Any, column: str, where: str) -> str:
    """The text of a cell; a list of texts (FOLIO's premises in some versions) is a line each."""
    if isinstance(value, list):
        value = "\n".join(cell_text(line, column, where) for line in value)
    return cell_text(value, column, where)


def _mix(rows: list[tuple[int, dict[str, Any]]], task: str | None) -> str:
    """How many rows each task has, the largest first."""
    if task is None:
        return "of one task"
    return ", ".join(f"{name}: {count}" for name, count in Counter(str(row[task]) for _, row in rows).most_common())
