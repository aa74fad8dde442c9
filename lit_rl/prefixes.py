"""Prompts that begin alike: what they share is run once."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

_LEAST_SHARED = 16  # tokens; copying fewer costs more than running them


@dataclass(frozen=True, slots=True)
class Shared:
    """How a prompt is prefilled: whole (stage 0), behind a copied beginning (1), or copied whole (2)."""

    stage: int
    leader: int
    length: int


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens two rows begin with in common."""
    shortest = min(len(a), len(b))
    if a[:shortest] == b[:shortest]:
        return shortest
    return bisect.bisect_left(range(1, shortest + 1), True, key=lambda n: a[:n] != b[:n])


def share_prefixes(prompts: Sequence[tuple[int, ...]]) -> list[Shared]:
    """Plan the prefill of prompts that arrive together.

    Equal prompts (a group) run once.  Prompts that begin alike (one system prompt, truncated traces) run what they
    share once, in the longest of them.
    """
    first: dict[tuple[int, ...], int] = {}
    plan: list[Shared | None] = [None] * len(prompts)
    for i, prompt in enumerate(prompts):
        known = first.setdefault(prompt, i)
        if known != i:
            plan[i] = Shared(2, known, len(prompt))
    alike: dict[tuple[int, ...], list[int]] = {}
    for prompt, i in first.items():
        alike.setdefault(prompt[:_LEAST_SHARED], []).append(i)
    for beginning, members in alike.items():
        leader = max(members, key=lambda i: len(prompts[i]))
        for i in members:
            if i == leader or len(beginning) < _LEAST_SHARED:
                plan[i] = Shared(0, i, 0)
                continue
            # At least one token has to run: its logits are wanted.
            length = min(common_prefix(prompts[leader], prompts[i]), len(prompts[i]) - 1)
            plan[i] = Shared(1, leader, length)
    return [shared for shared in plan if shared is not None]
