"""Of scripts/reproduce/intelli.py: papers told again, so that a model learns to read before it learns to ask."""

from random import Random

from lit_rl.demonstrations import Demonstration
from lit_rl.environments.base import Message
from lit_rl.papers import SyntheticPapers
from lit_rl.stream_keys import stream_key


class Recitals:
    """Demonstrations: a synthetic paper, then all its sentences in another order.

    A question has few words that can be copied, and a small model takes long to learn copying from questions.

    Args:
        size: Number of papers.
        seed: Which papers.
    """

    def __init__(self, size: int = 1000, seed: int = 0):
        self.papers = SyntheticPapers(size, seed)

    def __len__(self) -> int:
        return len(self.papers)

    def __getitem__(self, index: int) -> Demonstration:
        paper = self.papers[index]
        told = Random(stream_key(self.papers.seed, "recital", index)).sample(paper.facts, len(paper.facts))
        said = " . ".join(fact.text for fact in told)
        return Demonstration(paper.paper_id, (Message("user", paper.text), Message("assistant", said)))
