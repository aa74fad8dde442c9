"""NumberSearch: a hidden number, found only by listening to "higher" and "lower" (our small world for SML)."""

from lit_rl.environments.problems import Attempt, Problem
from lit_rl.verification.answers import marked_answer


class NumberSearch:
    """Find ``n`` in ``0 .. size - 1``; the public text says nothing about it.

    Args:
        size: Number of hidden values, one problem each.
    """

    name = "NumberSearch"

    def __init__(self, size: int = 15):
        if size < 1:
            raise ValueError(f"NumberSearch.size is {size}; at least one number has to hide.")
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < self.size:
            raise IndexError(index)
        gold = str(index)
        prompt = f"find n in 0 {self.size - 1}"
        return Problem(id=gold, domain="number_search", prompt=prompt, gold=gold, private={"answer": gold})

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return marked_answer(utterance, problem.gold)

    def ceiling(self, turns: int) -> list[float]:
        """Accuracy by turn of optimal bisection: ``(2^k - 1) / size``."""
        return [min(1.0, (2**k - 1) / self.size) for k in range(1, turns + 1)]
