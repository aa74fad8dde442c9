"""Where do pointers lead?"""

from itertools import pairwise
from random import Random

from lit_rl.environments.trace_solutions import Solution, Step
from lit_rl.environments.trace_tasks import TraceTasks
from lit_rl.verification.labels import letters
from lit_rl.verification.traces import DEFAULT_TAGS, ThinkTags


class PointerChase(TraceTasks):
    """``A to C ; B to A ; ... ; start B ; hops 4 ?``; the pointers make one circle, so no place is met twice.

    Args:
        size: Number of problems.
        seed: Of the problems.
        steps: Hops; at most two fewer than there are places, or one hop back would do.
        places: At most 26.
        tags: Of the think block.
    """

    def __init__(
        self, size: int = 1000, seed: int = 0, steps: int = 4, places: int = 8, tags: ThinkTags = DEFAULT_TAGS
    ):
        if not steps + 2 <= places <= 26:
            raise ValueError(f"PointerChase.places is {places}; with {steps} steps it must lie in {steps + 2} .. 26.")
        super().__init__("PointerChase", letters(places), size, seed, steps, tags)

    def prompt_words(self) -> list[str]:
        return ["to", ";", "start", "hops", "?", "next"]

    def draw(self, rng: Random) -> tuple[str, Solution]:
        circle = rng.sample(self.labels, len(self.labels))
        to = dict(sorted(pairwise([*circle, circle[0]])))
        start = rng.choice(self.labels)
        pointers = " ; ".join(f"{place} to {other}" for place, other in to.items())
        return f"{pointers} ; start {start} ; hops {self.steps} ?", Solution(start, (Step("next", to),) * self.steps)
