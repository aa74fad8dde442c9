import json
from pathlib import Path
from typing import Any

import pytest

from lit_rl.papers.records import (
    LAYOUTS,
    QuestionLayout,
    QuestionRecord,
    read_questions,
    shared_papers,
    split_by_paper,
)

RELEASED: dict[str, Any] = {
    "paper_id": "p1",
    "source": "o3",
    "question": "Why?",
    "low_effort": True,
    "evidence": False,
    "factual": True,
    "ocr_output": "page one\fpage two",
}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "questions.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def record(paper_id: str, question: str = "Why?") -> QuestionRecord:
    return QuestionRecord(paper_id=paper_id, question=question, paper_text="text")


def test_low_effort_means_high_effort(tmp_path: Path) -> None:
    """intelli.md 1.1: the column of the released data is true where the effort is high."""
    high, low = read_questions(write(tmp_path, RELEASED, {**RELEASED, "low_effort": False}))
    assert (high.effort, low.effort) == (1, 0)
    assert high.labels == (1, 0, 1)  # effort, evidence, grounding: the order of every list of axes
    assert high.annotated


def test_every_field_of_the_released_layout(tmp_path: Path) -> None:
    (found,) = read_questions(write(tmp_path, RELEASED))
    assert found == QuestionRecord(
        paper_id="p1",
        question="Why?",
        paper_text="page one\fpage two",
        page1_text="page one",
        source="o3",
        effort=1,
        evidence=0,
        grounding=1,
    )


def test_without_a_page_break_page_one_is_not_known(tmp_path: Path) -> None:
    (found,) = read_questions(write(tmp_path, {**RELEASED, "ocr_output": "all of it"}))
    assert found.page1_text is None


def test_parquet_reads_as_jsonl(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([RELEASED]).to_parquet(tmp_path / "questions.parquet")
    assert read_questions(tmp_path / "questions.parquet") == read_questions(write(tmp_path, RELEASED))


def test_own_layout_and_a_layout_of_ones_own(tmp_path: Path) -> None:
    own: dict[str, Any] = {"paper_id": "p", "question": "Q?", "paper_text": "a\fb", "page1_text": "A", "source": "me"}
    own |= {"effort": 1, "evidence": 0, "grounding": 0}
    (found,) = read_questions(write(tmp_path, own), "own")
    assert (found.page1_text, found.labels) == ("A", (1, 0, 0))
    layout = QuestionLayout(paper_id="id", question="q", paper_text="t", source=None, labels={"grounding": "g"})
    (found,) = read_questions(write(tmp_path, {"id": "p", "q": "Q?", "t": "T", "g": False}), layout)
    assert (found.source, found.labels, found.annotated) == (None, (None, None, 0), False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low_effort": "yes"}, r"questions.jsonl, row 2: column 'low_effort' holds 'yes'; wanted true, false"),
        ({"evidence": 1.0}, r"row 2: column 'evidence' holds '1.0'"),
        ({"factual": 2}, r"row 2: column 'factual' holds '2'"),
        ({"question": "  "}, r"row 2: column 'question' holds '  '; wanted text"),
        ({"ocr_output": None}, r"row 2: there is no column 'ocr_output'"),
    ],
)
def test_bad_rows_name_file_and_row(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_questions(write(tmp_path, RELEASED, RELEASED | change))


def test_bad_records_and_layouts() -> None:
    with pytest.raises(ValueError, match=r"QuestionRecord\.evidence is 2; it must be 1 \(good\), 0, or None"):
        QuestionRecord(paper_id="p", question="Q?", paper_text="", evidence=2)
    with pytest.raises(ValueError, match=r"QuestionRecord\.question is empty"):
        record("p", " ")
    with pytest.raises(ValueError, match="the axes are"):
        QuestionLayout(labels={"factual": "factual"})
    with pytest.raises(ValueError, match="layout 'ours' is not known"):
        read_questions("x.jsonl", "ours")
    assert set(LAYOUTS) == {"released", "own"}


def test_no_paper_is_on_both_sides_of_a_split() -> None:
    records = [record(f"p{number % 10}", f"Q{number}?") for number in range(30)]
    kept, held_out = split_by_paper(records, 0.2)
    assert not shared_papers(kept, held_out)
    assert len({each.paper_id for each in held_out}) == 2
    assert sorted([*kept, *held_out], key=records.index) == records
    assert kept == sorted(kept, key=records.index)
    assert split_by_paper(records, 0.2) == (kept, held_out)
    assert split_by_paper(records, 0.2, seed=1) != (kept, held_out)
    assert shared_papers(records[:12], records[9:12]) == ["p0", "p1", "p9"]


def test_splits_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="held_out is 1"):
        split_by_paper([record("a"), record("b")], 1)
    with pytest.raises(ValueError, match="of 1 papers"):
        split_by_paper([record("a"), record("a")], 0.5)
