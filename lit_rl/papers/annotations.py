"""Annotated questions about synthetic papers, with annotators who err: what a reward model is trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

from lit_rl.papers.facts import read_facts
from lit_rl.papers.graded import check_rates, drawn_labels, graded_question
from lit_rl.papers.oracle import grade
from lit_rl.papers.records import AXES, QuestionRecord
from lit_rl.papers.synthetic import SyntheticPaper
from lit_rl.stream_keys import stream_key

# Shares of good questions by source, as people judged them (intelli.md section 7); one of each is asked per paper.
SOURCES: dict[str, dict[str, float]] = {
    "human": {"effort": 0.54, "evidence": 0.46, "grounding": 0.57},
    "o3": {"effort": 0.32, "evidence": 0.12, "grounding": 0.36},
    "gemini": {"effort": 0.26, "evidence": 0.13, "grounding": 0.21},
    "qwen": {"effort": 0.02, "evidence": 0.01, "grounding": 0.02},
}


def annotated_questions(
    papers: Sequence[SyntheticPaper],
    *,
    sources: Mapping[str, Mapping[str, float]] | None = None,
    flip_rate: float = 0.0,
    seed: int = 0,
) -> list[QuestionRecord]:
    """One question of every source about every paper, with labels that are now and then wrong.

    What the labels ought to be, `oracle_labels` says.  To judge a generator by a reward model that is trained on these,
    give the two papers of different seeds.

    Args:
        papers: What is asked about.
        sources: Who asks: for each, the share of its questions that are good on each axis, drawn independently.  None
            takes ``SOURCES``, the published shares.
        flip_rate: How often a label is the opposite of the oracle's, each drawn on its own; below a half.
        seed: Of questions and errors.

    Raises:
        ValueError: No source, a share or ``flip_rate`` out of range.
    """
    sources = SOURCES if sources is None else sources
    if not sources:
        raise ValueError("annotated_questions: sources is empty; name at least one, with a share for each axis.")
    for source, rates in sources.items():
        check_rates(rates, f"annotated_questions: sources[{source!r}]")
    if not 0 <= flip_rate < 0.5:
        raise ValueError(f"annotated_questions: flip_rate is {flip_rate}; it must be 0 or more and below 0.5.")
    return [
        _annotated(paper, source, rates, flip_rate, Random(stream_key(seed, "annotated", paper.paper_id, source)))
        for paper in papers
        for source, rates in sources.items()
    ]


def _annotated(
    paper: SyntheticPaper, source: str, rates: Mapping[str, float], flip_rate: float, random: Random
) -> QuestionRecord:
    labels = drawn_labels(rates, random)
    question = graded_question(paper, labels, random)
    effort, evidence, grounding = (label ^ (random.random() < flip_rate) for label in labels)
    return QuestionRecord(
        paper_id=paper.paper_id,
        question=question,
        paper_text=paper.text,
        page1_text=paper.pages[0],
        source=source,
        effort=effort,
        evidence=evidence,
        grounding=grounding,
    )


def oracle_labels(record: QuestionRecord) -> dict[str, int]:
    """What the labels of a record about a synthetic paper ought to be, by axis."""
    return dict(zip(AXES, grade(record.question, read_facts(record.paper_text)).labels, strict=True))


def with_other_papers(records: Sequence[QuestionRecord], seed: int = 0) -> list[QuestionRecord]:
    """The same questions, each beside the text of another paper and without labels: grounding should be gone.

    Args:
        records: Of at least two papers.
        seed: Of the shuffle; no paper keeps its place, and each is moved as a whole.

    Raises:
        ValueError: All records are of one paper.
    """
    papers = {record.paper_id: record for record in records}
    if len(papers) < 2:
        raise ValueError(f"with_other_papers: the records are of {len(papers)} papers; it takes at least 2.")
    order = sorted(papers)
    Random(seed).shuffle(order)
    following = {paper: papers[other] for paper, other in zip(order, [*order[1:], order[0]], strict=True)}
    return [
        replace(
            record,
            paper_id=following[record.paper_id].paper_id,
            paper_text=following[record.paper_id].paper_text,
            page1_text=following[record.paper_id].page1_text,
            effort=None,
            evidence=None,
            grounding=None,
        )
        for record in records
    ]
