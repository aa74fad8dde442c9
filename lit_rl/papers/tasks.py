"""Paper -> question, as a task source, and reference questions to warm a generator up on (the SFT baseline)."""

from collections.abc import Mapping
from random import Random

from lit_rl.demonstrations import Demonstration
from lit_rl.environments.base import Message
from lit_rl.environments.problems import Attempt, Problem
from lit_rl.papers.graded import check_rates, drawn_labels, graded_question
from lit_rl.papers.oracle import grade
from lit_rl.papers.questions import read_question
from lit_rl.papers.records import AXES
from lit_rl.papers.synthetic import SyntheticPaper, SyntheticPapers
from lit_rl.stream_keys import stream_key

ASK_AGAIN = "?"  # what is said between two questions about one paper; a word of the papers' vocabulary


class QuestionTasks:
    """One synthetic paper each: the prompt is its text, any question is an answer, one good on all axes is right.

    The generator is trained against a reward model; ``verify`` is the oracle, for evaluation.  As YAML::

        class_path: lit_rl.papers.QuestionTasks
        init_args: {size: 2000, seed: 1}

    Args:
        size: Number of papers.
        seed: Which papers.

    Raises:
        ValueError: ``size`` is below 1.
    """

    name = "QuestionTasks"

    def __init__(self, size: int = 1000, seed: int = 0):
        if size < 1:
            raise ValueError(f"QuestionTasks.size is {size}; it must be at least 1.")
        self.papers = SyntheticPapers(size, seed)

    def __len__(self) -> int:
        return len(self.papers)

    def __getitem__(self, index: int) -> Problem:
        paper = self.papers[index]
        good = graded_question(paper, (1, 1, 1), Random(stream_key(self.papers.seed, "gold", index)))
        return Problem(
            id=paper.paper_id,
            domain="questions",
            prompt=paper.text,
            gold=good,
            private={"answer": good},
            meta={"graph": paper.graph},
        )

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        """Right if the oracle finds effort, evidence and grounding; what is no question at all is malformed."""
        question = utterance.strip()
        if not question:
            return Attempt("empty")
        if not read_question(question).readable:
            return Attempt("malformed", detail="no question")
        labels = grade(question, problem.meta["graph"]).labels
        detail = ", ".join(f"{axis} {label}" for axis, label in zip(AXES, labels, strict=True))
        return Attempt("answer", question, all(labels), detail)


class ReferenceQuestions:
    """Demonstrations of mixed quality: papers, and questions of drawn labels about each.

    Args:
        effort: Share of questions that are good on this axis; the three are drawn independently.
        evidence: The same of evidence.
        grounding: The same of grounding.
        size: Number of papers.
        seed: Which papers, and which questions.
        instruction: System message before the paper, if the generator will have one.
        questions: Asked about each paper, one after another in one dialogue, so that reading a paper once teaches as
            many replies; a generator that asks one is met in the first.

    Raises:
        ValueError: A share is out of range, or ``size`` or ``questions`` below 1.
    """

    def __init__(
        self,
        effort: float,
        evidence: float,
        grounding: float,
        *,
        size: int = 1000,
        seed: int = 0,
        instruction: str | None = None,
        questions: int = 1,
    ):
        self.rates: Mapping[str, float] = dict(zip(AXES, (effort, evidence, grounding), strict=True))
        check_rates(self.rates, "ReferenceQuestions.rates")
        for name, count in {"size": size, "questions": questions}.items():
            if count < 1:
                raise ValueError(f"ReferenceQuestions.{name} is {count}; it must be at least 1.")
        self.papers, self.instruction, self.questions = SyntheticPapers(size, seed), instruction, questions

    def __len__(self) -> int:
        return len(self.papers)

    def __getitem__(self, index: int) -> Demonstration:
        paper = self.papers[index]
        messages = [Message("system", self.instruction)] if self.instruction else []
        for number in range(self.questions):
            messages += [
                Message("user", ASK_AGAIN if number else paper.text),
                Message("assistant", self.question(paper, number)),
            ]
        return Demonstration(paper.paper_id, tuple(messages))

    def question(self, paper: SyntheticPaper, number: int = 0) -> str:
        """The one asked about a paper as the ``number``-th, from 0 on."""
        random = Random(stream_key(self.papers.seed, "reference", paper.paper_id, number))
        return graded_question(paper, drawn_labels(self.rates, random), random)
