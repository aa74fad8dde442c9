"""The household: six families, an oracle that solves all, seeds, sizes, prompts of a tiny model's size."""

from collections import Counter
from random import Random

import pytest

from lit_rl.environments.base import Reply
from lit_rl.environments.plan_execute import PlanExecuteEpisode
from lit_rl.environments.world_prompts import WorldPrompts
from lit_rl.verification.plan_execute import render_plan_execute
from lit_rl.worlds.base import World, WorldSource
from lit_rl.worlds.household import Household, HouseholdWorld
from lit_rl.worlds.household_rules import FAMILIES, Goal, House, Name

TINY = {"places": 4, "things": 4, "max_turns": 15, "wording": "short", "openable": False}
LONG = {**TINY, "places": 6, "things": 8, "goals": 3, "max_turns": 40}
SIZES = {"full": {}, "tiny": TINY, "long": LONG, "long full": {"goals": 2, "places": 12, "things": 20, "max_turns": 90}}


def solve(world: HouseholdWorld) -> list[tuple[str, str]]:
    """What the oracle does, with what it then sees; checks that each of its actions is admissible."""
    seen, done = world.reset(), []
    while True:
        action = world.advice().action
        assert action in seen.admissible
        step = world.step(action)
        seen = step.observation
        done.append((action, seen.text))
        assert step.reward == (10.0 if step.terminated else 0.0) and step.info["success"] == step.terminated
        if step.terminated:
            return done
        assert not step.truncated


@pytest.mark.parametrize("size", SIZES)
def test_the_oracle_solves_every_task_of_every_family(size: str) -> None:
    tasks = Household(size=60, seed=3, **SIZES[size])
    assert isinstance(tasks, WorldSource) and isinstance(tasks[0], World)
    families = Counter()
    for index in range(len(tasks)):
        world = tasks[index]
        assert isinstance(world, HouseholdWorld)
        assert len(solve(world)) <= world.max_turns
        families[world.family.split("+")[0]] += 1
    assert families == dict.fromkeys(FAMILIES, 10)


def test_a_task_is_the_same_each_time_and_seeds_differ() -> None:
    first, again, other = (solve(Household(size=9, seed=seed, **TINY)[4]) for seed in (0, 0, 1))
    assert first == again != other
    tasks = Household(size=9, **TINY)
    solve(tasks[4])
    assert solve(tasks[4]) == first, "an index gives a new world, whatever was done in another"


def world_of(family: str, **facts: object) -> HouseholdWorld:
    """A mug and a pen on a desk, and all that could be needed."""
    names = [Name(kind) for kind in ("desk", "drawer", "sink", "microwave", "fridge", "lamp")]
    things = {Name("mug"): names[0], Name("pen"): names[0], Name("mug", 2): names[0]}
    drawer = frozenset({names[1]})
    goal = Goal(family, "mug", None if family == "look" else names[1])
    options = {"max_turns": 20, "wording": "full", "reward": 10.0} | facts
    return HouseholdWorld(House(tuple(names), things, drawer, set(drawer)), (goal,), **options)


GET, STORE = ["go to desk 1", "take mug 1 from desk 1"], ["go to drawer 1", "open drawer 1", "move mug 1 to drawer 1"]
TREAT = {
    "clean": ["go to sink 1", "clean mug 1 with sink 1"],
    "heat": ["go to microwave 1", "heat mug 1 with microwave 1"],
    "cool": ["go to fridge 1", "cool mug 1 with fridge 1"],
}


def run(world: HouseholdWorld, actions: list[str]) -> list[bool]:
    world.reset()
    return [world.step(action).terminated for action in actions]


