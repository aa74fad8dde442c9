"""The teacher's words as targets: a student learns to predict the critiques it hears (arXiv 2602.16066, section 4)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import lightning as L
import torch
from torch import Tensor

from lit_rl.metrics import solve_turns

CritiqueFilter = Literal["all", "solved", "next_correct"]


class TeacherCritiquePrediction(L.Callback):
    """Marks what the teacher said in ``target_mask`` and ``target_weights`` of every batch, and nothing else.

    Targets are the tokens of each message the student heard and their end of turn; never the problem, a header, what
    only the teacher knows (it is in no row of the student), or a token somebody learns by sampling.  Whoever trains
    adds the cross-entropy of these tokens to its loss; `lit_rl.methods.Method` does with ``critique_coef``.

    As published: the student predicts critiques without the privileged information.  Our reading: everything else, and
    that messages that give the answer away are never targets, nor is any of a dialogue marked to be dropped.

    Batches are objects with the fields of `lit_rl.episodes.Rollouts`: ``party_ids``, ``parties``, ``turn_ids``,
    ``loss_mask``, ``attention_mask``, ``rewards``, ``episode_ids`` and ``episodes``, whose turns say in ``info``
    whether an attempt was ``correct`` and whether a message was a ``leak`` that was ``heard``.

    Args:
        critique_filter: "all" messages, those of dialogues that end "solved", or those directly followed by a correct
            attempt ("next_correct").  Messages of acceptance, which follow a correct attempt, are targets always.
        teacher: Name of the party whose words are targets.
    """

    def __init__(self, critique_filter: CritiqueFilter = "all", teacher: str = "teacher"):
        if critique_filter not in get_args(CritiqueFilter):
            raise ValueError(
                f"TeacherCritiquePrediction: critique_filter is {critique_filter!r}; use one of "
                f"{list(get_args(CritiqueFilter))}. Leaks are left out by each of them."
            )
        self.critique_filter, self.teacher = critique_filter, teacher

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._mark(batch)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._mark(batch)

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._mark(batch)

    def _mark(self, batch: Any) -> None:
        known = getattr(batch, "party_ids", None) is not None and hasattr(batch, "episodes")
        if not known or (len(batch) and not batch.episodes):  # a rank may have no row where others have some
            raise ValueError(
                f"TeacherCritiquePrediction needs batches of rollouts; this one is a {type(batch).__name__} without "
                "party_ids or episodes. Yield lit_rl.episodes.Rollouts, or leave the callback out."
            )
        if self.teacher not in batch.parties:
            raise ValueError(
                f"TeacherCritiquePrediction: there is no party {self.teacher!r} in the batch, only "
                f"{list(batch.parties)}; set teacher to one of them."
            )
        mask = self._heard(batch)
        weights = self._weights(batch, mask).gather(1, batch.turn_ids.long().clamp(min=0))
        batch.target_mask, batch.target_weights = mask, weights.masked_fill(~mask, 0.0)

    def _heard(self, batch: Any) -> Tensor:
        """What the teacher said in rows of others, bool ``(B, T)``."""
        said = (batch.party_ids == batch.parties.index(self.teacher)) & batch.attention_mask
        own = (said & batch.loss_mask).any(1, keepdim=True)  # a teacher that is trained hears its own words too
        return said & ~batch.loss_mask & ~own

    def _weights(self, batch: Any, mask: Tensor) -> Tensor:
        """Of the message that answers each exchange, float32 ``(B, N)``."""
        if not len(batch):
            return torch.zeros_like(batch.rewards)
        exchanges = batch.rewards.shape[1]
        weights = critique_weights(
            solve_turns(batch.episodes), _leaks(batch.episodes, self.teacher, exchanges), self.critique_filter
        )
        dropped = torch.tensor([any(turn.info.get("drop") for turn in e.turns) for e in batch.episodes])
        place = {episode.index: i for i, episode in enumerate(batch.episodes)}
        row = torch.tensor([place[index] for index in batch.episode_ids.tolist()])
        by_row = weights.masked_fill(dropped[:, None], 0.0)[row].to(batch.rewards.device)
        return by_row.masked_fill(_again(batch, mask), 0.0)


def critique_weights(solved_at: Tensor, leaked: Tensor, critique_filter: CritiqueFilter = "all") -> Tensor:
    """Which messages are learned (our reading of arXiv 2602.16066, which tells no filter).

    Args:
        solved_at: 0-based solve turn of each dialogue, int64 ``(E,)``; -1 unsolved.
        leaked: Whether the message that answers turn ``j`` gave the answer away, bool ``(E, N)``.
        critique_filter: "all", "solved" (dialogues that end solved) or "next_correct" (before the solving turn).

    Returns:
        1 or 0 for each message, float32 ``(E, N)``.  The message that answers a solving turn is one of acceptance; it
        is kept by every filter.

    Example:
        >>> critique_weights(torch.tensor([2, -1]), torch.zeros(2, 3, dtype=torch.bool), "next_correct")
        tensor([[0., 1., 1.],
                [0., 0., 0.]])
    """
    solved, turns = (solved_at >= 0)[:, None], torch.arange(leaked.shape[1], device=leaked.device)
    kept = {
        "all": torch.ones_like(leaked),
        "solved": solved.expand_as(leaked),
        "next_correct": solved & (turns >= solved_at[:, None] - 1),
    }
    return (kept[critique_filter] & ~leaked).float()


def _leaks(episodes: Sequence[Any], teacher: str, exchanges: int) -> Tensor:
    """Messages that gave the answer away and were heard, bool ``(E, N)``."""
    leaked = torch.zeros(len(episodes), exchanges, dtype=torch.bool)
    for i, episode in enumerate(episodes):
        for turn in episode.turns:
            info: Mapping[str, Any] = turn.info
            if turn.party == teacher and info.get("leak") and info.get("heard", True):
                leaked[i, turn.exchange] = True
    return leaked


def _again(batch: Any, mask: Tensor) -> Tensor:
    """Messages that an earlier row of the dialogue holds already, bool ``(B, N)``: a row per turn repeats them."""
    tokens = torch.zeros_like(batch.rewards).scatter_add_(1, batch.turn_ids.long().clamp(min=0), mask.float())
    present = tokens > 0
    seen: dict[int, Tensor] = {}
    again = torch.zeros_like(present)
    for row, index in enumerate(batch.episode_ids.tolist()):
        before = seen.get(index, torch.zeros_like(present[row]))
        again[row], seen[index] = present[row] & before, present[row] | before
    return again
