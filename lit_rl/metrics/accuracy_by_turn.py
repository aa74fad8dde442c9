"""Accuracy by turn and what follows from it, accumulated over batches and ranks (torchmetrics)."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_rl.metrics.functional import (
    ATTEMPT_COUNTS,
    area_under_turns,
    attempt_counts,
    attempt_shares,
    conditional_success_of_counts,
    first_jump,
    gain,
    group_mean,
    mean_turns_to_solve,
    normalized_gain,
    solve_counts,
    solved_by_turn,
)


class AccuracyByTurn(Metric):
    """Accuracy within ``k`` turns, ``k = 1 .. max_turns``: mean within a problem, then over problems.

    Sums are kept, not dialogues, so all dialogues of one problem must come in one ``update`` (and so on one rank).

    Args:
        max_turns: Turns a dialogue may take, ``K``.
        kwargs: Of torchmetrics' ``Metric``.

    Example:
        >>> metric = AccuracyByTurn(max_turns=2)
        >>> metric.update(torch.tensor([0, 1, -1, -1]), group_ids=torch.tensor([5, 5, 6, 6]))
        >>> metric.compute().tolist()  # (0.5 + 0) / 2 and (1 + 0) / 2
        [0.25, 0.5]
    """

    full_state_update = False
    higher_is_better = True

    accuracy_sum: Tensor
    problems: Tensor
    solved: Tensor
    dialogues: Tensor

    def __init__(self, max_turns: int, **kwargs: Any):
        super().__init__(**kwargs)
        if max_turns < 1:
            raise ValueError(f"AccuracyByTurn: max_turns is {max_turns}; a dialogue has at least 1 turn.")
        self.max_turns = max_turns
        self.add_state("accuracy_sum", torch.zeros(max_turns, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("problems", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("solved", torch.zeros(max_turns, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("dialogues", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, solved_at: Tensor, group_ids: Tensor | None = None) -> None:
        """Add dialogues.

        Args:
            solved_at: 0-based solve turns, int64 ``(E,)``; -1 unsolved.
            group_ids: Problem of each dialogue, int64 ``(E,)``; None takes each as a problem of its own.
        """
        if group_ids is None:
            group_ids = torch.arange(len(solved_at), device=solved_at.device)
        if group_ids.shape != solved_at.shape:
            raise ValueError(
                f"AccuracyByTurn got {tuple(solved_at.shape)} solve turns and {tuple(group_ids.shape)} group_ids; "
                "give one of each per dialogue."
            )
        by_problem = group_mean(solved_by_turn(solved_at, self.max_turns), group_ids)
        self.accuracy_sum += by_problem.sum(0)
        self.problems += len(by_problem)
        solved, dialogues = solve_counts(solved_at, self.max_turns)
        self.solved += solved
        self.dialogues += dialogues

    def compute(self) -> Any:
        """float64 ``(K,)``, NaN if nothing was added; torchmetrics makes a plain number of it where ``K`` is 1."""
        return self.accuracy_sum / self.problems


class TurnSummary(AccuracyByTurn):
    """`AccuracyByTurn` with the numbers one reads off it.

    ``compute`` gives ``accuracy`` and ``conditional_success``, float64 ``(K,)``, and the numbers ``gain``,
    ``normalized_gain``, ``first_jump``, ``area_under_turns``, ``mean_turns_to_solve`` and ``dialogues``; NaN where
    undefined.
    """

    def compute(self) -> dict[str, Tensor]:
        accuracy = super().compute()
        return {
            "accuracy": accuracy,
            "gain": gain(accuracy),
            "normalized_gain": normalized_gain(accuracy),
            "first_jump": first_jump(accuracy),
            "area_under_turns": area_under_turns(accuracy),
            "conditional_success": conditional_success_of_counts(self.solved, self.dialogues),
            "mean_turns_to_solve": mean_turns_to_solve(self.solved),
            "dialogues": self.dialogues,
        }


class AttemptShares(Metric):
    """How the student attempts: repeated, malformed and premature answers (`lit_rl.metrics.attempt_shares`)."""

    full_state_update = False

    counts: Tensor

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.add_state("counts", torch.zeros(len(ATTEMPT_COUNTS), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, dialogues: Any) -> None:
        """Add dialogues, each the records of the student's turns (see `lit_rl.metrics.attempt_counts`)."""
        self.counts += attempt_counts(dialogues).to(self.counts.device)

    def compute(self) -> dict[str, Tensor]:
        """Four shares, NaN where undefined."""
        return attempt_shares(self.counts)
