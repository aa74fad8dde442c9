"""The language of questions about synthetic papers: a small grammar, and how any text is read by it."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from lit_rl.papers.facts import KINDS, SENTENCES, WORDS, Fact, FactGraph, entities_of, sentence_pattern, words_of

OPENERS = ("how come", "what if")
JOINERS = ("although", "while")
GENERIC = (
    "what is new in this work ?",
    "how strong are the claims here ?",
    "what are the limits of this work ?",
    "why is the text so short ?",
)
MOST_WORDS = 24  # of a text that is read as a question at all
MOST_REPEATS = 2  # of an entity, metric or number in it
_STARTS = frozenset(
    ("how", "what", "why", "which", "where", "when", "who", "is", "are", "does", "do", "can", "could", "would", "if")
)

_CLAUSE = "|".join(sentence_pattern(sentence) for sentences in SENTENCES.values() for sentence in sentences)
_QUESTION = re.compile(
    rf"(?:{'|'.join(OPENERS)}) (?P<first>{_CLAUSE})(?: (?:{'|'.join(JOINERS)}) (?P<second>{_CLAUSE}))?"
    rf"(?: unlike (?:{'|'.join(WORDS['method'])}))? \?"
)


@dataclass(frozen=True, slots=True)
class ReadQuestion:
    """A text as the grammar sees it."""

    words: tuple[str, ...]
    fits: bool  # the grammar, as a whole
    clauses: tuple[str, ...]  # what a text that fits states, one or two sentences or none

    @property
    def readable(self) -> bool:
        """Whether the text can pass for a question, if not for one of the grammar.

        It begins with a question word, ends with its only question mark, and is neither longer than ``MOST_WORDS`` nor
        a repetition: no word twice in a row, no entity, metric or number more than ``MOST_REPEATS`` times.
        """
        words = self.words
        if not 2 <= len(words) <= MOST_WORDS or words[0] not in _STARTS or words.count("?") != 1 or words[-1] != "?":
            return False
        counts = Counter(word for word in words if word in KINDS)
        twice_in_a_row = any(first == second for first, second in pairwise(words))
        return not twice_in_a_row and max(counts.values(), default=0) <= MOST_REPEATS

    @property
    def entities(self) -> frozenset[str]:
        """All it names, of whatever paper."""
        return entities_of(self.words)

    def named(self, graph: FactGraph) -> list[Fact]:
        """The facts of a paper that it states.

        One that fits states its clauses and no more.  Of any other text, a fact counts as named if all its terms occur,
        in any order.
        """
        if self.fits:
            return [fact for fact in graph.facts if fact.text in self.clauses]
        return [fact for fact in graph.facts if set(fact.terms) <= set(self.words)]


def read_question(text: str) -> ReadQuestion:
    """What a text is as a question; any text can be read.

    Example:
        >>> read_question("How come gating uses hashing, unlike vega?").fits  # commas are no part of the grammar
        False
        >>> read_question("How come gating uses hashing unlike vega?").clauses
        ('gating uses hashing',)
    """
    words = tuple(words_of(text))
    plain = " ".join(words)
    found = _QUESTION.fullmatch(plain)
    clauses = tuple(clause for clause in found.groups() if clause is not None) if found else ()
    return ReadQuestion(words, found is not None or plain in GENERIC, clauses)


def written_question(opener: str, clauses: list[str], joiner: str, compared: str | None = None) -> str:
    """A question of the grammar: an opener, one or two sentences, and whom the paper is compared with."""
    tail = "" if compared is None else f" unlike {compared}"
    return f"{opener} {f' {joiner} '.join(clauses)}{tail} ?"


def question_words() -> list[str]:
    """The words of all questions that are not those of a paper."""
    return list(dict.fromkeys(" ".join([*OPENERS, *JOINERS, "unlike", *GENERIC]).split()))
