from pathlib import Path
from statistics import fmean

import pytest
import yaml

from lit_rl.environments.problems import TaskSource
from lit_rl.papers.facts import read_facts
from lit_rl.papers.oracle import grade
from lit_rl.papers.records import AXES
from lit_rl.papers.synthetic import SyntheticPapers
from lit_rl.papers.tasks import ASK_AGAIN, QuestionTasks, ReferenceQuestions

TASKS = QuestionTasks(size=50, seed=2)


def test_the_prompt_is_the_paper_and_the_gold_question_is_right() -> None:
    assert isinstance(TASKS, TaskSource)
    assert len(TASKS) == 50
    for index in range(50):
        problem = TASKS[index]
        assert problem.prompt == SyntheticPapers(50, seed=2)[index].text
        assert TASKS.verify(problem, problem.gold).correct
    with pytest.raises(IndexError):
        TASKS[50]
    assert {" although " in TASKS[n].gold for n in range(50)} == {True, False}  # drawn for each paper by itself
    assert TASKS[7] == QuestionTasks(size=50, seed=2)[7]


def test_verdicts() -> None:
    problem = TASKS[0]
    attempt = TASKS.verify(problem, f"  {problem.gold} ")
    assert (attempt.kind, attempt.answer, attempt.detail) == (
        "answer",
        problem.gold,
        "effort 1, evidence 1, grounding 1",
    )
    attempt = TASKS.verify(problem, "what is new in this work ?")
    assert (attempt.kind, attempt.correct, attempt.detail) == ("answer", False, "effort 0, evidence 0, grounding 0")
    assert TASKS.verify(problem, " ").kind == "empty"
    assert TASKS.verify(problem, "hm .").kind == "malformed"
    assert not TASKS.verify(problem, TASKS[1].gold).correct


def test_references_are_as_good_as_asked_for() -> None:
    rates = {"effort": 0.2, "evidence": 0.3, "grounding": 0.8}
    references = ReferenceQuestions(**rates, size=600, seed=4)
    found: list[tuple[int, int, int]] = []
    for index in range(len(references)):
        paper, question = (message.content for message in references[index].messages)
        found.append(grade(question, read_facts(paper)).labels)
    for place, axis in enumerate(AXES):
        assert fmean(labels[place] for labels in found) == pytest.approx(rates[axis], abs=0.06)
    assert references[5] == ReferenceQuestions(**rates, size=6, seed=4)[5]


def test_an_instruction_comes_before_the_paper() -> None:
    system, paper, question = ReferenceQuestions(0, 0, 1, size=1, instruction="ask")[0].messages
    assert (system.role, system.content) == ("system", "ask")
    assert (paper.role, question.role) == ("user", "assistant")


def test_the_config_lists_the_words_of_the_papers() -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "configs" / "intelli" / "sft_tiny.yaml").read_text())
    assert config["model"]["init_args"]["policy"]["tiny"]["words"] == SyntheticPapers.words()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"QuestionTasks.size is 0; it must be at least 1"):
        QuestionTasks(size=0)
    with pytest.raises(ValueError, match=r"ReferenceQuestions.rates is .* give a share of 0 .. 1"):
        ReferenceQuestions(0, 1.5, 1)
    with pytest.raises(ValueError, match=r"ReferenceQuestions.size is 0"):
        ReferenceQuestions(0, 0, 1, size=0)
    with pytest.raises(ValueError, match=r"ReferenceQuestions.questions is 0; it must be at least 1"):
        ReferenceQuestions(0, 0, 1, questions=0)


def test_several_questions_about_one_paper() -> None:
    rates = {"effort": 0.5, "evidence": 0.5, "grounding": 0.5}
    told = ReferenceQuestions(**rates, size=3, questions=3, instruction="ask")[2].messages
    assert [message.role for message in told] == ["system", *["user", "assistant"] * 3]
    assert [message.content for message in told if message.role == "user"][1:] == [ASK_AGAIN] * 2
    assert ASK_AGAIN in SyntheticPapers.words()
    assert told[:3] == ReferenceQuestions(**rates, size=3, instruction="ask")[2].messages  # the first is the same
    source = ReferenceQuestions(**rates, size=1)
    assert len({source.question(source.papers[0], number) for number in range(10)}) > 5
