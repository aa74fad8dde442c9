"""BLEU of replies against reference replies; counts and brevity penalty are sacrebleu's."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from sacrebleu.metrics.bleu import BLEU
from torch import Tensor
from torchmetrics import Metric

_ORDER = 4


def sentence_bleu(reply: str, references: Sequence[str], *, lowercase: bool = False) -> float:
    """BLEU-4 of one reply without smoothing, in [0, 1]; 0 where no four words in a row match.

    `lit_rl.metrics.lexical.text_bleu` is the smoothed one, for texts that are compared one by one.

    Args:
        reply: To be scored.
        references: At least one.
        lowercase: Take capital and small letters for the same.

    Example:
        >>> said, wanted = "your order ships today with free returns", "your order will ship today with free returns"
        >>> round(sentence_bleu(said, [wanted]), 6)
        0.423837
    """
    return corpus_bleu([reply], [references], lowercase=lowercase)


def corpus_bleu(replies: Sequence[str], references: Sequence[Sequence[str]], *, lowercase: bool = False) -> float:
    """BLEU-4 of all replies together, in [0, 1]: matches are summed before they are divided.

    Args:
        replies: To be scored.
        references: One or more of each reply.
        lowercase: Take capital and small letters for the same.

    Raises:
        ValueError: No reply, lengths that differ, or a reply without a reference.
    """
    if not replies:
        raise ValueError("corpus_bleu got no reply; give one at least.")
    return _score(bleu_counts(replies, references, lowercase=lowercase))


def bleu_counts(replies: Sequence[str], references: Sequence[Sequence[str]], *, lowercase: bool = False) -> Tensor:
    """What BLEU is made of, int64 ``(10,)``; adds up over replies.

    Matches of n-grams for n = 1 .. 4, n-grams of the replies for n = 1 .. 4, words of the replies, words of the
    references nearest in length.

    Args:
        replies: To be scored.
        references: One or more of each reply.
        lowercase: Take capital and small letters for the same.

    Raises:
        ValueError: Lengths that differ, or a reply without a reference.
    """
    if len(replies) != len(references) or not all(references):
        raise ValueError(
            f"BLEU got {len(replies)} replies and references of {len(references)}, of which "
            f"{sum(not known for known in references)} are empty; each reply needs one reference or more."
        )
    counts = torch.zeros(2 * _ORDER + 2, dtype=torch.int64)
    for reply, known in zip(replies, references, strict=True):
        # Not sentence_score, which warns where there is no smoothing.
        found = _scorer(lowercase).corpus_score([reply], [[reference] for reference in known])
        counts += torch.tensor([*found.counts, *found.totals, found.sys_len, found.ref_len])
    return counts


class CorpusBLEU(Metric):
    """`corpus_bleu`, accumulated over batches and ranks (torchmetrics).

    Args:
        lowercase: Take capital and small letters for the same.
        kwargs: Of torchmetrics' ``Metric``.

    Example:
        >>> metric = CorpusBLEU()
        >>> metric.update(["a b c d", "e f g h"], [["a b c d"], ["e f g h"]])
        >>> round(metric.compute().item(), 6)
        1.0
    """

    full_state_update = False
    higher_is_better = True

    counts: Tensor

    def __init__(self, lowercase: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.lowercase = lowercase
        self.add_state("counts", torch.zeros(2 * _ORDER + 2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, replies: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add replies, with one reference or more of each."""
        self.counts += bleu_counts(replies, references, lowercase=self.lowercase).to(self.counts.device)

    def compute(self) -> Tensor:
        """A float64 number in [0, 1]; NaN if nothing was added."""
        empty = not bool(self.counts.any())
        return torch.tensor(torch.nan if empty else _score(self.counts), dtype=torch.float64)


def _score(counts: Tensor) -> float:
    *numbers, said, wanted = counts.tolist()
    found = BLEU.compute_bleu(
        correct=numbers[:_ORDER], total=numbers[_ORDER:], sys_len=said, ref_len=wanted, smooth_method="none"
    )
    return float(found.score) / 100


@lru_cache
def _scorer(lowercase: bool) -> BLEU:
    return BLEU(lowercase=lowercase, max_ngram_order=_ORDER, force=True, smooth_method="none")
