"""Answers as a reference policy would give them, to warm a small model up to that policy."""

from random import Random

from lit_rl.demonstrations import Demonstration
from lit_rl.environments.answer_sets import AnswerSet
from lit_rl.environments.base import Message


class ReferenceAnswers:
    """Demonstrations whose answers are drawn from the ``reference`` of an `AnswerSet`, right or not.

    Args:
        tasks: Prompts and answers.
        size: Number of demonstrations; prompts take turns.
        seed: Of the draws.
    """

    def __init__(self, tasks: AnswerSet, size: int = 4000, seed: int = 0):
        if size < 1:
            raise ValueError(f"ReferenceAnswers.size is {size}; it must be at least 1.")
        self.tasks = tasks
        self._drawn = Random(seed).choices(tasks.answers, weights=tasks.reference, k=size)

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, index: int) -> Demonstration:
        problem = self.tasks[index % len(self.tasks)]
        messages = (Message("user", problem.prompt), Message("assistant", self._drawn[index]))
        return Demonstration(f"{problem.id}, {index}", messages)
