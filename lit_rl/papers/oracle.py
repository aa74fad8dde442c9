"""The oracle: what a question about a synthetic paper is worth, read off the paper's planted facts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from lit_rl.papers.facts import FactGraph, read_facts
from lit_rl.papers.questions import read_question
from lit_rl.papers.records import AXES


@dataclass(frozen=True, slots=True)
class Grades:
    """What a question is worth on each axis, 1 or 0."""

    effort: int
    evidence: int
    grounding: int

    @property
    def labels(self) -> tuple[int, int, int]:
        """In the order of ``AXES``."""
        return self.effort, self.evidence, self.grounding


def grade(question: str, graph: FactGraph) -> Grades:
    """What a question is worth to somebody who knows all facts of the paper.

    * effort: it fits the grammar and states two linked facts, so two sections are needed to answer it.
    * evidence: it names a result of the paper, whole: metric, number and where it was measured.
    * grounding: it names something of this paper, and nothing that is only in others.

    A text that is no question (`lit_rl.papers.questions.ReadQuestion.readable`) gets 0 on all.  One that does not fit
    the grammar is searched for facts in any order, so words thrown together can have evidence and grounding but never
    effort.  Words outside the vocabulary count for nothing.

    Args:
        question: Any text.
        graph: Of the paper it is about.
    """
    read = read_question(question)
    if not read.readable:
        return Grades(0, 0, 0)
    named = read.named(graph)
    linked = read.fits and any(first.linked(second) for first, second in combinations(named, 2))
    grounded = bool(read.entities) and read.entities <= graph.entities
    return Grades(int(linked), int(any(fact.is_result for fact in named)), int(grounded))


class OracleJudge:
    """A reward model that is never wrong about synthetic papers: `grade` of questions, "reward" their sum 0 .. 3.

    It reads the paper out of the prompt, wherever it stands there.  As YAML::

        class_path: lit_rl.papers.OracleJudge
    """

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> dict[str, Tensor]:
        """Grades by axis and their sum, float32 ``(B,)`` each.

        Raises:
            ValueError: A prompt states no fact of a synthetic paper, or there are more prompts than completions or
                fewer.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"OracleJudge: {len(prompts)} prompts and {len(completions)} completions; give one each.")
        graphs = {prompt: _graph(prompt, place) for place, prompt in enumerate(prompts)}
        grades = [grade(said, graphs[prompt]).labels for prompt, said in zip(prompts, completions, strict=True)]
        table = torch.tensor(grades, dtype=torch.float32).reshape(-1, len(AXES))
        return dict(zip(AXES, table.unbind(1), strict=True)) | {"reward": table.sum(1)}


def _graph(prompt: str, place: int) -> FactGraph:
    graph = read_facts(prompt)
    if not graph.facts:
        raise ValueError(
            f"OracleJudge: prompt {place} ({prompt[:60]!r}) states no fact of a synthetic paper; take prompts of "
            "QuestionTasks, or another judge."
        )
    return graph
