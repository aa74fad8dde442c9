"""Rows that hold one turn each, in any order, as padded tensors of episodes by turns, and back."""

import torch
from torch import Tensor


class TurnGrid:
    """Which row is which turn of which episode.

    Attributes:
        episode_ids: Of the ``E`` episodes, sorted, int64 ``(E,)``.
        lengths: Turns of each, int64 ``(E,)``.
        turns: ``N``, the greatest length; 1 where there are no rows.

    Args:
        episode_ids: Of each row, int64 ``(B,)``.
        turn_ids: Number of the row's turn in its episode, integer ``(B,)``, from 0 on without a gap.

    Raises:
        ValueError: Two rows are the same turn, or a turn between the first and the last has no row.

    Example:
        >>> grid = TurnGrid(torch.tensor([7, 4, 7]), torch.tensor([1, 0, 0]))
        >>> cells = grid.cells(torch.tensor([7, 4, 7]), torch.tensor([1, 0, 0]))
        >>> grid.padded(torch.tensor([0.1, 0.2, 0.3]), cells, fill=0.0)
        tensor([[0.2000, 0.0000],
                [0.3000, 0.1000]])
    """

    def __init__(self, episode_ids: Tensor, turn_ids: Tensor):
        if episode_ids.ndim != 1 or turn_ids.shape != episode_ids.shape:
            raise ValueError(
                f"TurnGrid: episode_ids {tuple(episode_ids.shape)} and turn_ids {tuple(turn_ids.shape)} must both be "
                "(rows,)."
            )
        self.episode_ids, episode = torch.unique(episode_ids, return_inverse=True)
        self.lengths = torch.bincount(episode)
        self.turns = int(self.lengths.max()) if len(episode_ids) else 1  # a rank without rows has no episode of a turn
        _refuse_duplicates(episode_ids, turn_ids)
        outside = (turn_ids < 0) | (turn_ids >= self.lengths[episode])
        if bool(outside.any()):
            row = int(outside.nonzero()[0])
            raise ValueError(
                f"Episode {int(episode_ids[row])} has {int(self.lengths[episode[row]])} rows and one of them is turn "
                f"{int(turn_ids[row])}; credit needs a row of every turn, numbered from 0."
            )

    def cells(self, episode_ids: Tensor, turn_ids: Tensor) -> Tensor:
        """Where rows stand: places in a flattened ``(E, N)``, int64 ``(M,)``.

        Args:
            episode_ids: int64 ``(M,)``.
            turn_ids: Integer ``(M,)``.

        Raises:
            ValueError: Two rows are the same turn, or one is a turn that the grid does not have.
        """
        if not len(turn_ids):
            return turn_ids.long()
        _refuse_duplicates(episode_ids, turn_ids)
        episode = torch.searchsorted(self.episode_ids, episode_ids).clamp(max=len(self.episode_ids) - 1)
        known = (self.episode_ids[episode] == episode_ids) & (turn_ids >= 0) & (turn_ids < self.lengths[episode])
        if not bool(known.all()):
            row = int((~known).nonzero()[0])
            raise ValueError(
                f"Turn {int(turn_ids[row])} of episode {int(episode_ids[row])} has a row of one stream and none of the "
                "low level; every turn needs one."
            )
        return episode * self.turns + turn_ids.long()

    def padded(self, values: Tensor, cells: Tensor, *, fill: float) -> Tensor:
        """Values of rows ``(M,)`` at their ``cells``, ``fill`` elsewhere; ``(E, N)``."""
        flat = values.new_full((len(self.episode_ids) * self.turns,), fill)
        return flat.index_put((cells,), values).view(len(self.episode_ids), self.turns)


def _refuse_duplicates(episode_ids: Tensor, turn_ids: Tensor) -> None:
    if not len(turn_ids):
        return
    span = turn_ids.long() - turn_ids.min()
    _, key, counts = torch.unique(
        torch.unique(episode_ids, return_inverse=True)[1] * (span.max() + 1) + span,
        return_inverse=True, return_counts=True,
    )  # fmt: skip
    if bool((counts > 1).any()):
        row = int((counts[key] > 1).nonzero()[0])
        raise ValueError(
            f"Turn {int(turn_ids[row])} of episode {int(episode_ids[row])} has {int(counts[key[row]])} rows; its "
            "reward would count more than once. Pad batches after credit is assigned, with rows that have no loss_mask."
        )
