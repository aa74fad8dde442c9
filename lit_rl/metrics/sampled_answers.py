"""What a sample of answers to one prompt says: entropies, different right answers, pass@k (qempo.md section 7)."""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor


def sequence_entropy(log_probs: Tensor) -> float:
    """Estimate in nats of the entropy over whole responses, ``-(1/K) sum log pi(y)``; NaN of none.

    Responses that were cut off make it too low: report their share with it.

    Args:
        log_probs: Of each response, summed over its tokens, float ``(K,)``.
    """
    return float(-log_probs.to(torch.float64).mean()) if len(log_probs) else math.nan


def token_entropy(log_probs: Tensor, lengths: Tensor) -> float:
    """The same per token, ``-sum log pi(y) / sum |y|``; NaN where there is no token.

    Args:
        log_probs: Of each response, summed over its tokens, float ``(K,)``.
        lengths: Tokens of each, int64 ``(K,)``.
    """
    return float(-log_probs.to(torch.float64).sum() / lengths.sum().to(torch.float64))


def answer_entropy(answers: Sequence[str | None]) -> float:
    """Entropy in nats of how often each answer was given; responses without one are left out, NaN if all are.

    Example:
        >>> round(answer_entropy(["a", "a", "b", "c"]), 6)
        1.039721
    """
    counts = Counter(answer for answer in answers if answer is not None)
    total = counts.total()
    if total == 0:
        return math.nan
    return math.fsum(n / total * math.log(total / n) for n in counts.values())


def distinct_correct(answers: Sequence[str | None], correct: Sequence[bool]) -> int:
    """How many different right answers there are; answers that mean the same must be the same text.

    Args:
        answers: One per response.
        correct: Whether each is right.
    """
    return len({answer for answer, right in zip(answers, correct, strict=True) if right and answer is not None})


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Probability that at least one of ``k`` out of ``samples`` answers is right, ``1 - C(n - c, k) / C(n, k)``.

    Args:
        samples: ``n``, how many were drawn.
        correct: ``c``, how many of them are right.
        k: Attempts allowed.

    Raises:
        ValueError: Not ``0 <= correct <= samples``, or not ``1 <= k <= samples``.

    Example:
        >>> round(pass_at_k(10, 3, 2), 6)
        0.533333
    """
    if not 0 <= correct <= samples:
        raise ValueError(f"pass_at_k: {correct} of {samples} answers cannot be right.")
    if not 1 <= k <= samples:
        raise ValueError(f"pass_at_k: k is {k}, but {samples} answers were drawn; it must lie in 1 .. {samples}.")
    if samples - correct < k:
        return 1.0
    return 1 - math.prod(1 - k / i for i in range(samples - correct + 1, samples + 1))


def expected_distinct(probabilities: Sequence[float], draws: int) -> float:
    """How many of some answers are expected among ``draws`` independent ones, ``sum 1 - (1 - p)^k``.

    Args:
        probabilities: Of each of these answers; they need not sum to 1.
        draws: ``k``.
    """
    return math.fsum(1 - (1 - p) ** draws for p in probabilities)


def at_quality(qualities: Sequence[float], figures: Sequence[float], quality: float) -> float:
    """A figure where a sweep reaches a quality: on the straight line between its two neighbours; NaN outside of it.

    Diversities compare only at equal quality (qempo.md section 3.4).  Runs of one quality count with their mean.

    Args:
        qualities: Of the runs of a sweep, in any order.
        figures: Of each, such as its entropy.
        quality: Where to read it off.

    Example:
        >>> at_quality([1.0, 0.0], [1.0, 2.0], 0.5)
        1.5
    """
    runs: dict[float, list[float]] = {}
    for own, figure in zip(qualities, figures, strict=True):
        runs.setdefault(own, []).append(figure)
    points = sorted((own, math.fsum(found) / len(found)) for own, found in runs.items())
    below = [point for point in points if point[0] <= quality]
    above = [point for point in points if point[0] >= quality]
    if not below or not above:
        return math.nan
    (low, figure), (high, other) = below[-1], above[0]
    return figure if low == high else figure + (other - figure) * (quality - low) / (high - low)
