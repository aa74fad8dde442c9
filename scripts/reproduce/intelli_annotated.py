"""Of scripts/reproduce/intelli.py: annotated questions, half of them the generator's own before it is trained.

A reward model that has seen well-made questions alone, good and bad, never learns what a generator gets wrong: that
facts it half remembers are no facts of the paper.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

from lit_rl.papers import AXES, QuestionRecord, SyntheticPapers, annotated_questions, oracle_labels
from lit_rl.stream_keys import stream_key

FLIP_RATE = 0.05
NOISY, TRUE = "annotated.jsonl", "true.jsonl"


def write_annotated(folder: Path, papers: SyntheticPapers) -> None:
    """Write a generator's and others' questions, with labels that now and then err, beside its ``predictions.jsonl``.

    The others are those of `annotated_questions`.  ``annotated.jsonl`` has the labels of annotators, ``true.jsonl``
    those of the oracle, of the same questions in the same order.

    Args:
        folder: Of a run of ``lit-rl predict``.
        papers: What it asked about, by number of the task.
    """
    lines = map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
    asked = [(int(line["task_id"]), line["turns"][0]["text"]) for line in lines]
    own = [_record(papers, task, question) for task, question in asked if question.strip()]
    others = [annotated_questions(papers, flip_rate=rate, seed=papers.seed) for rate in (FLIP_RATE, 0.0)]
    _write(folder / NOISY, [*others[0], *(_flipped(record, place) for place, record in enumerate(own))])
    _write(folder / TRUE, [*others[1], *own])


def _record(papers: SyntheticPapers, task: int, question: str) -> QuestionRecord:
    paper = papers[task]
    record = QuestionRecord(
        paper_id=paper.paper_id,
        question=question,
        paper_text=paper.text,
        page1_text=paper.pages[0],
        source="generator",
    )
    labels = oracle_labels(record)
    return replace(record, effort=labels["effort"], evidence=labels["evidence"], grounding=labels["grounding"])


def _flipped(record: QuestionRecord, place: int) -> QuestionRecord:
    random = Random(stream_key(0, "flipped", record.paper_id, place))
    return replace(record, **{axis: getattr(record, axis) ^ (random.random() < FLIP_RATE) for axis in AXES})


def _write(path: Path, records: Sequence[QuestionRecord]) -> None:
    path.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))
