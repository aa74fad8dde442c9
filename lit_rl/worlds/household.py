"""A household in plain Python with ALFWorld's six families of tasks (our world for HiPER, arXiv 2602.16165)."""

from collections.abc import Sequence
from random import Random
from typing import Any, get_args

from lit_rl.stream_keys import stream_key
from lit_rl.worlds.base import Advice, Observation, Step, World
from lit_rl.worlds.household_oracle import next_stage
from lit_rl.worlds.household_rules import (
    DEVICES,
    FAMILIES,
    KINDS,
    OPENABLE,
    PLACES,
    TREATMENTS,
    Act,
    Family,
    Goal,
    House,
    Name,
    reached,
)
from lit_rl.worlds.household_words import FullWords, ShortWords, Wording

MAX_DRAWS = 300
MAX_ALIKE = 3  # places of a kind, where names have numbers


class HouseholdWorld:
    """One household and its goals, to be reached in any order; see `Household`."""

    def __init__(self, house: House, goals: tuple[Goal, ...], *, max_turns: int, wording: Wording, reward: float):
        self.house, self.goals, self.max_turns, self.reward = house, goals, max_turns, reward
        self.words = FullWords() if wording == "full" else ShortWords()
        self.task = self.words.task(goals)
        self.family = "+".join(goal.family for goal in goals)
        self.done: set[int] = set()  # numbers of goals that were reached, if only for a while
        self.turn = 0
        self._acts: dict[str, Act] = {}

    def reset(self) -> Observation:
        return self._observation(None, begun=False)

    def step(self, action: str) -> Step:
        self.turn += 1
        act = self._acts.get(action)
        if act is not None:
            self.house.apply(act)
            self.done |= {i for i, goal in enumerate(self.goals) if reached(goal, self.house, act)}
        solved = len(self.done) == len(self.goals)
        info: dict[str, Any] = {"success": solved, "family": self.family}
        if len(self.goals) > 1:
            info["done"] = len(self.done)
        return Step(
            self._observation(act, begun=True),
            reward=self.reward if solved else 0.0,
            terminated=solved,
            truncated=not solved and self.turn >= self.max_turns,
            info=info,
        )

    def close(self) -> None:
        """Nothing is held."""

    def advice(self) -> Advice:
        """For the first goal that is not reached."""
        goal = next(goal for i, goal in enumerate(self.goals) if i not in self.done)
        stage = next_stage(goal, self.house)
        return Advice(self.words.stage(stage.verb, stage.kind, stage.place), self.words.act(stage.act, self.house.at))

    def _observation(self, act: Act | None, *, begun: bool) -> Observation:
        acts: dict[str, Act] = {}
        for possible in self.house.possible():
            acts.setdefault(self.words.act(possible, self.house.at), possible)
        self._acts = acts
        text = self.words.seen(self.house, act, begun, len(self.done), len(self.goals))
        return Observation(text, tuple(acts))


