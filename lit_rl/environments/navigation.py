"""Where does a walk on a small map end?"""

from random import Random

from lit_rl.environments.trace_solutions import Solution, Step
from lit_rl.environments.trace_tasks import TraceTasks, numbered
from lit_rl.verification.labels import letters
from lit_rl.verification.traces import DEFAULT_TAGS, ThinkTags

_MOVES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


class GridNavigation(TraceTasks):
    """``grid 3 3 at E ; 1 left ; 2 up ; ... ; where ?``; whoever leaves the map comes in again on the other side.

    Fields bear letters, row by row: A B C, then D E F, then G H I.

    Args:
        size: Number of problems.
        seed: Of the problems.
        steps: Moves.
        width: Of the map.
        height: Of the map; it has at most 26 fields.
        tags: Of the think block.
    """

    def __init__(
        self,
        size: int = 1000,
        seed: int = 0,
        steps: int = 6,
        width: int = 3,
        height: int = 3,
        tags: ThinkTags = DEFAULT_TAGS,
    ):
        if width < 2 or height < 2 or width * height > 26:
            raise ValueError(f"GridNavigation is {width} x {height}; wanted at least 2 x 2 and at most 26 fields.")
        self.width, self.height = width, height
        super().__init__("GridNavigation", letters(width * height), size, seed, steps, tags)

    def prompt_words(self) -> list[str]:
        return ["grid", str(self.width), str(self.height), "at", ";", *_MOVES, "where", "?"]

    def draw(self, rng: Random) -> tuple[str, Solution]:
        start = rng.choice(self.labels)
        steps = tuple(self._step(rng.choice(list(_MOVES))) for _ in range(self.steps))
        prompt = f"grid {self.width} {self.height} at {start} ; {numbered([step.words for step in steps])} ; where ?"
        return prompt, Solution(start, steps)

    def _step(self, move: str) -> Step:
        right, down = _MOVES[move]
        to = {}
        for place, field in enumerate(self.labels):
            row, column = divmod(place, self.width)
            to[field] = self.labels[(row + down) % self.height * self.width + (column + right) % self.width]
        return Step(move, to)
