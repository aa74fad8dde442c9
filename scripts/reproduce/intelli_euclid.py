"""Of scripts/reproduce/intelli.py: answers of every length to warm up on, and what responses are like afterwards."""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import lightning as L

from lit_rl.demonstrations import Demonstration
from lit_rl.environments import TaskSource
from lit_rl.environments.base import Message
from lit_rl.stream_keys import stream_key

RESPONSES = "responses.json"


class Euclid:
    """Demonstrations of common divisors: Euclid's remainders, then the answer, by somebody who dawdles and errs.

    "gcd 36 48" is answered "48 36 12 0 ans 12".  Dawdling says a number again and again; a wrong remainder is a
    smaller number than it could be divided by, with which the rest goes on.

    Args:
        tasks: Problems whose prompts end in two numbers.
        dawdles: Chance of saying a number once more, each time.
        errs: Chance of a wrong remainder.
        repeats: Demonstrations of each problem.
        seed: Of both.
    """

    def __init__(self, tasks: TaskSource, dawdles: float = 0.5, errs: float = 0.2, repeats: int = 4, seed: int = 0):
        if not (0 <= dawdles < 1 and 0 <= errs <= 1):
            raise ValueError(f"Euclid: dawdles is {dawdles} and errs {errs}; give chances, dawdles below 1.")
        self.tasks, self.dawdles, self.errs, self.repeats, self.seed = tasks, dawdles, errs, repeats, seed

    def __len__(self) -> int:
        return len(self.tasks) * self.repeats

    def __getitem__(self, index: int) -> Demonstration:
        problem = self.tasks[index % len(self.tasks)]
        random = Random(stream_key(self.seed, "euclid", index))
        said = self._said(sorted(map(int, problem.prompt.split()[-2:])), random)
        return Demonstration(problem.id, (Message("user", problem.prompt), Message("assistant", said)))

    def _said(self, numbers: list[int], random: Random) -> str:
        small, large = numbers
        words = [*self._told(large, random), *self._told(small, random)]
        while small:
            remainder = random.randrange(small) if random.random() < self.errs else large % small
            large, small = small, remainder
            words += self._told(small, random)
        return " ".join([*words, "ans", str(large)])

    def _told(self, number: int, random: Random) -> list[str]:
        words = [str(number)]
        while random.random() < self.dawdles:
            words.append(str(number))
        return words


class Responses(L.Callback):
    """At ``lit-rl validate`` writes what responses are like to ``responses.json`` in the trainer's root folder.

    ``length`` in tokens, ``truncated`` share, and ``kept``: the share of problems whose responses are neither all right
    nor all wrong, which is what dynamic sampling would keep.
    """

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._lengths: list[int] = []
        self._truncated: list[bool] = []
        self._correct: dict[int, set[bool]] = defaultdict(set)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        for episode in batch.episodes:
            turn = episode.turns[0]
            self._lengths.append(len(turn.completion_ids))
            self._truncated.append(turn.stop_reason == "length")
            self._correct[episode.group].add(turn.info["correct"])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            figures = {
                "length": statistics.fmean(self._lengths),
                "truncated": statistics.fmean(self._truncated),
                "kept": statistics.fmean(len(verdicts) > 1 for verdicts in self._correct.values()),
            }
            (Path(trainer.default_root_dir) / RESPONSES).write_text(json.dumps(figures, indent=1))
