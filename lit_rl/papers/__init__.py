"""Papers and the questions asked about them: records, files, synthetic papers, and the oracle that judges questions."""

from lit_rl.papers.annotations import SOURCES, annotated_questions, oracle_labels, with_other_papers
from lit_rl.papers.facts import Fact, FactGraph, read_facts
from lit_rl.papers.graded import graded_question
from lit_rl.papers.oracle import Grades, OracleJudge, grade
from lit_rl.papers.prompts import GENERATION_SYSTEM, generation_prompt
from lit_rl.papers.question_filter import QuestionFilter
from lit_rl.papers.records import (
    AXES,
    QuestionLayout,
    QuestionRecord,
    read_questions,
    shared_papers,
    split_by_paper,
)
from lit_rl.papers.stored import PaperTasks, StoredQuestions
from lit_rl.papers.synthetic import SyntheticPaper, SyntheticPapers
from lit_rl.papers.tasks import QuestionTasks, ReferenceQuestions
from lit_rl.papers.texts import PaperText, cut_middle, read_papers

__all__ = [
    "AXES",
    "GENERATION_SYSTEM",
    "SOURCES",
    "Fact",
    "FactGraph",
    "Grades",
    "OracleJudge",
    "PaperTasks",
    "PaperText",
    "QuestionFilter",
    "QuestionLayout",
    "QuestionRecord",
    "QuestionTasks",
    "ReferenceQuestions",
    "StoredQuestions",
    "SyntheticPaper",
    "SyntheticPapers",
    "annotated_questions",
    "cut_middle",
    "generation_prompt",
    "grade",
    "graded_question",
    "oracle_labels",
    "read_facts",
    "read_papers",
    "read_questions",
    "shared_papers",
    "split_by_paper",
    "with_other_papers",
]
