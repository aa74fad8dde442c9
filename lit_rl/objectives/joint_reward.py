"""One reward of a whole dialogue for two agents, and how its weights move (gopo.md section 4.4).

As published (GOPO, arXiv 2602.15854): planner and responder share a joint reward tied to the business metric, with
dynamic weights.  Our reading: which parts it has, and both schedules.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

PARTS = ("tse", "esndcg", "gre")

Weights = tuple[float, float, float]  # of PARTS, which sum to 1


def joint_reward(
    parts: Tensor,
    weights: Sequence[float],
    *,
    violations: Tensor | None = None,
    turns: Tensor | None = None,
    violation_coef: float = 0.0,
    divide_by_turns: bool = True,
) -> Tensor:
    """``R = a_1 TSE + a_2 ESNDCG + a_3 GRE - a_v violations / T`` of each dialogue (gopo.md section 4.4).

    A part that is undefined gives its weight to the others of that dialogue, in proportion to theirs.  All dialogues of
    one call have the same weights: make one call per batch, or groups are not compared by one measure.

    Args:
        parts: TSE, ESNDCG and GRE, float ``(B, 3)``, each in [0, 1] or NaN where undefined.
        weights: ``a_1 .. a_3``, at least 0 with sum 1; see `FixedWeights`, `AnnealedWeights` and `GapWeights`.
        violations: Rules broken in each dialogue, ``(B,)``; needed if ``violation_coef`` is not 0.
        turns: ``T``, turns of each dialogue, ``(B,)``; needed then too, if ``divide_by_turns``.
        violation_coef: ``a_v``, at least 0.
        divide_by_turns: False takes ``a_v`` off for each violation, however long the dialogue.

    Returns:
        ``(B,)``, dtype of ``parts``, without gradient.

    Raises:
        ValueError: Wrong shapes, weights that do not sum to 1, missing violations or turns, or a dialogue of which no
            part with a weight is defined.

    Example:
        >>> joint_reward(torch.tensor([[0.5, 1.0, 0.0], [0.5, torch.nan, 1.0]]), (0.5, 0.25, 0.25))
        tensor([0.5000, 0.6667])
    """
    if parts.ndim != 2 or parts.shape[1] != len(PARTS):
        raise ValueError(f"joint_reward: parts has the shape {tuple(parts.shape)}; wanted (dialogues, {len(PARTS)}).")
    values = parts.detach()
    given = values.new_tensor(_checked("joint_reward", weights))
    defined = ~values.isnan()
    share = (defined * given).sum(1)
    if not bool((share > 0).all()):
        row = int((share <= 0).nonzero()[0])
        raise ValueError(
            f"joint_reward: dialogue {row} has the parts {values[row].tolist()} and the weights {tuple(weights)}; one "
            "part at least must be defined and have a weight."
        )
    reward = (values.where(defined, 0.0) * given).sum(1) / share
    if violation_coef == 0:
        return reward
    return reward - violation_coef * _violations(parts, violations, turns, violation_coef, divide_by_turns)


def part_sums(parts: Tensor) -> Tensor:
    """Sum of each part over the dialogues for which it is defined, and their number; float64 ``(2, 3)``.

    It adds up over batches and ranks, and is what schedules observe.

    Args:
        parts: As `joint_reward` takes them, float ``(B, 3)``.
    """
    defined = ~parts.isnan()
    return torch.stack([parts.detach().where(defined, 0.0).sum(0), defined.sum(0)]).double()


@runtime_checkable
class WeightSchedule(Protocol):
    """Weights of the joint reward, which change between batches only."""

    def weights(self) -> Weights:
        """Of TSE, ESNDCG and GRE, for the batch at hand; they sum to 1."""
        ...

    def observe(self, sums: Tensor) -> None:
        """Go on to the next batch, after `part_sums` of this one *over all ranks*: weights must agree on them."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class FixedWeights:
    """The same weights throughout.

    Args:
        tse: Weight of TSE; all three are at least 0 and sum to 1.
        esndcg: Of ESNDCG.
        gre: Of GRE.

    Raises:
        ValueError: Weights out of range.
    """

    def __init__(self, tse: float = 0.5, esndcg: float = 0.3, gre: float = 0.2):
        self._weights = _checked("FixedWeights", (tse, esndcg, gre))

    def weights(self) -> Weights:
        return self._weights

    def observe(self, sums: Tensor) -> None:
        """Nothing depends on it."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is no state."""


