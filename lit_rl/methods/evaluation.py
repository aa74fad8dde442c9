"""What is measured of evaluated dialogues, by the condition they were played under."""

from collections.abc import Iterable
from typing import Any

import torch

from lit_rl.episodes import Rollouts
from lit_rl.metrics import AttemptShares, TurnSummary, solve_turns


class Evaluation:
    """Accuracy by turn and how the learner attempts, accumulated over batches and ranks.

    Args:
        party: Whose turns are attempts.
        device: Where sums are kept; that of the process group under distributed strategies.
    """

    def __init__(self, party: str, device: torch.device):
        self.party, self.device = party, device
        self.summaries: dict[str, TurnSummary] = {}
        self.attempts: dict[str, AttemptShares] = {}

    def update(self, batch: Rollouts) -> None:
        """Add the episodes of a batch to the condition that is its ``label``."""
        condition = batch.label
        if condition not in self.summaries:
            self.summaries[condition] = TurnSummary(max_turns=int(batch.rewards.shape[1])).to(self.device)
            self.attempts[condition] = AttemptShares().to(self.device)
        groups = torch.tensor([episode.group for episode in batch.episodes], device=self.device)
        self.summaries[condition].update(solve_turns(batch.episodes).to(self.device), groups)
        turns = [[turn.info for turn in episode.turns_of(self.party)] for episode in batch.episodes]
        self.attempts[condition].update([[info for info in infos if "kind" in info] for infos in turns])

    def compute(self) -> dict[str, float]:
        """``CONDITION/accuracy_turn_K`` and, where defined, ``CONDITION/gain`` and the like; then start anew."""
        values: dict[str, float] = {}
        for condition, summary in self.summaries.items():
            figures = summary.compute()
            accuracy = figures.pop("accuracy").reshape(-1).tolist()  # torchmetrics unwraps lists of one
            del figures["conditional_success"]
            figures |= self.attempts[condition].compute()
            values |= {f"{condition}/accuracy_turn_{k}": value for k, value in enumerate(accuracy, 1)}
            values |= {f"{condition}/{name}": float(x) for name, x in figures.items() if not torch.isnan(x)}
        self.summaries.clear()
        self.attempts.clear()
        return values


def dialogue_records(batch: Rollouts) -> list[dict[str, Any]]:
    """The dialogues of a batch as plain records: task, condition, and who said what for which reward."""
    return [
        {
            "task_id": episode.task_id,
            "condition": batch.label,
            "stop_reason": episode.stop_reason,
            "turns": [{"party": t.party, "text": t.text, "reward": t.reward} for t in episode.turns],
        }
        for episode in batch.episodes
    ]


def last_turns(names: Iterable[str]) -> set[str]:
    """Of keys such as ``val/teacher/accuracy_turn_4`` those of the last turn of each condition."""
    last: dict[str, tuple[int, str]] = {}
    for name in names:
        condition, found, turn = name.rpartition("accuracy_turn_")
        if found and turn.isdigit():
            last[condition] = max(last.get(condition, (0, "")), (int(turn), name))
    return {name for _, name in last.values()}
