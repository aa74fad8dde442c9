"""The facts of a synthetic paper and how they hang together: sentences of a closed language, read back from any text.

Our own small language.  Every sentence states one fact; facts of different sections are linked by what they name, such
as a component that one section explains and another removes.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

WORDS: dict[str, tuple[str, ...]] = {
    "method": ("orion", "vega", "lyra", "draco", "cetus", "hydra", "norma", "pavo"),
    "component": ("gating", "pooling", "routing", "masking", "pruning", "caching", "mixing", "tiling"),
    "mechanism": ("hashing", "sorting", "noise", "buckets", "anchors", "mirrors", "ladders", "sketches"),
    "dataset": ("atlas", "basil", "cedar", "delta", "ember", "fjord", "grove", "heath"),
    "metric": ("accuracy", "recall", "speed"),
    "number": tuple(str(number) for number in range(10, 22)),
}
KINDS = {word: kind for kind, words in WORDS.items() for word in words}
ENTITIES = ("method", "component", "mechanism", "dataset")  # what belongs to a paper; every paper has some metric

FIRST_PAGE = "abstract"
# What each section can say.
SENTENCES: dict[str, tuple[str, ...]] = {
    FIRST_PAGE: ("{method} has {component}", "{method} improves {metric} on {dataset}", "{method} beats {method}"),
    "method": ("{component} uses {mechanism}",),
    "experiments": ("{metric} is {number} on {dataset}",),
    "ablation": ("{metric} is {number} without {component}",),
    "limits": ("{mechanism} fails on {dataset}",),
}


def words_of(text: str) -> list[str]:
    """Lower-case words, numbers and single signs, in order.

    Example:
        >>> words_of("Why, if gating uses hashing?")
        ['why', ',', 'if', 'gating', 'uses', 'hashing', '?']
    """
    return re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower())


def sentence_pattern(sentence: str) -> str:
    """The regular expression of a sentence, with no group in it."""
    return re.sub(r"\{(\w+)\}", lambda slot: f"(?:{'|'.join(WORDS[slot[1]])})", sentence)


_PATTERNS = {
    section: re.compile("|".join(sentence_pattern(sentence) for sentence in sentences))
    for section, sentences in SENTENCES.items()
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One sentence of a paper."""

    section: str
    text: str

    @property
    def terms(self) -> tuple[str, ...]:
        """What it is about: its words of a kind, in order."""
        return tuple(word for word in self.text.split() if word in KINDS)

    @property
    def entities(self) -> frozenset[str]:
        """The methods, components, mechanisms and data sets it names."""
        return entities_of(self.text.split())

    @property
    def is_result(self) -> bool:
        """Whether it reports a number."""
        return any(KINDS[term] == "number" for term in self.terms)

    def linked(self, other: "Fact") -> bool:
        """Whether both are needed to see something: of different sections behind page one, about one thing.

        The abstract does not count: it announces what other sections say.
        """
        sections = {self.section, other.section}
        return len(sections) == 2 and FIRST_PAGE not in sections and bool(self.entities & other.entities)


@dataclass(frozen=True)
class FactGraph:
    """The facts of one paper, in its order, and the links between them."""

    facts: tuple[Fact, ...]

    @cached_property
    def entities(self) -> frozenset[str]:
        """All that this paper names."""
        return frozenset().union(*(fact.entities for fact in self.facts))

    def links(self) -> Iterator[tuple[Fact, Fact]]:
        """All pairs of linked facts, each once."""
        return (pair for pair in combinations(self.facts, 2) if pair[0].linked(pair[1]))

    def of(self, *sections: str) -> list[Fact]:
        """The facts of some sections."""
        return [fact for fact in self.facts if fact.section in sections]


def entities_of(words: Iterable[str]) -> frozenset[str]:
    """Those of the words that name an entity."""
    return frozenset(word for word in words if KINDS.get(word) in ENTITIES)


def read_facts(text: str) -> FactGraph:
    """All facts that a text states behind a section's heading (``ablation :``); other sentences are passed over.

    So a prompt with words around the paper, or a paper that was cut, gives the facts that are there.

    Example:
        >>> read_facts("Ablation: recall is 20 without gating. Thanks.").facts
        (Fact(section='ablation', text='recall is 20 without gating'),)
    """
    section, facts = "", []
    for sentence in re.split(r" ?\. ?", " ".join(words_of(text))):
        *headings, said = sentence.rsplit(" : ", 1)
        if headings:
            section = headings[0].split()[-1]
        if section in _PATTERNS and _PATTERNS[section].fullmatch(said):
            facts.append(Fact(section, said))
    return FactGraph(tuple(dict.fromkeys(facts)))
