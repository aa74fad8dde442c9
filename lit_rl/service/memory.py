"""A baseline that learns without gradients: do what went best in states like this one (gopo.md section 6).

As published (GOPO, arXiv 2602.15854): a memory-based agent, Memento, is compared with.  Our reading: all of it; this is
no reimplementation of Memento.
"""

import math
import random
from collections.abc import Hashable, Sequence
from typing import Any

from lit_rl.stream_keys import stream_key

State = tuple[Hashable, ...]  # one value per feature


class SkillMemory:
    """Remembers what each skill led to in each state, and chooses by the nearest states.

    Of the states remembered with an admissible skill, the ``neighbours`` nearest are taken, by the number of features
    that differ; the older one first where two are as near.  The skill whose returns there have the best mean is
    chosen, the first in the order of ``admissible`` where two are as good.  With no such state, one is drawn.

    Args:
        neighbours: How many states are compared with, ``k``.
        exploration: Share of choices that are drawn from all admissible skills while collecting, in [0, 1].
        seed: Of what is drawn.

    Raises:
        ValueError: An option out of range.

    Example:
        >>> memory = SkillMemory(neighbours=1)
        >>> memory.add(("new", "no"), "greet", 1.0)
        >>> memory.add(("new", "no"), "close", 0.0)
        >>> memory.choose(("new", "yes"), ["close", "greet"], key=0)
        'greet'
    """

    def __init__(self, neighbours: int = 5, exploration: float = 0.1, seed: int = 0):
        if neighbours < 1 or not 0 <= exploration <= 1:
            raise ValueError(
                f"SkillMemory has neighbours {neighbours} and exploration {exploration}; the first must be at least 1, "
                "the second in [0, 1]."
            )
        self.neighbours, self.exploration, self.seed = neighbours, exploration, seed
        self._sums: dict[State, dict[str, tuple[float, int]]] = {}  # of returns, and how many

    def __len__(self) -> int:
        """Different states remembered."""
        return len(self._sums)

    def add(self, state: Sequence[Hashable], skill: str, value: float) -> None:
        """Remember that ``skill`` was done in ``state``, in a dialogue whose return was ``value``.

        Raises:
            ValueError: Another number of features than before, or a return that is not finite.
        """
        key = self._key(state)
        if not math.isfinite(value):
            raise ValueError(f"SkillMemory: the return is {value}; it must be a finite number.")
        total, count = self._sums.setdefault(key, {}).get(skill, (0.0, 0))
        self._sums[key][skill] = (total + value, count + 1)

    def choose(
        self, state: Sequence[Hashable], admissible: Sequence[str], *, key: int, collecting: bool = False
    ) -> str:
        """The skill to do.

        Args:
            state: Its features.
            admissible: Skills that may be done, one at least.
            key: Of the random stream: equal keys draw alike, whatever else is drawn.
            collecting: Explore; otherwise never, unless nothing is remembered.

        Raises:
            ValueError: No skill is admissible, or another number of features than before.
        """
        if not admissible:
            raise ValueError("SkillMemory: no skill is admissible; a procedure always admits its safe skill.")
        noise = random.Random(stream_key(self.seed, "skill memory", key))
        explore = collecting and noise.random() < self.exploration
        means = {} if explore else self._means(self._key(state), admissible)
        if not means:
            return noise.choice(list(admissible))
        return max((skill for skill in admissible if skill in means), key=means.__getitem__)

    def state_dict(self) -> dict[str, Any]:
        """All that is remembered, in plain types if the features are."""
        return {"sums": [[list(state), dict(skills)] for state, skills in self._sums.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember that, and nothing else."""
        self._sums = {
            tuple(features): {skill: (total, count) for skill, (total, count) in skills.items()}
            for features, skills in state["sums"]
        }

    def _means(self, key: State, admissible: Sequence[str]) -> dict[str, float]:
        """Mean return of each admissible skill in the nearest states."""
        comparable = [
            (_distance(key, state), state) for state, done in self._sums.items() if done.keys() & set(admissible)
        ]
        nearest = sorted(comparable, key=lambda entry: entry[0])[: self.neighbours]  # stable: the older one first
        found = {}
        for skill in admissible:
            seen = [self._sums[state][skill] for _, state in nearest if skill in self._sums[state]]
            if seen:
                found[skill] = math.fsum(total for total, _ in seen) / sum(count for _, count in seen)
        return found

    def _key(self, state: Sequence[Hashable]) -> State:
        known = next(iter(self._sums), None)
        if known is not None and len(state) != len(known):
            raise ValueError(
                f"SkillMemory: the state {tuple(state)} has {len(state)} features; others have {len(known)}."
            )
        return tuple(state)


def _distance(one: State, other: State) -> int:
    """Features that differ (Hamming)."""
    return sum(mine != theirs for mine, theirs in zip(one, other, strict=True))
