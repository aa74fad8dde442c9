from collections import Counter
from statistics import fmean

import pytest

from lit_rl.papers.annotations import SOURCES, annotated_questions, oracle_labels, with_other_papers
from lit_rl.papers.records import AXES, QuestionRecord
from lit_rl.papers.synthetic import SyntheticPapers

PAPERS = SyntheticPapers(150, seed=7)
EVEN = {"even": {"effort": 0.5, "evidence": 0.5, "grounding": 0.5}}


def labels(record: QuestionRecord) -> dict[str, int | None]:
    return dict(zip(AXES, record.labels, strict=True))


def test_without_errors_labels_are_the_oracles() -> None:
    records = annotated_questions(PAPERS)
    assert all(labels(record) == oracle_labels(record) for record in records)
    assert len(records) == 4 * len(PAPERS)  # one question of every source about every paper
    assert Counter(record.source for record in records) == dict.fromkeys(SOURCES, 150)
    assert all(record.page1_text == record.paper_text.split("\f")[0].strip() for record in records)


def test_sources_ask_as_well_as_people_found() -> None:
    """intelli.md section 7; section 12, point 2: an equal mixture of the four has positives .285, .18, .29."""
    records = annotated_questions(SyntheticPapers(1000, seed=8))
    for axis, share in zip(AXES, (0.285, 0.18, 0.29), strict=True):
        assert fmean(labels(record)[axis] or 0 for record in records) == pytest.approx(share, abs=0.025)
    human = [record for record in records if record.source == "human"]
    assert fmean(record.grounding or 0 for record in human) == pytest.approx(0.57, abs=0.05)


def test_all_eight_combinations_occur() -> None:
    assert len({record.labels for record in annotated_questions(PAPERS, sources=EVEN)}) == 8


def test_errors_come_at_their_rate_and_change_no_question() -> None:
    right = annotated_questions(PAPERS, sources=EVEN)
    noisy = annotated_questions(PAPERS, sources=EVEN, flip_rate=0.2)
    assert [record.question for record in noisy] == [record.question for record in right]
    pairs = [
        (a, b) for one, other in zip(right, noisy, strict=True) for a, b in zip(one.labels, other.labels, strict=True)
    ]
    assert fmean(a != b for a, b in pairs) == pytest.approx(0.2, abs=0.06)  # 450 labels
    assert annotated_questions(PAPERS, sources=EVEN, seed=1) != right


def test_beside_another_paper_grounding_is_gone() -> None:
    records = annotated_questions(PAPERS, sources=EVEN)
    others = with_other_papers(records)
    assert all(new.paper_id != old.paper_id for new, old in zip(others, records, strict=True))
    assert all(new.paper_text != old.paper_text for new, old in zip(others, records, strict=True))
    assert [new.question for new in others] == [old.question for old in records]
    assert {new.labels for new in others} == {(None, None, None)}
    for axis in AXES:
        here = fmean(oracle_labels(record)[axis] for record in records)
        there = fmean(oracle_labels(record)[axis] for record in others)
        assert there < here / 3, axis  # two papers share an entity now and then


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"flip_rate is 0.5; it must be 0 or more and below 0.5"):
        annotated_questions(PAPERS, flip_rate=0.5)
    with pytest.raises(ValueError, match="sources is empty"):
        annotated_questions(PAPERS, sources={})
    with pytest.raises(ValueError, match=r"sources\['me'\] is {'effort': 0.5}; give a share of 0 .. 1 for each of"):
        annotated_questions(PAPERS, sources={"me": {"effort": 0.5}})
    with pytest.raises(ValueError, match="of 1 papers; it takes at least 2"):
        with_other_papers(annotated_questions(SyntheticPapers(1)))
