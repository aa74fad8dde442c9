"""The repetition penalty: tokens that a row holds already become less likely."""

from collections.abc import Sequence

import torch
from torch import Tensor


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide positive logits of seen tokens by ``penalty`` and multiply negative ones (Keskar et al., 2019, 4.1).

    Args:
        logits: Before temperature, float32 ``(B, V)``.
        seen: Tokens of prompt and reply so far, bool ``(B, V)``.
        penalty: Above 1 discourages, below 1 encourages; 1 changes nothing.

    Example:
        >>> penalise_repetition(torch.tensor([[2.0, -2.0, 2.0]]), torch.tensor([[True, True, False]]), 2.0)
        tensor([[ 1., -4.,  2.]])
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


class SeenTokens:
    """Which tokens the row in each slot of a sampler holds."""

    def __init__(self, penalty: float, device: torch.device):
        self.penalty, self.device = penalty, device
        self.seen = torch.zeros(0, 0, dtype=torch.bool, device=device)

    def start(self, slot: int, ids: Sequence[int], vocabulary: int) -> None:
        """A row that holds ``ids`` is in ``slot`` from now on."""
        slots = self.seen.shape[0]
        if slot >= slots:
            grown = torch.zeros(max(slot + 1, 2 * slots), vocabulary, dtype=torch.bool, device=self.device)
            if slots:
                grown[:slots] = self.seen
            self.seen = grown
        self.seen[slot] = False
        self.seen[slot, torch.tensor(ids, device=self.device)] = True

    def add(self, low: int, tokens: Tensor) -> None:
        """One more token each, int64 ``(rows,)``, of the rows from slot ``low`` on."""
        self.seen[low : low + len(tokens)].scatter_(1, tokens[:, None], True)

    def penalised(self, low: int, logits: Tensor) -> Tensor:
        """Logits of the rows from slot ``low`` on, float32 ``(rows, V)``."""
        return penalise_repetition(logits, self.seen[low : low + len(logits)], self.penalty)

    def swap(self, a: int, b: int) -> None:
        """Exchange two slots; of one that was never started nothing is wanted."""
        if max(a, b) < self.seen.shape[0]:
            self.seen[[a, b]] = self.seen[[b, a]]
