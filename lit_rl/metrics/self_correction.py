"""What a student reaches who is its own critic, under the stopping rules of self-correction (our reading).

All three rules are read off dialogues that went on to the last attempt, as nobody hears what the rule is: "oracle" is
the accuracy within ``k`` attempts (`lit_rl.metrics.AccuracyByTurn`), "none" that of the ``k``-th attempt alone, "self"
that of the attempt at which the critique was one of acceptance.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_rl.metrics.functional import group_mean


def attempts_and_verdicts(episodes: Sequence[Any], max_turns: int) -> tuple[Tensor, Tensor]:
    """Whether the attempt of each turn was right, and what its critique said of it, int64 ``(E, K)`` each; -1 unknown.

    Args:
        episodes: With ``turns`` whose ``info`` has ``correct`` (attempts) or ``accepts`` (critiques).
        max_turns: ``K``.
    """
    right = torch.full((len(episodes), max_turns), -1)
    accepts = torch.full((len(episodes), max_turns), -1)
    for i, episode in enumerate(episodes):
        for turn in episode.turns:
            if "correct" in turn.info:
                right[i, turn.exchange] = int(turn.info["correct"])
            if "accepts" in turn.info:
                accepts[i, turn.exchange] = int(turn.info["accepts"])
    return right, accepts


def self_stopped(right: Tensor, accepts: Tensor) -> tuple[Tensor, Tensor]:
    """Where each dialogue stops under "self": ``(attempts used, whether the last of them is right)``.

    Args:
        right: int64 ``(E, K)`` of `attempts_and_verdicts`.
        accepts: Likewise.

    Example:
        >>> right = torch.tensor([[0, 1, 1], [0, 1, 0]])
        >>> self_stopped(right, torch.tensor([[0, 1, -1], [0, 0, -1]]))
        (tensor([2, 3]), tensor([ True, False]))
    """
    made = (right >= 0).sum(1)
    place = torch.arange(right.shape[1], device=right.device)
    accepted = torch.where(accepts == 1, place, right.shape[1]).amin(1)
    used = torch.minimum(accepted + 1, made).clamp(min=1)
    return used, right.gather(1, used[:, None] - 1)[:, 0] == 1


class SelfCorrectionSummary(Metric):
    """Accuracy of blind self-correction and of its verdicts, accumulated over batches and ranks.

    Args:
        max_turns: Attempts, ``K``.
        kwargs: Of torchmetrics' ``Metric``.
    """

    full_state_update = False

    sums: Tensor
    problems: Tensor
    verdicts: Tensor

    def __init__(self, max_turns: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_turns = max_turns
        self.add_state("sums", torch.zeros(max_turns + 2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("problems", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("verdicts", torch.zeros(2, 2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, right: Tensor, accepts: Tensor, group_ids: Tensor) -> None:
        """Add dialogues, all of one problem at once.

        Args:
            right: int64 ``(E, K)`` of `attempts_and_verdicts`.
            accepts: Likewise.
            group_ids: Problem of each dialogue, int64 ``(E,)``.
        """
        used, self_right = self_stopped(right, accepts)
        table = torch.cat([(right == 1).double(), self_right[:, None].double(), used[:, None].double()], dim=1)
        by_problem = group_mean(table, group_ids)
        self.sums += by_problem.sum(0)
        self.problems += len(by_problem)
        accepted = accepts == 1
        heard = accepted.cumsum(1) - accepted.long() == 0  # "self" would have stopped before the others
        for truth in (0, 1):
            for verdict in (0, 1):
                self.verdicts[truth, verdict] += ((right == truth) & (accepts == verdict) & heard).sum()

    def compute(self) -> dict[str, Tensor]:
        """``acc_last_turn_K`` for each k; where critiques can accept also ``acc_self``, ``attempts_used``,
        ``verdict_accuracy``, ``true_accept`` (of right attempts) and ``false_accept`` (of wrong ones), up to the first
        acceptance; NaN otherwise.
        """
        means, verdicts = self.sums / self.problems, self.verdicts.double()
        figures = {f"acc_last_turn_{k + 1}": means[k] for k in range(self.max_turns)}
        some = torch.where(verdicts.sum() > 0, 1.0, torch.nan)
        figures |= {"acc_self": means[-2] * some, "attempts_used": means[-1] * some}
        figures["verdict_accuracy"] = verdicts.trace() / verdicts.sum()
        figures["true_accept"] = verdicts[1, 1] / verdicts[1].sum()
        figures["false_accept"] = verdicts[0, 1] / verdicts[0].sum()
        return figures


class CritiqueScores(Metric):
    """How well the teacher's words are predicted on held-out dialogues, accumulated over batches and ranks."""

    full_state_update = False

    sums: Tensor

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, sums: Tensor) -> None:
        """Add float64 ``(4,)``: nats and weights of all target tokens, messages predicted word for word, messages."""
        self.sums += sums.to(self.sums)

    def compute(self) -> dict[str, Tensor]:
        """``critique_nll`` per token and ``critique_exact``, a share of messages; NaN where there is none."""
        return {"critique_nll": self.sums[0] / self.sums[1], "critique_exact": self.sums[2] / self.sums[3]}
