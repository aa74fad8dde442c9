"""Figures of conversations about tasks that are told in parts (arXiv 2505.06120; where it is silent, our definitions).

A *conversation* is the records of the learner's turns, mappings with ``reply_class`` ("answer", "clarification",
"interrogation", "discussion", "hedge", "refusal", "missing"), ``incomplete`` (a part was still to be told when the
learner spoke) and ``correct``.  Shares that are undefined are NaN, so that they cannot pass for a zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

Conversation = Sequence[Mapping[str, Any]]

CONVERSATION_COUNTS = (
    "conversations",
    "turns",
    "incomplete",  # turns at which the task was not told completely
    "premature",  # of them, those with an attempt
    "premature_conversations",  # with at least one premature attempt
    "attempted",  # conversations with an attempt
    "first_attempt",  # sum over them of the place of the first attempt, as a share of the turns
    "clarifications",
    "interrogations",
    "score",
)


def conversation_counts(conversations: Iterable[Conversation]) -> Tensor:
    """Sums behind `conversation_shares`, float64 in the order of ``CONVERSATION_COUNTS``; they add over parts."""
    counts = dict.fromkeys(CONVERSATION_COUNTS, 0.0)
    for turns in conversations:
        classes = [turn["reply_class"] for turn in turns]
        premature = sum(bool(turn["incomplete"]) and turn["reply_class"] == "answer" for turn in turns)
        counts["conversations"] += 1
        counts["turns"] += len(turns)
        counts["incomplete"] += sum(bool(turn["incomplete"]) for turn in turns)
        counts["premature"] += premature
        counts["premature_conversations"] += premature > 0
        counts["clarifications"] += classes.count("clarification")
        counts["interrogations"] += classes.count("interrogation")
        counts["score"] += conversation_score(turns)
        if "answer" in classes:
            counts["attempted"] += 1
            counts["first_attempt"] += (classes.index("answer") + 1) / len(turns)
    return torch.tensor([counts[name] for name in CONVERSATION_COUNTS], dtype=torch.float64)


def conversation_shares(counts: Tensor) -> dict[str, Tensor]:
    """How a learner talks while a task is told to it, from `conversation_counts`; float64 numbers, NaN where undefined.

    * ``premature_rate``: attempts at turns where the task was not told completely, of all such turns; a lucky right one
      counts too.
    * ``premature_conversations``: share of the conversations with at least one of them.
    * ``first_attempt_position``: 1-based place of the first attempt over the number of turns, averaged over the
      conversations that have one; ``without_attempt`` is the number of those that have none.
    * ``question_rate``: turns that only ask, one question or several, of all turns; ``clarification_rate``: those that
      ask exactly one.
    * ``score``: mean over conversations.
    """
    count = dict(zip(CONVERSATION_COUNTS, counts.to(torch.float64).unbind(), strict=True))
    return {
        "premature_rate": count["premature"] / count["incomplete"],
        "premature_conversations": count["premature_conversations"] / count["conversations"],
        "first_attempt_position": count["first_attempt"] / count["attempted"],
        "without_attempt": count["conversations"] - count["attempted"],
        "question_rate": (count["clarifications"] + count["interrogations"]) / count["turns"],
        "clarification_rate": count["clarifications"] / count["turns"],
        "score": count["score"] / count["conversations"],
    }


def conversation_score(turns: Conversation) -> float:
    """1 if the last attempt was right, else 0; 0 too (our reading) where there was none."""
    attempts = [turn for turn in turns if turn["reply_class"] == "answer"]
    return float(bool(attempts) and bool(attempts[-1]["correct"]))


def percentile(scores: Tensor, percent: float) -> Tensor:
    """Percentile of scores ``(E,)`` with linear interpolation, a float64 number; NaN if there is none.

    Args:
        scores: One per run.
        percent: In 0 .. 100.

    Example:
        >>> percentile(torch.arange(10, 101, 10), 90).item()
        91.0
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"percentile: percent is {percent}; it must lie in 0 .. 100.")
    if len(scores) == 0:
        return torch.full((), torch.nan, dtype=torch.float64, device=scores.device)
    return scores.to(torch.float64).quantile(percent / 100)


def sharded_performance(scores: Tensor, group_ids: Tensor) -> dict[str, Tensor]:
    """Scores over the runs of each instruction, then averaged over instructions; float64 numbers.

    ``performance`` is the mean, ``aptitude`` the 90th percentile (A90), ``unreliability`` the 90th less the 10th (U).

    Args:
        scores: One per conversation ``(E,)``.
        group_ids: Instruction of each conversation, int64 ``(E,)``.

    Raises:
        ValueError: The two are of different lengths.

    Example:
        >>> figures = sharded_performance(torch.tensor([100.0] * 6 + [0.0] * 4), torch.zeros(10))
        >>> [round(figures[name].item(), 6) for name in ("performance", "aptitude", "unreliability")]
        [60.0, 100.0, 100.0]
    """
    sums, instructions = _sums_over_instructions(scores, group_ids)
    return _performance(sums, torch.tensor(instructions, device=sums.device))


def _sums_over_instructions(scores: Tensor, group_ids: Tensor) -> tuple[Tensor, int]:
    """Sums of mean, A90 and U, float64 ``(3,)``, and the number of instructions they are sums over."""
    if scores.shape != group_ids.shape:
        raise ValueError(
            f"There are {tuple(scores.shape)} scores and {tuple(group_ids.shape)} group_ids; give one of each per "
            "conversation."
        )
    groups = torch.unique(group_ids)
    sums = torch.zeros(3, dtype=torch.float64, device=scores.device)
    for group in groups:
        runs = scores[group_ids == group].to(torch.float64)
        high, low = percentile(runs, 90), percentile(runs, 10)
        sums += torch.stack([runs.mean(), high, high - low])
    return sums, len(groups)


def _performance(sums: Tensor, instructions: Tensor) -> dict[str, Tensor]:
    return dict(zip(("performance", "aptitude", "unreliability"), (sums / instructions).unbind(), strict=True))


class ConversationSummary(Metric):
    """`conversation_shares` and `sharded_performance`, accumulated over batches and ranks (torchmetrics).

    Sums are kept, not conversations, so all runs of one instruction must come in one ``update`` (and so on one rank).

    Example:
        >>> answer = {"reply_class": "answer", "incomplete": False, "correct": True}
        >>> metric = ConversationSummary()
        >>> metric.update([[answer], [answer | {"correct": False}]], torch.tensor([0, 0]))
        >>> metric.compute()["performance"].item()
        0.5
    """

    full_state_update = False

    counts: Tensor
    sums: Tensor
    instructions: Tensor

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        zeros = torch.zeros(len(CONVERSATION_COUNTS), dtype=torch.float64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("instructions", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, conversations: Sequence[Conversation], group_ids: Tensor) -> None:
        """Add conversations.

        Args:
            conversations: Records of the learner's turns of each.
            group_ids: Instruction of each conversation, int64 ``(E,)``.
        """
        scores = torch.tensor([conversation_score(turns) for turns in conversations], device=group_ids.device)
        sums, instructions = _sums_over_instructions(scores, group_ids)
        self.counts += conversation_counts(conversations).to(self.counts.device)
        self.sums += sums.to(self.sums.device)
        self.instructions += instructions

    def compute(self) -> dict[str, Tensor]:
        """Float64 numbers by name, NaN where undefined."""
        return conversation_shares(self.counts) | _performance(self.sums, self.instructions)
