"""Gymnasium environments with text observations as worlds; Gymnasium itself is not needed."""

import importlib.util
from typing import Any

import pytest

from lit_rl.environments.base import Reply
from lit_rl.environments.plan_execute import PlanExecuteEpisode
from lit_rl.verification.plan_execute import render_plan_execute
from lit_rl.worlds.base import World, WorldSource
from lit_rl.worlds.gymnasium_text import GymnasiumText


class Lights:
    """Two lamps; both have to be on.  Text or a discrete number is the action."""

    def __init__(self, mapping: bool = False, lists: bool = False):
        self.mapping, self.lists, self.closed = mapping, lists, 0

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        assert seed is not None
        self.seed, self.on = seed, [False, False]
        return self._seen(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.on[int(action)] = True
        done = all(self.on)
        return self._seen(), float(done), done, False, self._info() | {"success": done, "raw": object()}

    def close(self) -> None:
        self.closed += 1

    def _seen(self) -> Any:
        text = " ".join("on" if lamp else "off" for lamp in self.on)
        return {"text": text} if self.mapping else text

    def _info(self) -> dict[str, Any]:
        return {"listed": [str(i) for i, lamp in enumerate(self.on) if not lamp]} if self.lists else {}


def test_named_actions_of_a_discrete_environment() -> None:
    tasks = GymnasiumText(Lights, size=2, actions=["left", "right"], task="all on")
    assert isinstance(tasks, WorldSource) and tasks.name == "Lights" and len(tasks) == 2
    world = tasks[0]
    assert isinstance(world, World) and world.task == "all on"
    assert world.reset().admissible == ("left", "right")
    steps = [world.step(action) for action in ("left", "middle", "right")]
    assert [step.observation.text for step in steps] == ["on off", "Nothing happens. on off", "on on"]
    assert [step.reward for step in steps] == [0.0, 0.0, 1.0]
    assert steps[-1].terminated and steps[-1].info == {"success": True}


def test_text_actions_listed_by_the_environment_in_observations_that_are_mappings() -> None:
    tasks = GymnasiumText(lambda: Lights(True, True), text_key="text", admissible_key="listed")
    world = tasks[0]
    assert world.reset().admissible == ("0", "1") and world.task == "off off"
    assert world.step("1").observation.admissible == ("0",)
    assert world.step("1").observation.text == "Nothing happens. off on"


def test_a_whole_episode() -> None:
    world = GymnasiumText(Lights, actions=["left", "right"])[0]
    episode = PlanExecuteEpisode(world)
    episode.begin()
    episode.act(Reply(text=render_plan_execute(True, "all", "left")))
    outcome = episode.act(Reply(text=render_plan_execute(False, "all", "right")))
    assert outcome.stop_reason == "solved" and outcome.rewards == {"agent": 1.0}
    episode.close()
    assert world.env.closed == 1  # type: ignore[attr-defined]


def test_seeds_belong_to_indices() -> None:
    worlds = [GymnasiumText(Lights, seed=seed)[index] for seed, index in ((0, 0), (0, 0), (0, 1), (1, 0))]
    for world in worlds:
        world.reset()
    seeds = [world.env.seed for world in worlds]  # type: ignore[attr-defined]
    assert seeds[0] == seeds[1] and len(set(seeds)) == 3


def test_turns_run_out_also_when_nothing_happens() -> None:
    world = GymnasiumText(Lights, actions=["left", "right"], max_turns=2)[0]
    world.reset()
    assert [world.step("middle").truncated for _ in range(2)] == [False, True]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="Lights shows a dict, not text"):
        GymnasiumText(lambda: Lights(True))[0].reset()
    with pytest.raises(ValueError, match="max_turns is 0"):
        GymnasiumText(Lights, max_turns=0)
    with pytest.raises(ValueError, match=r"actions is \['a', 'a'\]"):
        GymnasiumText(Lights, actions=["a", "a"])
    with pytest.raises(IndexError):
        GymnasiumText(Lights, size=1)[1]


@pytest.mark.skipif(importlib.util.find_spec("gymnasium") is not None, reason="Gymnasium is installed")
def test_an_id_needs_gymnasium() -> None:
    with pytest.raises(ImportError, match="pip install gymnasium"):
        GymnasiumText("Lights-v0")
