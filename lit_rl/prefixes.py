"""Prompts that begin alike: what they share is run once."""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_LEAST_SHARED = 16  # tokens; copying fewer costs more than running them


@dataclass(frozen=True, slots=True)
class Shared:
    """How a prompt is prefilled: whole (stage 0), or behind the ``length`` tokens of a leader of the stage before.

    A copy, whose ``length`` is all of it, runs nothing.
    """

    stage: int
    leader: int
    length: int


@dataclass(frozen=True, slots=True)
class _Branch:
    """Sorted prompts ``low:high``, which begin with the first ``length`` tokens of ``leader``."""

    low: int
    high: int
    leader: int | None
    length: int
    stage: int


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens two rows begin with in common."""
    shortest = min(len(a), len(b))
    if a[:shortest] == b[:shortest]:
        return shortest
    return bisect.bisect_left(range(1, shortest + 1), True, key=lambda n: a[:n] != b[:n])


def share_prefixes(prompts: Sequence[tuple[int, ...]]) -> list[Shared]:
    """Plan the prefill of prompts that arrive together.

    Equal prompts (a group) run once.  Prompts that begin alike are a tree (one system prompt, several questions in it,
    several traces of a question, several beginnings of a trace): each piece of it is run once, in the longest prompt
    that has it.
    """
    first: dict[tuple[int, ...], int] = {}
    for i, prompt in enumerate(prompts):
        first.setdefault(prompt, i)
    plan = _tree(sorted(first), first)
    copies = {
        i: Shared(plan[first[prompt]].stage + 1, first[prompt], len(prompt))
        for i, prompt in enumerate(prompts)
        if first[prompt] != i
    }
    return [(plan | copies)[i] for i in range(len(prompts))]


def _tree(ordered: Sequence[tuple[int, ...]], number: dict[tuple[int, ...], int]) -> dict[int, Shared]:
    """The plan of prompts that differ, in lexicographic order: those that begin alike are neighbours."""
    alike = [common_prefix(a, b) for a, b in pairwise(ordered)]
    plan: dict[int, Shared] = {}
    waiting = [_Branch(0, len(ordered), None, 0, 0)]
    while waiting:
        branch = waiting.pop()
        if branch.low == branch.high:
            continue
        longest = max(range(branch.low, branch.high), key=lambda i: len(ordered[i]))
        leader = number[ordered[longest]]
        # At least one token has to run: its logits are wanted.
        length = min(branch.length, len(ordered[longest]) - 1)
        plan[leader] = Shared(branch.stage, leader if branch.leader is None else branch.leader, length)
        for low, high, shared in _beside(longest, branch, alike):
            if shared < branch.length + _LEAST_SHARED:
                waiting.append(_Branch(low, high, branch.leader, branch.length, branch.stage))
            else:
                waiting.append(_Branch(low, high, leader, shared, branch.stage + 1))
    return plan


def _beside(longest: int, branch: _Branch, alike: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Neighbours of a prompt that share more with each other than with it: ``low``, ``high``, tokens shared with it."""
    high = longest
    while high > branch.low:
        low, shared = high - 1, alike[high - 1]
        while low > branch.low and alike[low - 1] > shared:
            low -= 1
        yield low, high, shared
        high = low
    low = longest + 1
    while low < branch.high:
        high, shared = low + 1, alike[low - 1]
        while high < branch.high and alike[high - 1] > shared:
            high += 1
        yield low, high, shared
        low = high
