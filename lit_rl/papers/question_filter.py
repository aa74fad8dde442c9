"""Which questions of a corpus are fit to learn from: the funnel of intelli.md section 1.3 as far as it needs no LLM."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Our reading of the published exclusion rules that can be told from words alone.
BLOCKLIST: dict[str, str] = {
    "pointer": r"\b(?:see|refer to|listed in|mentioned in|described in) (?:the )?"
    r"(?:weakness(?:es)?|strengths?|questions?|above|below|previous|other) ?(?:sections?|fields?|boxe?s?|points?)?\b",
    "review process": r"\b(?:rebuttal|camera[- ]ready|my (?:score|rating)|(?:raise|increase|lower) (?:the|my) (?:score|"
    r"rating)|area chair|meta-?review|(?:other|fellow) reviewers?|accept(?:ance)? threshold)\b",
    "telltale": r"\b(?:delv(?:e|es|ing)|tapestry|underscor(?:e|es|ing)|as an ai|large language model i|in the realm of|"
    r"multifaceted)\b",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the funnel."""

    name: str
    kept: tuple[str, ...]  # ids, in the order of the corpus
    removed: int

    def __str__(self) -> str:
        return f"{self.name}: {self.removed} removed, {len(self.kept)} left"


class QuestionFilter:
    """Drops questions that are short, that were asked before, or that hold what no question should.

    As published but for what an LLM judged: of its fourteen rules only those are here that words alone can tell, and
    sets of words stand in for embeddings.

    Args:
        min_chars: Fewest characters, spaces at the ends not counted; 100 as published.
        max_similarity: From this Jaccard similarity of their sets of words on, the later of two questions is dropped.
        blocklist: Regular expressions by name, searched for without regard to case; None takes ``BLOCKLIST``.

    Raises:
        ValueError: An option is out of range, or an expression is none.
    """

    def __init__(self, min_chars: int = 100, max_similarity: float = 0.8, blocklist: Mapping[str, str] | None = None):
        if min_chars < 0:
            raise ValueError(f"QuestionFilter.min_chars is {min_chars}; it must be 0 or more.")
        if not 0 < max_similarity <= 1:
            raise ValueError(f"QuestionFilter.max_similarity is {max_similarity}; it must be above 0 and at most 1.")
        self.min_chars, self.max_similarity = min_chars, max_similarity
        patterns = BLOCKLIST if blocklist is None else blocklist
        self._blocked = {name: _compiled(name, text) for name, text in patterns.items()}

    def funnel(self, questions: Mapping[str, str]) -> list[Stage]:
        """What each stage keeps: "input", "length", "uniqueness", then one stage for each entry of the blocklist.

        Args:
            questions: Text of each by id, in the order in which of two alike the first is kept.
        """
        stages = [Stage("input", tuple(questions), 0)]

        def narrow(name: str, kept: Sequence[str]) -> None:
            stages.append(Stage(name, tuple(kept), len(stages[-1].kept) - len(kept)))

        narrow("length", [id for id in questions if len(questions[id].strip()) >= self.min_chars])
        narrow("uniqueness", self._unique({id: questions[id] for id in stages[-1].kept}))
        for name, pattern in self._blocked.items():
            narrow(name, [id for id in stages[-1].kept if not pattern.search(questions[id])])
        return stages

    def kept(self, questions: Mapping[str, str]) -> list[str]:
        """Ids of the questions that pass all stages."""
        return list(self.funnel(questions)[-1].kept)

    def _unique(self, questions: Mapping[str, str]) -> list[str]:
        words = {id: frozenset(re.findall(r"\w+", question.casefold())) for id, question in questions.items()}
        counts = Counter(word for own in words.values() for word in own)
        kept: list[str] = []
        by_word: dict[str, list[str]] = defaultdict(list)
        for id, own in words.items():
            # Sets as similar as that share a word among the rarest few of each, so no other pairs are compared.
            few = len(own) - math.ceil(self.max_similarity * len(own) - 1e-9) + 1
            rarest = sorted(own, key=lambda word: (counts[word], word))[:few]
            candidates = {other for word in rarest for other in by_word[word]}
            if any(_jaccard(own, words[other]) >= self.max_similarity for other in candidates):
                continue
            kept.append(id)
            for word in rarest:
                by_word[word].append(id)
        return kept


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second)


def _compiled(name: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"QuestionFilter.blocklist[{name!r}] is {text!r}, no regular expression: {error}.") from error
