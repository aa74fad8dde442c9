"""What a search can reach that hears "higher" and "lower" but does not read the question."""

import heapq
import math
from collections.abc import Mapping


def best_blind_search(prior: Mapping[int, float], turns: int) -> float:
    """Highest accuracy within ``turns`` of any higher/lower search that knows only how answers are distributed.

    Such a search is a binary search tree of depth ``turns``: it visits at most ``2^turns - 1`` answers, and any so many
    answers, sorted, fit into one.  So the best tree holds the likeliest of them, and its accuracy is their sum.

    Args:
        prior: Probability of each answer; sums to 1.
        turns: Attempts allowed.

    Raises:
        ValueError: A negative probability, a sum other than 1, or a negative number of turns.

    Example:
        >>> best_blind_search({n: 1 / 15 for n in range(15)}, turns=3)
        0.4666666666666667
    """
    if turns < 0:
        raise ValueError(f"best_blind_search: turns is {turns}; it must be at least 0.")
    total = math.fsum(prior.values())
    if min(prior.values(), default=0.0) < 0 or not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ValueError(f"best_blind_search: prior must be probabilities that sum to 1; these sum to {total:g}.")
    visited = min(2**turns - 1, len(prior))
    return math.fsum(heapq.nlargest(visited, prior.values()))
