"""Prompts about one paper: what they begin with is run once, and each question behind it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lit_rl.objectives.pooling import pool_last_k
from lit_rl.prefixes import common_prefix
from lit_rl.sampler_rows import CachedRows

Row = tuple[int, ...]


def families(rows: Sequence[Row]) -> list[list[int]]:
    """Places of prompts by what they begin with, so that running each beginning once leaves the fewest tokens to run.

    A beginning counts if it is at least half of the longest prompt that has it: behind a shorter one so much would run
    under a mask that little were won.  Prompts that share none are families of one.

    Args:
        rows: Token ids, each row once.

    Example:
        >>> families([(1, 2, 3, 4), (7, 7, 8), (1, 2, 3, 5, 6), (7, 7, 9), (5, 5)])
        [[0, 2], [4], [1, 3]]
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    alike = [common_prefix(rows[one], rows[other]) for one, other in pairwise(order)]

    def best(low: int, high: int) -> tuple[int, list[list[int]]]:
        """Tokens saved among sorted prompts ``low:high``, and their families."""
        if high - low < 2:
            return 0, [order[low:high]]
        shared = min(alike[low : high - 1])
        cuts = [low, *(place + 1 for place in range(low, high - 1) if alike[place] == shared), high]
        parts = [best(*part) for part in pairwise(cuts)]
        apart = sum(saved for saved, _ in parts)
        together = shared * (high - low - 1)
        if together > apart and 2 * shared >= max(len(rows[place]) for place in order[low:high]):
            return together, [order[low:high]]
        return apart, [family for _, own in parts for family in own]

    return best(0, len(rows))[1] if rows else []


def represent_family(model: Any, rows: Sequence[Row], *, pool_tokens: int | None, token_budget: int) -> Tensor:
    """Pooled last hidden states of prompts that begin alike, float32 ``(N, H)``: their beginning is run once.

    Args:
        model: A causal LM that `lit_rl.sampler_rows.rows_work` is true of.
        rows: Token ids, at least two in each row.
        pool_tokens: See `pool_last_k`; the window may reach back into the beginning.
        token_budget: Most tokens of one forward, with those whose keys and values are kept (one row at least).
    """
    longest = max(map(len, rows))
    # Something has to be left of each row; first and last in order share what all of them do.
    shared = min(common_prefix(min(rows), max(rows)), min(map(len, rows)) - 1)
    slots = min(len(rows), max(1, token_budget // longest))
    kept = _StateRows(model, slots)
    kept.cache.resize(slots, longest)
    before = kept.feed(0, [rows[0][:shared]])
    before = before if pool_tokens is None else before[:, -pool_tokens:]
    for slot in range(1, slots):
        kept.copy_row(0, slot, shared)
    found = []
    for start in range(0, len(rows), slots):
        behind = [row[shared:] for row in rows[start : start + slots]]
        kept.lengths[: len(behind)] = [shared] * len(behind)  # forget the questions before these
        found.append(_pooled(before, kept.feed(0, behind), list(map(len, behind)), pool_tokens))
    return torch.cat(found)


def _pooled(before: Tensor, behind: Tensor, lengths: list[int], pool_tokens: int | None) -> Tensor:
    """Of states ``(1, P, H)`` that all rows begin with, and those behind, ``(N, T, H)``, of which ``lengths`` count."""
    real = torch.arange(behind.shape[1], device=behind.device) < torch.tensor(lengths, device=behind.device)[:, None]
    mask = torch.cat([real.new_ones(len(real), before.shape[1]), real], 1)
    return pool_last_k(torch.cat([before.expand(len(behind), -1, -1), behind], 1), mask, k=pool_tokens)


class _StateRows(CachedRows):
    """Rows whose ``feed`` gives the last hidden states (after the final norm) of all it runs, ``(rows, T, H)``."""

    def _last_logits(self, count: list[int], ids: Tensor, positions: Tensor, mask: Any) -> Tensor:
        hidden: Tensor = self.model.base_model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=self.cache, use_cache=True
        )[0]
        return hidden
