"""Worlds of scripts/reproduce/hiper.py: several sources in turn, an oracle that is easily distracted; and figures."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import lightning as L

from lit_rl.stream_keys import stream_key
from lit_rl.worlds.base import Advice, Observation, Step, World, WorldSource
from lit_rl.worlds.household import Household, HouseholdWorld
from lit_rl.worlds.household_oracle import next_stage
from lit_rl.worlds.household_rules import PLACES, Act, Goal, Name

FIGURES = "figures.json"
MEAN_TURNS = 3  # of a whim


class Alternating:
    """Worlds of several sources in turn; task ``i`` is one of source ``i`` modulo their number.

    Args:
        sources: All of one length.

    Raises:
        ValueError: There are none, or their lengths differ.
    """

    name = "Alternating"

    def __init__(self, sources: Sequence[WorldSource]):
        lengths = [len(source) for source in sources]
        if not lengths or len(set(lengths)) > 1:
            raise ValueError(f"Alternating: sources have {lengths} tasks; give one or more, all of the same length.")
        self.sources = list(sources)

    def __len__(self) -> int:
        return len(self.sources) * len(self.sources[0])

    def __getitem__(self, index: int) -> World:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.sources[index % len(self.sources)][index // len(self.sources)]


class Distracted:
    """Households whose oracle has whims: what a warm-up on it learns is fluent, and wastes much time.

    In every turn it may take a fancy to carry something elsewhere, or the thing of its task untreated.  It reaches for
    that at once, mostly in vain, follows it as it would follow its task, for three turns in the mean, and comes back.
    So what a student has to unlearn is choosing subgoals, not acting on them, and it has seen what failing looks like.

    Args:
        worlds: Households.
        chance: Of a whim in a turn that is given to the task.
        seed: Of the whims.
    """

    def __init__(self, worlds: Household, chance: float = 0.2, seed: int = 0):
        if not 0 <= chance <= 1:
            raise ValueError(f"Distracted: chance is {chance}; it lies between 0 and 1.")
        self.worlds, self.chance, self.seed = worlds, chance, seed
        self.name = f"{worlds.name} with whims"

    def __len__(self) -> int:
        return len(self.worlds)

    def __getitem__(self, index: int) -> World:
        world = self.worlds[index]
        assert isinstance(world, HouseholdWorld)
        return _DistractedWorld(world, self.chance, Random(stream_key(self.seed, self.name, index)))


class _DistractedWorld:
    """One of them."""

    def __init__(self, world: HouseholdWorld, chance: float, rng: Random):
        self.world, self.chance, self.rng = world, chance, rng
        self.task = world.task
        self.whim: Goal | None = None

    def reset(self) -> Observation:
        return self.world.reset()

    def step(self, action: str) -> Step:
        return self.world.step(action)

    def close(self) -> None:
        self.world.close()

    def advice(self) -> Advice:
        """For the whim, or else the task; what begins and ends a whim is drawn here, so ask once a turn."""
        house, words = self.world.house, self.world.words
        if self.whim is not None and self.rng.random() < 1 / MEAN_TURNS:
            self.whim = None
        elif self.whim is None and self.rng.random() < self.chance:
            places = [place for place in house.places if place.kind in PLACES]
            kind = self.rng.choice(list(house.things)).kind
            self.whim = Goal("pick", kind, self.rng.choice(places))
            return Advice(words.stage("take", kind, None), words.act(Act("take", Name(kind)), house.at))
        if self.whim is None:
            return self.world.advice()
        stage = next_stage(self.whim, house)
        return Advice(words.stage(stage.verb, stage.kind, stage.place), words.act(stage.act, house.at))


class Figures(L.Callback):
    """At ``lit-rl validate`` writes all that was logged to ``figures.json`` in the trainer's root folder."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
            path = Path(trainer.default_root_dir) / FIGURES
            path.write_text(json.dumps(figures, indent=1, sort_keys=True))
