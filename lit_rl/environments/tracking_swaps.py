"""Where is the ball after cups were swapped?"""

from random import Random

from lit_rl.environments.trace_solutions import Solution, Step
from lit_rl.environments.trace_tasks import TraceTasks, numbered
from lit_rl.verification.labels import letters
from lit_rl.verification.traces import DEFAULT_TAGS, ThinkTags

_MOVED = 0.75  # of the swaps move the ball


class TrackingSwaps(TraceTasks):
    """``ball in B ; 1 swap A B ; ... ; where ?``: three swaps of four move the ball, the others two other cups.

    Args:
        size: Number of problems.
        seed: Of the problems.
        steps: Swaps.
        cups: At least four, at most 26; a ball lies in one.
        tags: Of the think block.
    """

    def __init__(self, size: int = 1000, seed: int = 0, steps: int = 6, cups: int = 5, tags: ThinkTags = DEFAULT_TAGS):
        if not 4 <= cups <= 26:
            raise ValueError(f"TrackingSwaps.cups is {cups}; it must lie in 4 .. 26.")
        super().__init__("TrackingSwaps", letters(cups), size, seed, steps, tags)

    def prompt_words(self) -> list[str]:
        return ["ball", "in", ";", "swap", "where", "?"]

    def draw(self, rng: Random) -> tuple[str, Solution]:
        start = state = rng.choice(self.labels)
        steps = []
        for _ in range(self.steps):
            others = [cup for cup in self.labels if cup != state]
            pair = [state, rng.choice(others)] if rng.random() < _MOVED else rng.sample(others, 2)
            steps.append(self._swap(*sorted(pair)))
            state = steps[-1].to[state]
        prompt = f"ball in {start} ; {numbered([step.words for step in steps])} ; where ?"
        return prompt, Solution(start, tuple(steps))

    def _swap(self, one: str, other: str) -> Step:
        return Step(f"swap {one} {other}", {cup: cup for cup in self.labels} | {one: other, other: one})
