"""Small state-tracking problems whose reasoning can be written down, checked and corrupted exactly."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random

from lit_rl.environments.problems import Problem
from lit_rl.environments.trace_solutions import Solution
from lit_rl.environments.trace_styles import BACKTRACK, FILLERS
from lit_rl.stream_keys import stream_key
from lit_rl.verification.attempts import Attempt
from lit_rl.verification.labels import verify_label
from lit_rl.verification.traces import DEFAULT_TAGS, ThinkTags


class TraceTasks(ABC):
    """Problems that start in a state and change it step by step; asked for is the last state.

    A problem's ``meta`` holds ``labels``, its possible states, and ``solution``, a
    `lit_rl.environments.trace_solutions.Solution`.

    Args:
        name: Of the family.
        labels: Its states.
        size: Number of problems, all with different prompts.
        seed: Of the problems.
        steps: From the first state to the last, hence lines of a plain solution.
        tags: Of the think block that must be closed for an answer to count.

    Raises:
        ValueError: Fewer than four steps or more than 20, or fewer different prompts than ``size``.
    """

    def __init__(
        self, name: str, labels: Sequence[str], size: int, seed: int, steps: int, tags: ThinkTags = DEFAULT_TAGS
    ):
        if size < 1:
            raise ValueError(f"{name}.size is {size}; it must be at least 1.")
        if not 4 <= steps <= 20:  # fewer lines cannot be cut at each quarter
            raise ValueError(f"{name}.steps is {steps}; it must lie in 4 .. 20.")
        self.name, self.labels, self.size, self.seed, self.steps, self.tags = (
            name,
            list(labels),
            size,
            seed,
            steps,
            tags,
        )
        self._draws = self._distinct()

    @property
    def words(self) -> list[str]:
        """All words of prompts, of reasoning in any style and of answers: the vocabulary of a `TinyModel`."""
        numbers = [str(number) for number in range(1, self.steps + 1)]
        spoken = ["=", "answer", "Answer", ":", BACKTRACK, *FILLERS, self.tags.open, self.tags.close, "\n"]
        return list(dict.fromkeys([*self.prompt_words(), *numbers, *self.labels, *spoken]))

    @abstractmethod
    def prompt_words(self) -> list[str]:
        """Words of prompts, beside labels and numbers of steps."""

    @abstractmethod
    def draw(self, rng: Random) -> tuple[str, Solution]:
        """A prompt and its solution."""

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < self.size:
            raise IndexError(index)
        prompt, solution = self._drawn(self._draws[index])
        gold = solution.states()[-1]
        return Problem(
            id=f"{self.name}-{self.seed}-{index}",
            domain=self.name,
            prompt=prompt,
            gold=gold,
            private={"answer": gold},
            meta={"labels": self.labels, "solution": solution},
        )

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return verify_label(utterance, problem.gold, self.labels, tags=self.tags)

    def _drawn(self, number: int) -> tuple[str, Solution]:
        return self.draw(Random(stream_key(self.name, self.seed, number)))

    def _distinct(self) -> list[int]:
        """Numbers of the first draws whose prompts differ."""
        first: dict[str, int] = {}
        draws = 20 * self.size + 20
        for number in range(draws):
            first.setdefault(self._drawn(number)[0], number)
            if len(first) == self.size:
                return list(first.values())
        raise ValueError(
            f"{self.name}.size is {self.size}, but {draws} draws gave only {len(first)} different prompts; lower it, "
            "or take more steps or more states."
        )


def numbered(words: Sequence[str]) -> str:
    """Steps as a prompt lists them: ``1 left ; 2 up``."""
    return " ; ".join(f"{number} {said}" for number, said in enumerate(words, start=1))
