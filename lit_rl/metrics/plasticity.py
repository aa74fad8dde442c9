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


def answer_shift(dialogues: Iterable[Records]) -> float:
    """`total_variation` of a problem's first and second answers, where the first attempt was wrong, from samples.

    Few samples differ by chance too: compare conditions, not with 0.

    Args:
        dialogues: Records of each, all of one problem; NaN if fewer than two have both answers.
    """
    pairs = [(r[0].get("answer"), r[1].get("answer")) for r in dialogues if len(r) > 1 and not r[0].get("correct")]
    pairs = [pair for pair in pairs if None not in pair]
    if len(pairs) < 2:
        return math.nan
    answers = {answer for pair in pairs for answer in pair}
    counts = torch.tensor([[[pair[k] for pair in pairs].count(answer) for answer in answers] for k in (0, 1)])
    before, after = counts.to(torch.float64) / len(pairs)
    return float(total_variation(before, after))


def compliance_counts(dialogues: Iterable[Records], complies: Complies) -> Tensor:
    """Answers after a wrong attempt to which something was said that can be obeyed, and how many did, int64 ``(2,)``.

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
    return torch.tensor([len(told) - told.count(None), told.count(True)])


class Plasticity(Metric):
    """How attempts change over dialogues, accumulated over batches and ranks.

    Args:
        max_turns: Turns a dialogue may take, ``K``.
        complies: Whether an answer did as told, for ``compliance``.
        kwargs: Of torchmetrics' ``Metric``.

    Example:
        >>> metric = Plasticity(max_turns=2)
        >>> first = {"correct": False, "answer": "7", "tokens": 4, "heard": "higher"}
        >>> metric.update([[first, {"correct": True, "answer": "9", "tokens": 2}]], held=[], groups=[0])
        >>> found = {name: float(x) for name, x in metric.compute().items()}
        >>> found["correction_rate"], found["tokens_ratio_turn_2"], found["compliance"], found["over_compliance"]
        (1.0, 0.5, 1.0, nan)
    """

    full_state_update = False

    counts: Tensor
    held: Tensor
    told: Tensor
    shift: Tensor

    def __init__(self, max_turns: int, complies: Complies = goes_where_told, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_turns, self.complies = max_turns, complies
        self.add_state("counts", torch.zeros(4, max_turns, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("held", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("told", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("shift", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")  # sum, problems

    def update(self, dialogues: Sequence[Records], held: Sequence[bool], groups: Sequence[int]) -> None:
        """Add dialogues, all of one problem at once.

        Args:
            dialogues: Records of each.
            held: Of the right answers that were falsely criticised, which were given again.
            groups: Problem of each dialogue.
        """
        rows = (correction_counts(dialogues, self.max_turns), token_counts(dialogues, self.max_turns))
        self.counts += torch.cat(rows).to(self.counts.device)
        self.held += torch.tensor([sum(held), len(held)], device=self.held.device)
        self.told += compliance_counts(dialogues, self.complies).to(self.told.device)
        of_problem: dict[int, list[Records]] = {}
        for group, records in zip(groups, dialogues, strict=True):
            of_problem.setdefault(group, []).append(records)
        shifts = [x for x in map(answer_shift, of_problem.values()) if not math.isnan(x)]
        self.shift += torch.tensor([sum(shifts), len(shifts)], dtype=torch.float64, device=self.shift.device)

    def compute(self) -> dict[str, Tensor]:
        """Shares of the attempts after a wrong one that are right (``correction_rate``, of all turns, and
        ``correction_rate_turn_K``) and that do as told (``compliance``); how far answers move (``answer_shift``, the
        mean over problems); tokens relative to the first attempts (``tokens_ratio_turn_K``); right answers given up
        under false criticism (``over_compliance``).
        """
        follow, right, tokens, first = self.counts.to(torch.float64)
        turns = range(1, self.max_turns)
        figures = {"correction_rate": right.sum() / follow.sum()}
        figures |= {f"correction_rate_turn_{turn + 1}": right[turn] / follow[turn] for turn in turns}
        figures |= {f"tokens_ratio_turn_{turn + 1}": tokens[turn] / first[turn] for turn in turns}
        figures |= {
            "compliance": self.told[1] / self.told[0].to(torch.float64),
            "answer_shift": self.shift[0] / self.shift[1],
        }
        return figures | {"over_compliance": 1 - self.held[0] / self.held[1].to(torch.float64)}
