"""Synthetic papers: a few sections with planted facts, on three pages of a closed vocabulary.

They stand in for papers where none can be had, and what a question about them is worth is known exactly: see
`lit_rl.papers.OracleJudge`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from lit_rl.papers.facts import FIRST_PAGE, SENTENCES, WORDS, Fact, FactGraph
from lit_rl.papers.questions import question_words
from lit_rl.stream_keys import stream_key

PAGES = ((FIRST_PAGE,), ("method", "experiments"), ("ablation", "limits"))
PAGE_BREAK = " \f "


@dataclass(frozen=True)
class SyntheticPaper:
    """One paper."""

    paper_id: str
    facts: tuple[Fact, ...]  # in the order of the text

    @cached_property
    def graph(self) -> FactGraph:
        """Its facts and their links."""
        return FactGraph(self.facts)

    @property
    def pages(self) -> list[str]:
        """Text of each page: headings and sentences, all words apart."""
        return [" ".join(self._section(section) for section in sections) for sections in PAGES]

    @property
    def text(self) -> str:
        """All pages, with form feeds between them."""
        return PAGE_BREAK.join(self.pages)

    def _section(self, section: str) -> str:
        return " ".join([f"{section} :", *(f"{fact.text} ." for fact in self.graph.of(section))])


class SyntheticPapers(Sequence[SyntheticPaper]):
    """Papers by index, the same for every run; those of another seed are others.

    Each has two components and what they use, a result on its one data set, and an ablation and a failure of the first
    component.  The other one is there to be mistaken for it.  Sentences of a section come in any order.

    Args:
        size: Number of papers.
        seed: Which papers.

    Raises:
        ValueError: ``size`` is below 1.
    """

    def __init__(self, size: int = 1000, seed: int = 0):
        if size < 1:
            raise ValueError(f"SyntheticPapers.size is {size}; it must be at least 1.")
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> SyntheticPaper:  # type: ignore[override]  # no slices
        if not 0 <= index < self.size:
            raise IndexError(index)
        random = Random(stream_key(self.seed, "paper", index))
        return SyntheticPaper(f"synthetic-{self.seed}-{index}", _planted(random))

    @staticmethod
    def words() -> list[str]:
        """Vocabulary of all papers and of all questions about them, page break included; for `TinyModel.words`."""
        told = " ".join(sentence for sentences in SENTENCES.values() for sentence in sentences).split()
        function_words = [word for word in told if not word.startswith("{")]
        entities = [word for words in WORDS.values() for word in words]
        return list(dict.fromkeys([*entities, *SENTENCES, *function_words, *question_words(), ":", ".", "\f"]))


def _planted(random: Random) -> tuple[Fact, ...]:
    """The facts of one paper, section by section."""
    method, baseline = random.sample(WORDS["method"], 2)
    parts = random.sample(WORDS["component"], 2)
    mechanisms = random.sample(WORDS["mechanism"], 2)
    data, metric = random.choice(WORDS["dataset"]), random.choice(WORDS["metric"])
    numbers = iter(random.sample(WORDS["number"], 2))
    said = {
        FIRST_PAGE: [f"{method} has {parts[0]}", f"{method} improves {metric} on {data}", f"{method} beats {baseline}"],
        "method": [f"{part} uses {mechanism}" for part, mechanism in zip(parts, mechanisms, strict=True)],
        "experiments": [f"{metric} is {next(numbers)} on {data}"],
        "ablation": [f"{metric} is {next(numbers)} without {parts[0]}"],
        "limits": [f"{mechanisms[0]} fails on {data}"],
    }
    for sentences in said.values():
        random.shuffle(sentences)
    return tuple(Fact(section, text) for section, sentences in said.items() for text in sentences)
