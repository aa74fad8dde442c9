"""Counts the steps per second of each world, alone and with the episode around it that writes prompts and reads plans.

    python scripts/bench/worlds.py [--textworld]

plays the oracle's way through 200 tasks of each world, one process, one after another, as the rollout loop does;
"new" is how many tasks are drawn in a second.  With ``--textworld`` (the extra of that name) also 2 of its games, which
are compiled first, if no run has done so.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lit_rl.environments.base import Reply
from lit_rl.environments.plan_execute import PlanExecuteEpisode
from lit_rl.environments.world_prompts import WorldPrompts
from lit_rl.verification.plan_execute import render_plan_execute
from lit_rl.worlds.base import AdvisedWorld, WorldSource
from lit_rl.worlds.household import Household
from lit_rl.worlds.limits import TimeLimited
from lit_rl.worlds.textworld_games import TextWorldGames
from lit_rl.worlds.web_shop import WebShop

TASKS = 200


class Rates(NamedTuple):
    """Per second."""

    new: float
    steps: float
    limited: float
    turns: float


def worlds_of(source: WorldSource, count: int) -> list[AdvisedWorld]:
    worlds: list[AdvisedWorld] = []
    for index in range(count):
        world = source[index]
        assert isinstance(world, AdvisedWorld)
        worlds.append(world)
    return worlds


def replies_of(world: AdvisedWorld) -> list[tuple[str, str]]:
    """The oracle's subgoals and actions."""
    world.reset()
    said, over = [], False
    while not over:
        advice = world.advice()
        said.append((advice.subgoal, advice.action))
        step = world.step(advice.action)
        over = step.terminated or step.truncated
    world.close()
    return said


def step_seconds(source: WorldSource, ways: list[list[tuple[str, str]]], limited: bool) -> float:
    worlds = [TimeLimited(world) if limited else world for world in worlds_of(source, len(ways))]
    start = time.perf_counter()
    for world, way in zip(worlds, ways, strict=True):
        world.reset()
        for _, action in way:
            world.step(action)
    spent = time.perf_counter() - start
    for world in worlds:
        world.close()
    return spent


def turn_seconds(source: WorldSource, ways: list[list[tuple[str, str]]]) -> float:
    episodes = [PlanExecuteEpisode(world, prompts=WorldPrompts()) for world in worlds_of(source, len(ways))]
    texts = [[Reply(text=render_plan_execute(True, *turn)) for turn in way] for way in ways]
    start = time.perf_counter()
    for episode, replies in zip(episodes, texts, strict=True):
        episode.begin()
        for reply in replies:
            episode.act(reply)
        episode.close()
    return time.perf_counter() - start


def measure(source: WorldSource, count: int) -> Rates:
    start = time.perf_counter()
    worlds = worlds_of(source, count)
    drawn = time.perf_counter() - start
    ways = [replies_of(world) for world in worlds]
    steps = sum(map(len, ways))
    alone, limited = (step_seconds(source, ways, limit) for limit in (False, True))
    return Rates(count / drawn, steps / alone, steps / limited, steps / turn_seconds(source, ways))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--textworld", action="store_true", help="also games of TextWorld")
    arguments = parser.parse_args()
    tiny = Household(TASKS, places=4, things=4, max_turns=15, wording="short", openable=False)
    cases: dict[str, tuple[WorldSource, int]] = {
        "Household, tiny": (tiny, TASKS),
        "Household": (Household(TASKS), TASKS),
        "Household, 3 goals": (Household(TASKS, goals=3, places=10, things=12, max_turns=80), TASKS),
        "WebShop": (WebShop(TASKS), TASKS),
    }
    if arguments.textworld:
        cases["TextWorldGames"] = (TextWorldGames(2), 2)
    print("| world | new / s | steps / s | with a time limit | with prompts and parser |\n|---|---|---|---|---|")
    for name, (source, count) in cases.items():
        rates = measure(source, count)
        print(f"| {name} | {rates.new:.0f} | {rates.steps:.0f} | {rates.limited:.0f} | {rates.turns:.0f} |", flush=True)


if __name__ == "__main__":
    main()