@pytest.mark.parametrize("family", FAMILIES)
def test_goals_by_hand(family: str) -> None:
    """Each family ends with the one action that completes it, and not without what it is about."""
    world = world_of(family)
    if family == "look":
        assert run(world, ["go to lamp 1", "use lamp 1", *GET, "go to lamp 1", "use lamp 1"]) == [False] * 5 + [True]
        return
    ways = {"pick": [*GET, *STORE], "pick_two": [*GET, *STORE, "go to desk 1", "take mug 2 from desk 1"]}
    ways["pick_two"] += ["go to drawer 1", "move mug 2 to drawer 1"]
    way = ways[family] if family in ways else [*GET, *TREAT[family], *STORE]
    assert run(world, way) == [False] * (len(way) - 1) + [True]
    if family != "pick":
        assert not any(run(world_of(family), [*GET, *STORE]))


def test_the_last_treatment_counts() -> None:
    assert not any(run(world_of("clean"), [*GET, *TREAT["clean"], *TREAT["heat"], *STORE]))


def test_closed_places_show_and_take_nothing() -> None:
    world = world_of("pick")
    run(world, [*GET, "go to drawer 1"])
    step = world.step("move mug 1 to drawer 1")
    assert step.observation.text == "Nothing happens. drawer 1 is closed. You hold a mug 1."
    assert (
        "open drawer 1" in step.observation.admissible and "move mug 1 to drawer 1" not in step.observation.admissible
    )


def test_inadmissible_actions_change_nothing_and_cost_a_turn() -> None:
    world = world_of("pick", max_turns=3)
    before = world.reset()
    steps = [world.step(action) for action in ("fly", "", "take mug 1 from desk 1")]
    assert {step.observation.admissible for step in steps} == {before.admissible}
    assert [step.truncated for step in steps] == [False, False, True] and not any(step.terminated for step in steps)


@pytest.mark.parametrize("size", SIZES)
def test_every_admissible_action_changes_what_can_be_seen(size: str) -> None:
    """Random walks: no listed action is refused; "use" alone may change nothing."""
    rng = Random(0)
    for world in map(Household(size=6, **SIZES[size]).__getitem__, range(6)):
        seen = world.reset()
        for _ in range(30):
            assert len(set(seen.admissible)) == len(seen.admissible)
            action = rng.choice(seen.admissible)
            step = world.step(action)
            assert "othing happens" not in step.observation.text
            assert action.startswith("use") or (step.observation.text, step.observation.admissible) != (
                seen.text,
                seen.admissible,
            )
            seen = step.observation
            if step.terminated:
                break


def test_tiny_prompts_have_at_most_64_words() -> None:
    """With the chat template's three tokens; random walks see worse prompts than the oracle."""
    rng, longest = Random(1), 0
    tasks, prompts = Household(size=60, **TINY), WorldPrompts(style="short", history_length=1)
    for index in range(60):
        episode = PlanExecuteEpisode(tasks[index], prompts=prompts)
        outcome = episode.begin()
        while (ask := outcome.ask) is not None:
            longest = max(longest, 3 + len(ask.messages[0].content.split()))
            action = rng.choice(episode.observation.admissible)
            outcome = episode.act(Reply(text=render_plan_execute(True, "find mug", action)))
    assert 45 < longest <= 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"places": 1}, "Household.places is 1; it must be at least 2"),
        ({"families": ["pick", "eat"]}, r"families is \['pick', 'eat'\]"),
        ({"families": []}, r"families is \[\]"),
        ({"wording": "long"}, "wording is 'long'"),
        ({"wording": "short", "places": 11}, "places is 11; with short words there are 10"),
        ({"goals": 9, "things": 18}, "goals is 9; with such families it can be at most 4"),
        ({"things": 1}, "things is 1; it must be at least 2"),
        ({"max_turns": 2}, "max_turns is 2; the oracle solves no task of family"),
        ({"success_reward": 0.0}, "success_reward is 0.0"),
        ({"size": 0}, "size is 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Household(**options)


def test_indices_beyond_the_tasks() -> None:
    with pytest.raises(IndexError):
        Household(size=3)[3]
