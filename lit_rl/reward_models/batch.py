"""A batch of annotated questions, as representations where the backbone is frozen and as prompts where it learns."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lit_rl.papers.records import QuestionRecord
from lit_rl.reward_models.backbone import length_batches
from lit_rl.reward_models.scores import IGNORED


class QuestionBatch:
    """Questions with their labels; plain, so that Lightning moves it by ``to`` and leaves its types alone.

    Attributes:
        records: What the rows are of.
        labels: 0, 1 or ``IGNORED``, int64 ``(B, 3)``.
        rows: Token ids of the rendered prompts.
        representations: What the heads read, float32 ``(B, H)``; None where the backbone is trained.
        figures: Further figures to log.
    """

    def __init__(
        self,
        records: Sequence[QuestionRecord],
        rows: Sequence[tuple[int, ...]],
        representations: Tensor | None = None,
    ):
        self.records, self.rows = list(records), list(rows)
        self.labels = label_table(records)
        self.representations = representations
        self.figures: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.records)

    def to(self, device: torch.device | str) -> "QuestionBatch":
        """The same batch, moved in place."""
        self.labels = self.labels.to(device)
        if self.representations is not None:
            self.representations = self.representations.to(device)
        return self

    def parts(self, token_budget: int) -> Iterator[list[int]]:
        """Places of rows that are run together: all where the backbone is frozen; none of an empty batch."""
        if self.representations is None:
            yield from length_batches([len(row) for row in self.rows], token_budget)
        elif self.records:
            yield list(range(len(self.records)))


def label_table(records: Sequence[QuestionRecord]) -> Tensor:
    """Labels int64 ``(B, 3)`` in the order effort, evidence, grounding; ``IGNORED`` where nobody annotated."""
    labels = [[IGNORED if label is None else label for label in record.labels] for record in records]
    return torch.tensor(labels, dtype=torch.int64).reshape(-1, 3)
