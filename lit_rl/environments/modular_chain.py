"""What is left of a number after additions and multiplications modulo a small number?"""

import math
from random import Random

from lit_rl.environments.trace_solutions import Solution, Step
from lit_rl.environments.trace_tasks import TraceTasks, numbered
from lit_rl.verification.traces import DEFAULT_TAGS, ThinkTags


class ModularChain(TraceTasks):
    """``mod 7 start 3 ; 1 add 4 ; 2 times 5 ; ... ; result ?``; no step undoes what was there before.

    Args:
        size: Number of problems.
        seed: Of the problems.
        steps: Additions and multiplications, one as likely as the other.
        modulus: At least 3, at most 30; it shares no factor with any multiplier.
        tags: Of the think block.
    """

    def __init__(
        self, size: int = 1000, seed: int = 0, steps: int = 6, modulus: int = 7, tags: ThinkTags = DEFAULT_TAGS
    ):
        if not 3 <= modulus <= 30:
            raise ValueError(f"ModularChain.modulus is {modulus}; it must lie in 3 .. 30.")
        self.modulus = modulus
        self._factors = [factor for factor in range(2, modulus) if math.gcd(factor, modulus) == 1]
        super().__init__("ModularChain", [str(n) for n in range(modulus)], size, seed, steps, tags)

    def prompt_words(self) -> list[str]:
        return ["mod", str(self.modulus), "start", ";", "add", "times", "result", "?"]

    def draw(self, rng: Random) -> tuple[str, Solution]:
        start = rng.choice(self.labels)
        steps = tuple(self._step(rng) for _ in range(self.steps))
        prompt = f"mod {self.modulus} start {start} ; {numbered([step.words for step in steps])} ; result ?"
        return prompt, Solution(start, steps)

    def _step(self, rng: Random) -> Step:
        if rng.random() < 0.5:
            n = rng.randrange(1, self.modulus)
            return Step(f"add {n}", {state: str((int(state) + n) % self.modulus) for state in self.labels})
        n = rng.choice(self._factors)
        return Step(f"times {n}", {state: str(int(state) * n % self.modulus) for state in self.labels})
