"""Annotated reviewer questions: the record, and where files keep its fields (intelli.md section 1.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

from lit_rl.environments.rows import read_rows

AXES = ("effort", "evidence", "grounding")  # their order everywhere
LayoutName = Literal["released", "own"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionRecord:
    """One question about a paper, and what an annotator said of it.

    Raises:
        ValueError: The paper has no name, the question no text, or a label is not 0, 1 or None.
    """

    paper_id: str
    question: str
    paper_text: str
    page1_text: str | None = None  # of the whole paper, never of one that was cut
    source: str | None = None  # who asked
    effort: int | None = None  # 1: a glance at the paper does not answer it
    evidence: int | None = None  # 1: it rests on results or arguments of the paper
    grounding: int | None = None  # 1: it is about this paper and no other

    def __post_init__(self) -> None:
        for name in ("paper_id", "question"):
            if not getattr(self, name).strip():
                raise ValueError(f"QuestionRecord.{name} is empty; give the text of a question and its paper's name.")
        for axis, label in zip(AXES, self.labels, strict=True):
            if label not in (None, 0, 1):
                raise ValueError(
                    f"QuestionRecord.{axis} is {label!r}; it must be 1 (good), 0, or None (not annotated)."
                )

    @property
    def labels(self) -> tuple[int | None, int | None, int | None]:
        """Of the three axes, in the order of ``AXES``."""
        return self.effort, self.evidence, self.grounding

    @property
    def annotated(self) -> bool:
        """Whether all three axes have a label."""
        return None not in self.labels


@dataclass(frozen=True, kw_only=True)
class QuestionLayout:
    """Names of the columns that hold a record's fields; None where a file has no such column.

    Args:
        paper_id: Column that names the paper.
        question: Column with the question.
        paper_text: Column with the text of the paper.
        page1_text: Column with its first page; without one, the text up to its first form feed, if it has any.
        source: Column that says who asked.
        labels: Column of each axis, true or 1 for good; an axis that is missing is not annotated.
    """

    paper_id: str = "paper_id"
    question: str = "question"
    paper_text: str = "paper_text"
    page1_text: str | None = None
    source: str | None = "source"
    labels: Mapping[str, str] = field(default_factory=lambda: {axis: axis for axis in AXES})

    def __post_init__(self) -> None:
        if not set(self.labels) <= set(AXES):
            raise ValueError(f"QuestionLayout.labels names {sorted(self.labels)}; the axes are {list(AXES)}.")

    @property
    def columns(self) -> list[str]:
        """All columns it names."""
        named = (self.paper_id, self.question, self.paper_text, self.page1_text, self.source, *self.labels.values())
        return list(dict.fromkeys(name for name in named if name is not None))


LAYOUTS: dict[LayoutName, QuestionLayout] = {
    # The name of its first label is inverted: true in `low_effort` means HIGH effort, so nothing is negated here.
    "released": QuestionLayout(
        paper_text="ocr_output", labels={"effort": "low_effort", "evidence": "evidence", "grounding": "factual"}
    ),
    "own": QuestionLayout(page1_text="page1_text"),
}


def read_questions(
    path: str | Path,
    layout: LayoutName | QuestionLayout = "released",
    *,
    split: str = "train",
    subset: str | None = None,
) -> list[QuestionRecord]:
    """Records of a ``.jsonl`` or ``.parquet`` file or a data set on the hub, in its order.

    Args:
        path: The file, or a hub id such as ``Vidushee/paper_voting_data_v2org_cleaned``.
        layout: Where the fields are: "released" for the published annotations, "own" for columns named as the fields.
        split: Of a hub data set.
        subset: Of a hub data set that has several.

    Raises:
        ValueError: As `read_rows`, or a label that is neither true nor false, or a text that is empty or no text; each
            names file and row.
    """
    if isinstance(layout, str):
        if layout not in LAYOUTS:
            raise ValueError(f"The layout {layout!r} is not known; take one of {sorted(LAYOUTS)} or a QuestionLayout.")
        layout = LAYOUTS[layout]
    rows = read_rows(path, layout.columns, split=split, subset=subset)
    return [_record(row, layout, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


def _record(row: Mapping[str, Any], layout: QuestionLayout, where: str) -> QuestionRecord:
    paper = _text(row, layout.paper_text, where)
    labels = {axis: _label(row[column], column, where) for axis, column in layout.labels.items()}
    return QuestionRecord(
        paper_id=_text(row, layout.paper_id, where),
        question=_text(row, layout.question, where),
        paper_text=paper,
        page1_text=_first_page(paper) if layout.page1_text is None else _text(row, layout.page1_text, where),
        source=None if layout.source is None else _text(row, layout.source, where),
        **labels,
    )


def _first_page(paper: str) -> str | None:
    first, page_break, _ = paper.partition("\f")
    return first if page_break else None


def _label(value: Any, column: str, where: str) -> int:
    if value not in (0, 1) or not isinstance(value, bool | int):
        raise ValueError(f"{where}: column {column!r} holds {str(value)[:60]!r}; wanted true, false, 1 or 0.")
    return int(value)


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: column {column!r} holds {str(value)[:60]!r}; wanted text that is not empty.")
    return value


def split_by_paper(
    records: Sequence[QuestionRecord], held_out: float, seed: int = 0
) -> tuple[list[QuestionRecord], list[QuestionRecord]]:
    """``(kept, held out)``: records split so that no paper is in both parts, each in the order given.

    Args:
        records: Of several papers.
        held_out: Share of the papers that are held out, above 0 and below 1; rounded, at least one paper each way.
        seed: Which ones.

    Raises:
        ValueError: ``held_out`` is out of range, or there are fewer than two papers.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"split_by_paper: held_out is {held_out}; it must be above 0 and below 1.")
    papers = sorted({record.paper_id for record in records})
    if len(papers) < 2:
        raise ValueError(f"split_by_paper: the records are of {len(papers)} papers; it takes at least 2 to split them.")
    count = min(max(1, round(held_out * len(papers))), len(papers) - 1)
    chosen = set(Random(seed).sample(papers, count))
    kept = [record for record in records if record.paper_id not in chosen]
    return kept, [record for record in records if record.paper_id in chosen]


def shared_papers(first: Sequence[QuestionRecord], second: Sequence[QuestionRecord]) -> list[str]:
    """Ids of papers that are in both parts, sorted: a published split may have some."""
    return sorted({record.paper_id for record in first} & {record.paper_id for record in second})
