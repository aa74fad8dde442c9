"""How much a student changes under feedback: its in-context plasticity (arXiv 2602.16066, sections 3 and 5).

The paper describes it in words; these measures are our reading.  The *records* of a dialogue are one mapping for each
attempt: ``correct`` (bool), ``answer`` (str or None), ``tokens`` (int) and, where something was said to it, ``heard``
(str).  Figures that are undefined are NaN.  `lit_rl.metrics.attempt_shares` has the repeat rate.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

Records = Sequence[Mapping[str, Any]]
# (what was heard, answer before, answer after) -> whether the answer did as told; None where that cannot be told
Complies = Callable[[str, str, str], bool | None]


def attempt_records(turns: Iterable[Any], party: str) -> list[dict[str, Any]]:
    """The records of one dialogue.

    Args:
        turns: With ``party``, ``exchange``, ``text``, ``completion_ids`` and a mapping ``info``; attempts are those of
            ``party`` with a ``kind`` in their info.
        party: Who attempts.
    """
    turns = list(turns)
    heard = {t.exchange: t.text for t in turns if "kind" not in t.info and t.info.get("heard", True) and t.text}
    return [
        {**t.info, "tokens": len(t.completion_ids)} | ({"heard": heard[t.exchange]} if t.exchange in heard else {})
        for t in turns
        if t.party == party and "kind" in t.info
    ]


def correction_counts(dialogues: Iterable[Records], max_turns: int) -> Tensor:
    """How often attempts follow a wrong one and how often they are right, int64 ``(2, K)``, by turn of the second.

    Args:
        dialogues: Records of each.
        max_turns: ``K``.

    Example:
        >>> dialogue = [{"correct": False}, {"correct": False}, {"correct": True}]
        >>> correction_counts([dialogue, dialogue[:2]], 3)
        tensor([[0, 2, 1],
                [0, 0, 1]])
    """
    counts = torch.zeros(2, max_turns, dtype=torch.int64)
    for records in dialogues:
        for turn, (before, after) in enumerate(pairwise(records[:max_turns]), 1):
            if not before.get("correct"):
                counts[0, turn] += 1
                counts[1, turn] += bool(after.get("correct"))
    return counts


def token_counts(dialogues: Iterable[Records], max_turns: int) -> Tensor:
    """Tokens of the attempts at each turn, and of the first attempts of the same dialogues, int64 ``(2, K)``.

    Only a dialogue that reached a turn is compared there; otherwise long first attempts of easy problems would look
    like shorter later ones.
    """
    counts = torch.zeros(2, max_turns, dtype=torch.int64)
    for records in dialogues:
        for turn, record in enumerate(records[:max_turns]):
            counts[0, turn] += record.get("tokens", 0)
            counts[1, turn] += records[0].get("tokens", 0)
    return counts


def compliance(dialogues: Iterable[Records], complies: Complies) -> float:
    """Of the answers after a wrong attempt, the share that did what was said, where that can be told.

    Args:
        dialogues: Records of each.
        complies: Knows what a message asked for, as `goes_where_told` does.
    """
    told = [
        complies(before["heard"], before["answer"], after["answer"])
        for records in dialogues
        for before, after in pairwise(records)
        if not before.get("correct") and "heard" in before and before.get("answer") and after.get("answer")
    ]
    known = [done for done in told if done is not None]
    return sum(known) / len(known) if known else math.nan


def goes_where_told(heard: str, before: str, after: str) -> bool | None:
    """Whether a whole number went up after "higher" and down after "lower".

    Example:
        >>> goes_where_told("higher", "7", "11"), goes_where_told("lower", "7", "7"), goes_where_told("no", "7", "8")
        (True, False, None)
    """
    try:
        step = int(after) - int(before)
    except ValueError:
        return None
    wanted = {"higher": 1, "lower": -1}.get(heard.strip())
    return None if wanted is None else step * wanted > 0


def total_variation(before: Tensor, after: Tensor) -> Tensor:
    """Distance of two distributions over answers, ``1/2 sum |p - q|``: 0 where feedback changes nothing, at most 1.

    Args:
        before: Probabilities before the feedback, ``(..., A)``.
        after: And after it.

    Example:
        >>> total_variation(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.6, 0.3]))
        tensor(0.4000)
    """
    return (before - after).abs().sum(-1) / 2


def divergence(before: Tensor, after: Tensor) -> Tensor:
    """``KL(after || before)`` in nats, the surprise of who expected no change; arguments as in `total_variation`."""
    return (torch.xlogy(after, after) - torch.xlogy(after, before)).sum(-1)


def answer_frequencies(before: Sequence[str], after: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Samples of answers as two distributions over all of them, float64 ``(A,)`` each, for `total_variation`."""
    if not before or not after:
        raise ValueError("answer_frequencies needs at least one answer before the feedback and one after it.")
    answers = sorted({*before, *after})
    p, q = (torch.tensor([list(x).count(a) for a in answers], dtype=torch.float64) for x in (before, after))
    return p / len(before), q / len(after)


class Plasticity(Metric):
    """Correction rate, tokens by turn and over-compliance, accumulated over batches and ranks.

    Args:
        max_turns: Turns a dialogue may take, ``K``.
        kwargs: Of torchmetrics' ``Metric``.

    Example:
        >>> metric = Plasticity(max_turns=2)
        >>> metric.update([[{"correct": False, "tokens": 4}, {"correct": True, "tokens": 2}]], held=[])
        >>> {name: float(x) for name, x in metric.compute().items()}
        {'correction_rate': 1.0, 'correction_rate_turn_2': 1.0, 'tokens_ratio_turn_2': 0.5, 'over_compliance': nan}
    """

    full_state_update = False

    counts: Tensor
    held: Tensor

    def __init__(self, max_turns: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_turns = max_turns
        self.add_state("counts", torch.zeros(4, max_turns, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("held", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, dialogues: Sequence[Records], held: Sequence[bool]) -> None:
        """Add dialogues.

        Args:
            dialogues: Records of each.
            held: Of the right answers that were falsely criticised, which were given again.
        """
        rows = (correction_counts(dialogues, self.max_turns), token_counts(dialogues, self.max_turns))
        self.counts += torch.cat(rows).to(self.counts.device)
        self.held += torch.tensor([sum(held), len(held)], device=self.held.device)

    def compute(self) -> dict[str, Tensor]:
        """Shares of the attempts after a wrong one that are right (``correction_rate``, of all turns, and
        ``correction_rate_turn_K``), tokens relative to the first attempts (``tokens_ratio_turn_K``), and right answers
        given up under false criticism (``over_compliance``).
        """
        follow, right, tokens, first = self.counts.to(torch.float64)
        turns = range(1, self.max_turns)
        figures = {"correction_rate": right.sum() / follow.sum()}
        figures |= {f"correction_rate_turn_{turn + 1}": right[turn] / follow[turn] for turn in turns}
        figures |= {f"tokens_ratio_turn_{turn + 1}": tokens[turn] / first[turn] for turn in turns}
        return figures | {"over_compliance": 1 - self.held[0] / self.held[1].to(torch.float64)}