class AnnealedWeights:
    """First imitate the expert, then the business metric: ``(1 - f) start + f end`` with ``f = min(1, step / steps)``.

    Args:
        steps: Batches until the end is reached; our reading is 30 % of the run.
        start: Weights of TSE, ESNDCG and GRE of the first batch.
        end: Weights from batch ``steps`` on.

    Raises:
        ValueError: Weights out of range, or less than 1 step.

    Example:
        >>> schedule = AnnealedWeights(steps=2)
        >>> schedule.observe(torch.zeros(2, 3))
        >>> [round(weight, 6) for weight in schedule.weights()]
        [0.55, 0.25, 0.2]
    """

    def __init__(self, steps: int, start: Sequence[float] = (0.4, 0.4, 0.2), end: Sequence[float] = (0.7, 0.1, 0.2)):
        if steps < 1:
            raise ValueError(f"AnnealedWeights.steps is {steps}; it must be at least 1.")
        self.steps, self.step = steps, 0
        self.start, self.end = _checked("AnnealedWeights.start", start), _checked("AnnealedWeights.end", end)

    def weights(self) -> Weights:
        done = min(1.0, self.step / self.steps)
        tse, esndcg, gre = ((1 - done) * first + done * last for first, last in zip(self.start, self.end, strict=True))
        return tse, esndcg, gre

    def observe(self, sums: Tensor) -> None:
        """One batch more."""
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


class GapWeights:
    """Most weight where most is missing: ``a_i`` in proportion to ``a_i^0 (1 - EMA_i)``, no less than ``floor``.

    After the floor the weights are divided by their sum once more, so that a floored one ends a little below it.

    Args:
        start: ``a^0`` of TSE, ESNDCG and GRE; the weights of the first batch, as long as the floor leaves them.
        decay: Of the moving averages, in [0, 1): how much of them each batch keeps.
        floor: In [0, 1/3).

    Raises:
        ValueError: An option out of range.
    """

    def __init__(self, start: Sequence[float] = (0.5, 0.3, 0.2), decay: float = 0.9, floor: float = 0.05):
        self.start = _checked("GapWeights.start", start)
        if not 0 <= decay < 1 or not 0 <= floor < 1 / len(PARTS):
            raise ValueError(
                f"GapWeights has decay {decay} and floor {floor}; the first must lie in [0, 1), the second in [0, 1/3)."
            )
        self.decay, self.floor = decay, floor
        self.averages = [0.0] * len(PARTS)  # nothing is reached yet

    def weights(self) -> Weights:
        gaps = [first * (1 - average) for first, average in zip(self.start, self.averages, strict=True)]
        if math.fsum(gaps) <= 0:
            gaps = list(self.start)  # everything that has a weight is reached
        floored = [max(self.floor, gap / math.fsum(gaps)) for gap in gaps]
        tse, esndcg, gre = (weight / math.fsum(floored) for weight in floored)
        return tse, esndcg, gre

    def observe(self, sums: Tensor) -> None:
        """Move each average to the batch's mean; one that no dialogue defines stays.

        Args:
            sums: `part_sums` over all ranks, float64 ``(2, 3)``.

        Raises:
            ValueError: A mean outside [0, 1], for which there is no gap.
        """
        for place, (total, count) in enumerate(sums.T.tolist()):
            if count == 0:
                continue
            mean = total / count
            if not 0 <= mean <= 1 + 1e-6:
                raise ValueError(f"GapWeights: the mean of {PARTS[place]} is {mean}; all parts must lie in [0, 1].")
            self.averages[place] = self.decay * self.averages[place] + (1 - self.decay) * min(1.0, mean)

    def state_dict(self) -> dict[str, Any]:
        return {"averages": list(self.averages)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.averages = list(state["averages"])


def _checked(name: str, weights: Sequence[float]) -> Weights:
    if len(weights) != len(PARTS) or min(weights) < 0 or not abs(math.fsum(weights) - 1) <= 1e-6:
        raise ValueError(
            f"{name} got the weights {tuple(weights)}; give those of {', '.join(PARTS)}, at least 0 and with sum 1."
        )
    tse, esndcg, gre = weights
    return tse, esndcg, gre


def _violations(
    parts: Tensor, violations: Tensor | None, turns: Tensor | None, violation_coef: float, divide_by_turns: bool
) -> Tensor:
    if not 0 <= violation_coef < math.inf:
        raise ValueError(f"joint_reward: violation_coef is {violation_coef}; it must be finite and at least 0.")
    needed = {"violations": violations} | ({"turns": turns} if divide_by_turns else {})
    for name, tensor in needed.items():
        if tensor is None or tensor.shape != parts.shape[:1]:
            raise ValueError(
                f"joint_reward: violation_coef is {violation_coef}, and {name} "
                f"{'is missing' if tensor is None else f'has the shape {tuple(tensor.shape)}'}; give one per dialogue."
            )
    assert violations is not None
    broken = violations.detach().to(parts.dtype)
    # A dialogue without turns broke nothing.
    return broken if turns is None or not divide_by_turns else broken / turns.clamp(min=1)
