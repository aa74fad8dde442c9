"""How long reasoning is, how often it turns back, and whether a reader can follow it (arXiv 2602.16154, section 4)."""

import re
from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from lit_rl.metrics.figure import Figure, ItemMetric, mean

Overlap = Literal["longest", "naive"]
Rated = Literal["all", "correct"]
HIGHEST_RATING = 4

# As published, appendix A.
BACKTRACKING_PHRASES = (
    "Wait", "Alternatively", "Another angle", "Another approach", "But wait", "Hold on", "Hmm", "Maybe",
    "Let me double-check",
)  # fmt: skip


def backtracking_count(text: str, overlap: Overlap = "longest", phrases: Sequence[str] = BACKTRACKING_PHRASES) -> int:
    """How often a text turns back, by phrases in any case.

    Args:
        text: A reasoning.
        overlap: "longest" counts phrases that do not overlap, the longest first (our reading); "naive" counts each
            phrase on its own, so that "But wait" counts twice, as the authors' code does.
        phrases: What to look for.

    Example:
        >>> backtracking_count("But wait, maybe."), backtracking_count("But wait, maybe.", overlap="naive")
        (2, 3)
    """
    if overlap not in get_args(Overlap):
        raise ValueError(f"backtracking_count: overlap is {overlap!r}; use one of {list(get_args(Overlap))}.")
    if overlap == "naive":
        return sum(text.casefold().count(phrase.casefold()) for phrase in phrases)
    longest_first = sorted(phrases, key=len, reverse=True)
    return len(re.findall("|".join(map(re.escape, longest_first)), text, re.IGNORECASE))


def relative_change(before: float, after: float) -> float:
    """``100 (after - before) / before``, per cent; NaN if ``before`` is 0.

    Example:
        >>> relative_change(200.0, 190.0)
        -5.0
    """
    return 100 * (after - before) / before if before else float("nan")


class MeanOfItems(ItemMetric):
    """Mean of one number per item, with a bootstrap interval: trace lengths, backtracking; None is left out."""

    def __init__(self, **kwargs: Any):
        super().__init__(1, ("no_reasoning",), **kwargs)

    def update(self, values: Sequence[float | None]) -> None:
        """Add items; None where there is no reasoning to measure."""
        rows = [[float(value)] for value in values if value is not None]
        self.add(rows, ["no_reasoning"] * (len(values) - len(rows)))

    def compute(self) -> Figure:
        """In the unit of the values."""
        return mean(self.items()[:, 0], self.excluded(), seed=self.seed)


@runtime_checkable
class LegibilityJudge(Protocol):
    """Says how well a reader can follow a reasoning, whether or not it is right: 0 not at all, 4 with ease."""

    def rate(self, prompts: Sequence[str], reasonings: Sequence[str], answers: Sequence[str]) -> list[int | None]:
        """A rating 0 .. 4 of each, in order; None where the judge gave none."""
        ...


class Legibility(ItemMetric):
    """``100 mean / 4`` of ratings 0 .. 4 (Emmons et al., 2510.23966; the scale to 100 is our reading).

    Args:
        rated: "all" items (our reading of 2602.16154, which does not say) or only those answered "correct".
        kwargs: Of `ItemMetric`.
    """

    def __init__(self, rated: Rated = "all", **kwargs: Any):
        if rated not in get_args(Rated):
            raise ValueError(f"Legibility: rated is {rated!r}; use one of {list(get_args(Rated))}.")
        super().__init__(1, ("no_reasoning", "no_rating", "wrong"), **kwargs)
        self.rated = rated

    def wanted(self, correct: bool) -> bool:
        """Whether an item is to be rated."""
        return self.rated == "all" or correct

    def update(self, ratings: Sequence[int | None], correct: Sequence[bool], reasoned: Sequence[bool]) -> None:
        """Add items.

        Args:
            ratings: The judge's; None if it gave none.
            correct: Whether the item was answered right.
            reasoned: Whether there was reasoning to rate.

        Raises:
            ValueError: A rating that is not 0 .. 4.
        """
        rows, left_out = [], []
        for rating, right, reasoning in zip(ratings, correct, reasoned, strict=True):
            if rating is not None and rating not in range(HIGHEST_RATING + 1):
                raise ValueError(f"Legibility got the rating {rating!r}; a judge gives 0 .. {HIGHEST_RATING} or None.")
            reason = "no_reasoning" if not reasoning else "wrong" if not self.wanted(right) else "no_rating"
            if rating is None or reason != "no_rating":
                left_out.append(reason)
            else:
                rows.append([float(rating)])
        self.add(rows, left_out)

    def compute(self) -> Figure:
        """In 0 .. 100."""
        return mean(self.items()[:, 0], self.excluded(), scale=100.0 / HIGHEST_RATING, seed=self.seed)
