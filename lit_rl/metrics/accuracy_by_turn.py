"""How many problems are solved within k turns (arXiv 2602.16488, section 5)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_rl.episodes import Episode


def solve_turns(episodes: Sequence[Episode]) -> Tensor:
    """Exchange in which each episode was solved, int64 ``(B,)``; -1 unsolved."""
    turns = [e.turns[-1].exchange if e.stop_reason == "solved" else -1 for e in episodes]
    return torch.tensor(turns, dtype=torch.int64)


class AccuracyByTurn(Metric):
    """acc@1 .. acc@K: the share of problems solved within k turns, averaged within a problem first."""

    hits: Tensor
    problems: Tensor

    def __init__(self, max_turns: int):
        super().__init__()
        self.max_turns = max_turns
        self.add_state("hits", torch.zeros(max_turns, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("problems", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, solved: Tensor, problem_ids: Tensor) -> None:
        """Add whole problems: ``solved`` as of `solve_turns` and ``problem_ids``, int64 ``(B,)`` each."""
        _, index, counts = torch.unique(problem_ids, return_inverse=True, return_counts=True)
        turns = torch.arange(self.max_turns, device=solved.device)
        within = ((solved[:, None] >= 0) & (solved[:, None] <= turns)).double()
        self.hits += (within / counts[index][:, None]).sum(0)
        self.problems += counts.numel()

    def compute(self) -> Tensor:
        """float64 ``(K,)``."""
        return self.hits / self.problems
