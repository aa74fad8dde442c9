"""Several task sources as one: other domains side by side, or one at several sizes."""

from collections.abc import Sequence
from dataclasses import replace

from lit_rl.environments.problems import Attempt, Problem, TaskSource


class Mixture:
    """Problems of several sources in turn, so that any stretch holds equally many of each.

    Args:
        sources: At least one; each gives as many problems as the smallest of them has.

    Raises:
        ValueError: No source.
    """

    def __init__(self, sources: Sequence[TaskSource]):
        if not sources:
            raise ValueError("Mixture.sources is empty; give at least one source of tasks.")
        self.sources = list(sources)
        self.name = " + ".join(dict.fromkeys(source.name for source in self.sources))
        self._each = min(len(source) for source in self.sources)

    def __len__(self) -> int:
        return self._each * len(self.sources)

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        place, source = divmod(index, len(self.sources))
        problem = self.sources[source][place]
        return replace(problem, id=f"{source}:{problem.id}")

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        source = int(problem.id.partition(":")[0])
        return self.sources[source].verify(replace(problem, id=problem.id.partition(":")[2]), utterance)
