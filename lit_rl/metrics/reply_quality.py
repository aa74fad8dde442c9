"""How good single replies are: GRE, from scores 1 .. 5 on named dimensions (gopo.md section 4.3).

As published (GOPO, arXiv 2602.15854, by its digests): a judge model scores several dimensions; what GRE stands for is
not known.  Our reading: the dimensions, the scale, and the rules of `RuleRater`.  Parties that rate are in
`lit_rl.service.raters`.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

DIMENSIONS = ("accuracy", "strategy", "fluency", "empathy", "compliance")
LOWEST, HIGHEST = 1, 5

Scores = Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedReply:
    """A reply of the service with what it is judged by.

    Attributes:
        text: The reply.
        history: What was said before it, in order.
        skill: What it was to do; None if nothing was planned.
        facts: Words or numbers that it should say, such as the item the customer needs.
        required: Phrases its constraint wants.
        forbidden: Phrases its constraint rules out.
        max_words: Longest reply the constraint allows; None for no limit.
    """

    text: str
    history: tuple[str, ...] = ()
    skill: str | None = None
    facts: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    max_words: int | None = None


@runtime_checkable
class ReplyRater(Protocol):
    """Scores replies, each 1 .. 5 on some or all of ``DIMENSIONS``."""

    def rate(self, replies: Sequence[RatedReply]) -> list[Scores | None]:
        """Scores by dimension of each, in order; None where the rater gave none."""
        ...


def gre(scores: Scores | Sequence[float]) -> float:
    """Mean of ``(score - 1) / 4`` over dimensions, in [0, 1].

    Args:
        scores: One per dimension, each in 1 .. 5; by name, or just the numbers.

    Raises:
        ValueError: No score, one outside 1 .. 5, or a name that is not among ``DIMENSIONS``.

    Example:
        >>> gre([5, 4, 4, 3, 5]), gre({"accuracy": 5, "fluency": 3})
        (0.8, 0.75)
    """
    if isinstance(scores, Mapping):
        unknown = sorted(scores.keys() - set(DIMENSIONS))
        if unknown:
            raise ValueError(f"GRE has scores for {unknown}; the dimensions are {list(DIMENSIONS)}.")
        scores = list(scores.values())
    if not scores or not all(LOWEST <= score <= HIGHEST for score in scores):
        raise ValueError(f"GRE has the scores {list(scores)}; wanted one or more of {LOWEST} .. {HIGHEST}.")
    return math.fsum((score - LOWEST) / (HIGHEST - LOWEST) for score in scores) / len(scores)


class RuleRater:
    """Scores replies by rules, without a model: the offline default.

    * ``accuracy``: share of the ``facts`` said, as whole words.
    * ``strategy``: share of the ``required`` phrases said.
    * ``fluency``: share of its word pairs that are not repeated; 1 point if it is empty.
    * ``compliance``: 5 points, or 1 with a forbidden phrase or more than ``max_words``.

    A share ``s`` gives ``1 + 4 s`` points, and 5 where nothing is asked for.  Case does not matter.  Phrases are found
    inside words too, as constraints of the sampler find them.  No rule can see empathy: that dimension is left out.

    Example:
        >>> scores = RuleRater().rate([RatedReply(text="The red lamp, please.", facts=("lamp", "blue"))])[0]
        >>> scores["accuracy"], scores["compliance"]
        (3.0, 5.0)
    """

    def rate(self, replies: Sequence[RatedReply]) -> list[Scores | None]:
        """Scores of each reply, in order."""
        return [self._scores(reply) for reply in replies]

    @staticmethod
    def _scores(reply: RatedReply) -> dict[str, float]:
        text, words = reply.text.casefold(), re.findall(r"\w+", reply.text.casefold())
        pairs = list(itertools.pairwise(words))
        said = [re.search(rf"(?<!\w){re.escape(fact.casefold())}(?!\w)", text) for fact in reply.facts]
        forbidden = any(phrase.casefold() in text for phrase in reply.forbidden)
        too_long = reply.max_words is not None and len(words) > reply.max_words
        return {
            "accuracy": _points(sum(found is not None for found in said), len(said)),
            "strategy": _points(sum(phrase.casefold() in text for phrase in reply.required), len(reply.required)),
            "fluency": _points(len(set(pairs)), len(pairs)) if words else float(LOWEST),
            "compliance": float(LOWEST if forbidden or too_long else HIGHEST),
        }


def _points(reached: int, wanted: int) -> float:
    return LOWEST + (HIGHEST - LOWEST) * (reached / wanted if wanted else 1.0)
