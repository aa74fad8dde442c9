"""Task-focused sequential engagement: how far a served dialogue came, how soon, how willingly (gopo.md section 4.2).

As published (GOPO, arXiv 2602.15854): that TSE measures sequential, task-focused engagement of a whole dialogue.  Our
reading: every formula here, for those of the paper could not be read.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Milestones:
    """What a task consists of, and when an expert has achieved it.

    Args:
        weights: Of each milestone by name, greater than 0; they sum to 1.
        expert_turns: Turn of the service, counted from 1, at which an expert achieves each of them.

    Raises:
        ValueError: No milestone, names that differ, weights that do not sum to 1, or a turn below 1.
    """

    weights: Mapping[str, float]
    expert_turns: Mapping[str, int]

    def __post_init__(self) -> None:
        if not self.weights or self.weights.keys() != self.expert_turns.keys():
            raise ValueError(
                f"Milestones has weights for {sorted(self.weights)} and expert_turns for {sorted(self.expert_turns)}; "
                "both need the same names, one at least."
            )
        total = math.fsum(self.weights.values())
        if not (min(self.weights.values()) > 0 and abs(total - 1) <= 1e-6):
            raise ValueError(f"Milestones.weights are {dict(self.weights)}; each must be above 0, and their sum 1.")
        if min(self.expert_turns.values()) < 1:
            raise ValueError(f"Milestones.expert_turns are {dict(self.expert_turns)}; turns are counted from 1.")


def first_turns(turns: Sequence[Sequence[str]], broken: Sequence[bool] | None = None) -> dict[str, int]:
    """Turn, counted from 1, at which each milestone is first achieved.

    Args:
        turns: Names of the milestones achieved at each turn.
        broken: Whether each turn broke a rule; a milestone that was first achieved by such a turn is left out, even if
            it is achieved again later.  None leaves none out.

    Raises:
        ValueError: The two are of different lengths.

    Example:
        >>> first_turns([["need"], [], ["need", "order"]]), first_turns([["need"], ["order"]], [True, False])
        ({'need': 1, 'order': 3}, {'order': 2})
    """
    _check_lengths("broken", turns, broken)
    found: dict[str, int] = {}
    for turn, names in enumerate(turns, start=1):
        for name in names:
            found.setdefault(name, turn)
    return {name: turn for name, turn in found.items() if broken is None or not broken[turn - 1]}


def progress(achieved: Mapping[str, int], milestones: Milestones, *, lateness_discount: float = 0.9) -> float:
    """``P``: weights of the milestones achieved, each times ``lateness_discount`` to the power of the turns it is late.

    Args:
        achieved: Turn, counted from 1, of each milestone achieved (see `first_turns`).
        milestones: All there are.
        lateness_discount: In (0, 1].

    Returns:
        In [0, 1]; exactly 1 where everything is achieved in time.

    Raises:
        ValueError: A milestone that is not among ``milestones``.
    """
    unknown = sorted(achieved.keys() - milestones.weights.keys())
    if unknown:
        raise ValueError(f"The dialogue achieved {unknown}; the milestones are {sorted(milestones.weights)}.")
    # In the order of the weights, and over their sum: what is whole comes out as exactly 1.
    parts = [
        weight * lateness_discount ** max(0, achieved[name] - milestones.expert_turns[name])
        for name, weight in milestones.weights.items()
        if name in achieved
    ]
    return math.fsum(parts) / math.fsum(milestones.weights.values())


def tse(
    turns: Sequence[Sequence[str]],
    engagement: Sequence[float],
    milestones: Milestones,
    *,
    lateness_discount: float = 0.9,
    engagement_weight: float = 0.5,
    broken: Sequence[bool] | None = None,
) -> float:
    """``TSE = P ((1 - w) + w E)`` with the `progress` ``P`` and the mean engagement ``E`` (gopo.md section 4.2).

    Args:
        turns: Names of the milestones achieved at each turn of the service.
        engagement: Of the customer after each of these turns, in [0, 1].
        milestones: All there are.
        lateness_discount: Factor for each turn that a milestone is late, in (0, 1].
        engagement_weight: ``w``, in [0, 1]; 0 leaves the progress alone.
        broken: Whether each turn broke a rule, for the *compliant* TSE, in which milestones that such turns achieved do
            not count; None for the plain one.

    Returns:
        In [0, 1]; 0 for a dialogue without turns.

    Raises:
        ValueError: Lengths differ, an engagement outside [0, 1], an unknown milestone, or an option out of range.

    Example:
        >>> task = Milestones(weights={"need": 0.25, "order": 0.75}, expert_turns={"need": 1, "order": 2})
        >>> tse([["need"], ["order"]], [0.5, 1.0], task), tse([["need"], []], [0.5, 0.5], task)
        (0.875, 0.1875)
        >>> tse([["need"], ["order"]], [0.5, 1.0], task, broken=[True, False])
        0.65625
    """
    check_tse_options(lateness_discount, engagement_weight)
    _check_lengths("engagement", turns, engagement)
    for turn, felt in enumerate(engagement, start=1):
        if not 0 <= felt <= 1:
            raise ValueError(f"The engagement after turn {turn} is {felt}; it must lie in [0, 1].")
    achieved = first_turns(turns, broken)
    if not turns:
        return 0.0
    mean = math.fsum(engagement) / len(engagement)
    reached = progress(achieved, milestones, lateness_discount=lateness_discount)
    return reached * ((1 - engagement_weight) + engagement_weight * mean)


def check_tse_options(lateness_discount: float, engagement_weight: float) -> None:
    """Raise ValueError unless both are what `tse` takes."""
    if not 0 < lateness_discount <= 1 or not 0 <= engagement_weight <= 1:
        raise ValueError(
            f"TSE has lateness_discount {lateness_discount} and engagement_weight {engagement_weight}; the first must "
            "lie in (0, 1], the second in [0, 1]."
        )


def _check_lengths(name: str, turns: Sequence[object], given: Sequence[object] | None) -> None:
    if given is not None and len(given) != len(turns):
        raise ValueError(f"There are {len(turns)} turns and {len(given)} values of {name}; give one of each per turn.")
