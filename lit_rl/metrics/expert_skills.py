"""How well a planned chain of skills agrees with an expert's grades: ESNDCG (gopo.md section 4.1).

As published (GOPO, arXiv 2602.15854, by its digests): the name and the role, an expert reward of chains of skills.  Our
reading: the formula, the one usual for ranked lists.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, get_args

Gain = Literal["exponential", "linear"]


def esndcg(
    chain: Sequence[Hashable], relevance: Mapping[Hashable, float], *, cutoff: int = 3, gain: Gain = "exponential"
) -> float | None:
    """Discounted gain of a chain over that of the best chain, for one turn.

    ``DCG = sum_i (2^rel(z_i) - 1) / log2(i + 1)`` over the first ``cutoff`` places; the best is that of all graded
    skills in order.  A skill that is repeated gains once, one without a grade gains nothing.

    Args:
        chain: Skills as planned, in order.
        relevance: Grade of each skill in this turn, at least 0 (usually 0 .. 3); what is missing is 0.
        cutoff: How many places count.
        gain: "exponential", ``2^rel - 1``, or "linear", ``rel``.

    Returns:
        In [0, 1]; None where no skill has a grade above 0, so that the turn says nothing.

    Raises:
        ValueError: A grade below 0 or not finite, or an option out of range.

    Example:
        >>> grades = {"ask": 3, "recommend": 2, "coupon": 1}
        >>> esndcg(["ask", "recommend", "coupon"], grades), esndcg(["ask"], {})
        (1.0, None)
        >>> round(esndcg(["recommend", "ask", "coupon"], grades), 6)
        0.842828
    """
    check_esndcg_options(cutoff, gain)
    for skill, grade in relevance.items():
        if not 0 <= grade < math.inf:
            raise ValueError(f"The relevance of {skill!r} is {grade}; it must be a finite number of at least 0.")
    best = _discounted(sorted(relevance.values(), reverse=True)[:cutoff], gain)
    if best == 0:
        return None
    new = [chain[i] not in chain[:i] for i in range(len(chain))]
    grades = [relevance.get(skill, 0.0) if first else 0.0 for skill, first in zip(chain, new, strict=True)]
    return _discounted(grades[:cutoff], gain) / best


def dialogue_esndcg(
    turns: Sequence[float | None], *, gamma: float = 1.0, undefined: float | None = None
) -> float | None:
    """Mean of `esndcg` over the turns of a dialogue, weighted by ``gamma^(t - 1)``.

    Args:
        turns: Of each turn; None where it is undefined.
        gamma: Discount per turn, in (0, 1].
        undefined: What an undefined turn counts as; None leaves it out.

    Returns:
        In [0, 1]; None if no turn is left.

    Raises:
        ValueError: An option out of range.

    Example:
        >>> dialogue_esndcg([1.0, None, 0.5]), dialogue_esndcg([None]), dialogue_esndcg([1.0, None], undefined=0.0)
        (0.75, None, 0.5)
    """
    check_turn_options(gamma, undefined)
    filled = [undefined if turn is None else turn for turn in turns]
    weighted = [(gamma**t, value) for t, value in enumerate(filled) if value is not None]
    if not weighted:
        return None
    return math.fsum(weight * value for weight, value in weighted) / math.fsum(weight for weight, _ in weighted)


def check_esndcg_options(cutoff: int, gain: str) -> None:
    """Raise ValueError unless both are what `esndcg` takes."""
    if cutoff < 1 or gain not in get_args(Gain):
        raise ValueError(
            f"ESNDCG has cutoff {cutoff} and gain {gain!r}; the first must be at least 1, the second one of "
            f"{list(get_args(Gain))}."
        )


def check_turn_options(gamma: float, undefined: float | None) -> None:
    """Raise ValueError unless both are what `dialogue_esndcg` takes."""
    if not 0 < gamma <= 1 or not (undefined is None or 0 <= undefined <= 1):
        raise ValueError(
            f"ESNDCG has gamma {gamma} and undefined {undefined}; the first must lie in (0, 1], the second in [0, 1] "
            "or be None, which leaves turns without grades out."
        )


def _discounted(grades: Sequence[float], gain: Gain) -> float:
    worth = [2.0**grade - 1 if gain == "exponential" else float(grade) for grade in grades]
    return math.fsum(value / math.log2(place + 2) for place, value in enumerate(worth))
