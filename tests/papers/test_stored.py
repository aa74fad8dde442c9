import json
from pathlib import Path
from typing import Any

import pytest

from lit_rl.environments.problems import TaskSource
from lit_rl.papers.prompts import GENERATION_SYSTEM, generation_prompt
from lit_rl.papers.question_filter import QuestionFilter
from lit_rl.papers.stored import PaperTasks, StoredQuestions
from lit_rl.papers.synthetic import SyntheticPapers
from lit_rl.papers.texts import CUT


def write(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


@pytest.fixture
def tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    from lit_rl.tiny import TinyModel, materialize

    monkeypatch.setenv("LIT_RL_CACHE", str(tmp_path / "cache"))
    return str(materialize(TinyModel(words=SyntheticPapers.words(), hidden_size=16, layers=1, heads=2)))


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    rows = [{"paper_id": f"p{n}", "text": f"page one of {n} \f " + "recall is low . " * 50} for n in range(4)]
    return write(tmp_path / "papers.jsonl", *rows)


def test_papers_become_prompts(papers: Path) -> None:
    tasks = PaperTasks(papers)
    assert isinstance(tasks, TaskSource) and len(tasks) == 4
    problem = tasks[1]
    assert problem.id == "p1"
    assert problem.prompt == generation_prompt("page one of 1 \f " + "recall is low . " * 50)
    assert problem.meta["pages"][0] == "page one of 1 " and len(problem.meta["pages"]) == 2
    assert tasks.verify(problem, " Why? ").answer == "Why?"
    assert not tasks.verify(problem, "Why?").correct
    assert tasks.verify(problem, " ").kind == "empty"


def test_parts_share_no_paper(papers: Path) -> None:
    first = PaperTasks(papers, shuffle_seed=0, take=3)
    rest = PaperTasks(papers, shuffle_seed=0, skip=3)
    assert sorted(task[n].id for task in (first, rest) for n in range(len(task))) == ["p0", "p1", "p2", "p3"]
    orders = [[PaperTasks(papers, shuffle_seed=seed)[n].id for n in range(4)] for seed in (None, *range(5))]
    assert orders[0] == ["p0", "p1", "p2", "p3"] and len(set(map(tuple, orders))) > 2
    with pytest.raises(ValueError, match="has 4 usable rows"):
        PaperTasks(papers, skip=4)


def test_the_paper_is_cut_and_nothing_else(papers: Path, tokenizer: str) -> None:
    problem = PaperTasks(papers, max_paper_tokens=40, tokenizer=tokenizer)[0]
    head, tail = problem.prompt.split(CUT)
    assert head.startswith(generation_prompt("page one of 0")) and tail.endswith("recall is low . ")
    assert len(problem.prompt.split()) < 60
    assert len(problem.meta["pages"][1].split()) == 200  # first-page bias is about the whole paper


def test_questions_become_demonstrations(tmp_path: Path, tokenizer: str) -> None:
    released: dict[str, Any] = {"paper_id": "p", "source": "human", "ocr_output": "recall is low . " * 50}
    released |= {"low_effort": True, "evidence": True, "factual": True}
    file = write(tmp_path / "q.jsonl", released | {"question": "Why is it?"}, released | {"question": "W" * 100})
    demonstrations = StoredQuestions(file)
    assert len(demonstrations) == 2
    system, paper, question = demonstrations[0].messages
    assert (system.role, system.content) == ("system", GENERATION_SYSTEM)
    assert (paper.role, paper.content) == ("user", generation_prompt(released["ocr_output"]))
    assert (question.role, question.content) == ("assistant", "Why is it?")
    kept = StoredQuestions(file, question_filter=QuestionFilter(), instruction=None)
    assert [message.content for message in kept[0].messages[1:]] == ["W" * 100] and len(kept) == 1
    cut = StoredQuestions(file, max_paper_tokens=20, tokenizer=tokenizer)
    assert CUT in cut[0].messages[1].content


def test_bad_input(tmp_path: Path, papers: Path) -> None:
    with pytest.raises(
        ValueError, match="PaperTasks: max_paper_tokens is 10 and tokenizer None; give both, or neither"
    ):
        PaperTasks(papers, max_paper_tokens=10)
    with pytest.raises(ValueError, match="StoredQuestions: max_paper_tokens is None and tokenizer 'x'"):
        StoredQuestions("q.jsonl", tokenizer="x")
    with pytest.raises(ValueError, match="PaperTasks.max_paper_tokens is 0"):
        PaperTasks(papers, max_paper_tokens=0, tokenizer="x")
    rows = {"paper_id": "p", "source": "s", "question": "Why?", "paper_text": "t", "page1_text": "t"}
    file = write(tmp_path / "q.jsonl", rows | {"effort": 1, "evidence": 1, "grounding": 1})
    with pytest.raises(ValueError, match=r"none of the 1 questions of .*q.jsonl passes the filter"):
        StoredQuestions(file, "own", question_filter=QuestionFilter())