class Household:
    """Households with things to find, clean, heat, cool, look at under a lamp, and put where they belong.

    The families follow ALFWorld: ``pick`` (and place), ``look`` (in light), ``clean``, ``heat``, ``cool`` (then place)
    and ``pick_two``; task ``i`` is of family ``i`` modulo their number.  Where things are is only seen on the spot.  An
    action that is not admissible changes nothing and costs a turn.  Success pays ``success_reward``, all else 0.  The
    oracle, which sees no more than the agent, solves every task within ``max_turns``: other draws are not made tasks.

    Args:
        size: Number of tasks.
        seed: Of the tasks.
        families: Which kinds of task.
        places: Places where things can be; a sink, a microwave, a fridge and a lamp come in addition, as far as
            ``families`` need them.
        things: Things in the house.
        goals: Kinds of thing to take care of, one task after another; more make long tasks.
        max_turns: Turns until an episode is cut off.
        wording: "full" speaks in ALFWorld's manner, "short" in few words, with one place of a kind.
        openable: Whether drawers, cabinets and the like are closed at first.
        success_reward: 10 as published.

    Attributes:
        ceiling: The best mean return.

    Raises:
        ValueError: An option is unknown or out of range, or ``max_turns`` is too short for such tasks.
    """

    name = "Household"

    def __init__(
        self,
        size: int = 1000,
        seed: int = 0,
        *,
        families: Sequence[Family] = FAMILIES,
        places: int = 8,
        things: int = 8,
        goals: int = 1,
        max_turns: int = 50,
        wording: Wording = "full",
        openable: bool = True,
        success_reward: float = 10.0,
    ):
        self.size, self.seed, self.families, self.places, self.things = size, seed, tuple(families), places, things
        self.goals, self.max_turns, self.wording, self.openable = goals, max_turns, wording, openable
        self.ceiling = self.success_reward = success_reward
        self._check()
        for index in range(min(size, len(self.families))):
            self._draw(index)

    def _check(self) -> None:
        least = {"size": (self.size, 1), "places": (self.places, 2), "goals": (self.goals, 1)}
        least |= {"things": (self.things, 2 * self.goals), "max_turns": (self.max_turns, 1)}
        for option, (value, bound) in least.items():
            if value < bound:
                raise ValueError(f"Household.{option} is {value}; it must be at least {bound}.")
        unknown = sorted(set(self.families) - set(FAMILIES))
        if unknown or not self.families:
            raise ValueError(f"Household.families is {list(self.families)}; give some of {list(FAMILIES)}.")
        if self.wording not in get_args(Wording):
            raise ValueError(f"Household.wording is {self.wording!r}; use one of {list(get_args(Wording))}.")
        if self.places > (most := len(self._pool())):
            raise ValueError(f"Household.places is {self.places}; with {self.wording} words there are {most}.")
        if self.goals > (most := min(len(KINDS[family]) for family in self.families)):
            raise ValueError(f"Household.goals is {self.goals}; with such families it can be at most {most}.")
        if not self.success_reward > 0:
            raise ValueError(f"Household.success_reward is {self.success_reward}; success has to pay more than 0.")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> World:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self._draw(index)

    def _draw(self, index: int) -> HouseholdWorld:
        rng = Random(stream_key(self.seed, self.name, index))
        for _ in range(MAX_DRAWS):
            families = [self.families[index % len(self.families)]]
            families += [rng.choice(self.families) for _ in range(self.goals - 1)]
            goals, house = self._drawn(families, rng)
            if _solves(self._world(house.copy(), goals)):
                return self._world(house, goals)
        raise ValueError(
            f"Household.max_turns is {self.max_turns}; the oracle solves no task of family "
            f"{self.families[index % len(self.families)]!r} in that with {self.places} places and {self.goals} goals. "
            "Raise it, or take fewer places or goals."
        )

    def _world(self, house: House, goals: tuple[Goal, ...]) -> HouseholdWorld:
        return HouseholdWorld(house, goals, max_turns=self.max_turns, wording=self.wording, reward=self.success_reward)

    def _pool(self) -> list[Name]:
        alike = 1 if self.wording == "short" else MAX_ALIKE
        return [Name(kind, number) for kind in PLACES for number in range(1, alike + 1)]

    def _drawn(self, families: Sequence[Family], rng: Random) -> tuple[tuple[Goal, ...], House]:
        pool = self._pool()
        ordinary = [pool[i] for i in sorted(rng.sample(range(len(pool)), self.places))]
        goals: list[Goal] = []
        for family in families:
            kind = rng.choice([kind for kind in KINDS[family] if kind not in {goal.kind for goal in goals}])
            goals.append(Goal(family, kind, None if family == "look" else rng.choice(ordinary)))
        openable = frozenset(place for place in ordinary if self.openable and place.kind in OPENABLE)
        house = House((*ordinary, *self._devices()), self._things(goals, ordinary, rng), openable, set(openable))
        return tuple(goals), house

    def _devices(self) -> list[Name]:
        wanted = {TREATMENTS[family] for family in self.families if family in TREATMENTS}
        return [Name(kind) for verb, kind in DEVICES.items() if verb in wanted]

    def _things(self, goals: Sequence[Goal], places: Sequence[Name], rng: Random) -> dict[Name, Name | None]:
        """Where all things are at first: those of a goal not yet where they belong."""
        target = {goal.kind: goal.place for goal in goals}
        names = [Name(goal.kind, number) for goal in goals for number in range(1, goal.count + 1)]
        others = [kind for kind in KINDS["pick"] if kind not in target]
        while len(names) < self.things and others:
            kind = rng.choice(others)
            names.append(Name(kind, 1 + sum(name.kind == kind for name in names)))
        rng.shuffle(names)
        return {name: rng.choice([place for place in places if place != target.get(name.kind)]) for name in names}


def _solves(world: HouseholdWorld) -> bool:
    world.reset()
    while True:
        step = world.step(world.advice().action)
        if step.terminated or step.truncated:
            return step.terminated
