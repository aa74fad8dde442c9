"""What is measured of evaluated dialogues, by the condition they were played under."""

from collections.abc import Iterable
from typing import Any

import torch

from lit_rl.episodes import Rollouts
from lit_rl.metrics import AttemptShares, ConversationSummary, TurnSummary, solve_turns
from lit_rl.metrics.plasticity import Plasticity, attempt_records
from lit_rl.metrics.self_correction import CritiqueScores, SelfCorrectionSummary, attempts_and_verdicts


class Evaluation:
    """Accuracy by turn and how the learner attempts, accumulated over batches and ranks.

    Of conversations about tasks told in parts also the figures of `ConversationSummary`.

    Args:
        party: Whose turns are attempts.
        device: Where sums are kept; that of the process group under distributed strategies.
    """

    def __init__(self, party: str, device: torch.device):
        self.party, self.device = party, device
        self.summaries: dict[str, TurnSummary] = {}
        self.attempts: dict[str, AttemptShares] = {}
        self.conversations: dict[str, ConversationSummary] = {}
        self.plasticity: dict[str, Plasticity] = {}
        self.blind: dict[str, SelfCorrectionSummary] = {}
        self.critiques: dict[str, CritiqueScores] = {}

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
        conversations = [[info for info in infos if "reply_class" in info] for infos in turns]
        if any(conversations):
            summary = self.conversations.setdefault(condition, ConversationSummary().to(self.device))
            summary.update(conversations, groups)
        self._add_changes(batch, groups)

    def _add_changes(self, batch: Rollouts, groups: torch.Tensor) -> None:
        """How attempts change over a dialogue, and what comes of it where no verifier ends it."""
        condition, turns = batch.label, int(batch.rewards.shape[1])
        records = [attempt_records(episode.turns, self.party) for episode in batch.episodes]
        held = [turn.info["held"] for episode in batch.episodes for turn in episode.turns if "held" in turn.info]
        self.plasticity.setdefault(condition, Plasticity(turns).to(self.device)).update(records, held, groups.tolist())
        if any(record.get("blind") for dialogue in records for record in dialogue):
            right, accepts = (x.to(self.device) for x in attempts_and_verdicts(batch.episodes, turns))
            blind = self.blind.setdefault(condition, SelfCorrectionSummary(turns).to(self.device))
            blind.update(right, accepts, groups)

    def add_critiques(self, condition: str, scores: torch.Tensor) -> None:
        """Add what `lit_rl.methods.critique.critique_scores` found in a batch."""
        self.critiques.setdefault(condition, CritiqueScores().to(self.device)).update(scores)

    def compute(self) -> dict[str, float]:
        """``CONDITION/accuracy_turn_K`` and, where defined, ``CONDITION/gain`` and the like; then start anew."""
        values: dict[str, float] = {}
        for condition, summary in self.summaries.items():
            figures = summary.compute()
            accuracy = figures.pop("accuracy").reshape(-1).tolist()  # torchmetrics unwraps lists of one
            del figures["conditional_success"]
            figures |= self.attempts[condition].compute()
            if condition in self.conversations:
                figures |= self.conversations[condition].compute()
            for further in (self.plasticity, self.blind, self.critiques):
                figures |= further[condition].compute() if condition in further else {}
            values |= {f"{condition}/accuracy_turn_{k}": value for k, value in enumerate(accuracy, 1)}
            values |= {f"{condition}/{name}": float(x) for name, x in figures.items() if not torch.isnan(x)}
        self.summaries.clear()
        self.attempts.clear()
        self.conversations.clear()
        for further in (self.plasticity, self.blind, self.critiques):
            further.clear()
        return values | _contrasts(values)


def _contrasts(values: dict[str, float]) -> dict[str, float]:
    """What the teacher's words are worth: correction rate with them minus that with words about another problem."""
    names = [(f"teacher{kind}", f"shuffled{kind}") for kind in ("", "_greedy")]
    return {
        f"{true}/feedback_contrast": values[f"{true}/correction_rate"] - values[f"{other}/correction_rate"]
        for true, other in names
        if f"{true}/correction_rate" in values and f"{other}/correction_rate" in values
    }


def dialogue_records(batch: Rollouts) -> list[dict[str, Any]]:
    """The dialogues of a batch as plain records: task, condition, and who said what for which reward."""
    return [
        {
            "task_id": episode.task_id,
            "condition": batch.label,
            "stop_reason": episode.stop_reason,
            "turns": [
                {"party": t.party, "text": t.text, "reward": t.reward}
                for t in episode.turns
                if t.stop_reason != "epilogue"
            ],
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
