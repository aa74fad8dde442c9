"""Worlds that hang or raise: interrupted, dropped and counted."""

import signal
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from lit_rl.environments.plan_execute import PlanExecuteEpisode
from lit_rl.environments.world_prompts import WorldPrompts
from lit_rl.parties import PolicyParty
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.rollout import EnvironmentFailure, Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from lit_rl.worlds.base import Observation, Step, WorldFailure
from lit_rl.worlds.limits import TimeLimited, time_limit


class Sleepy:
    """Hangs, catching what it can, or raises, or is well."""

    task = "wait"

    def __init__(self, how: str):
        self.how, self.closed = how, False

    def reset(self) -> Observation:
        self.nap("reset")
        return Observation("here", ("a",))

    def step(self, action: str) -> Step:
        self.nap("step")
        return Step(Observation("here", ("a",)), 1.0, terminated=True, info={"success": True})

    def nap(self, where: str) -> None:
        if self.how == f"raise in {where}":
            raise OSError("broken")
        while self.how == f"hang in {where}":
            with suppress(Exception):
                time.sleep(0.01)

    def close(self) -> None:
        self.closed = True


def limited(how: str) -> TimeLimited:
    return TimeLimited(Sleepy(how), step_seconds=0.1, reset_seconds=0.1)


def test_a_hanging_call_is_interrupted() -> None:
    start = time.monotonic()
    with pytest.raises(WorldFailure, match=r"Sleepy.reset\(\) took longer than 0.1 seconds"):
        limited("hang in reset").reset()
    with pytest.raises(WorldFailure, match=r"Sleepy.step\('a'\) took longer"):
        limited("hang in step").step("a")
    assert time.monotonic() - start < 5
    assert limited("well").step("a").reward == 1.0 and limited("well").task == "wait"
    with pytest.raises(OSError, match="broken"):
        limited("raise in step").step("a")


def test_a_timer_set_before_goes_on() -> None:
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    outer = signal.setitimer(signal.ITIMER_REAL, 0.15)
    try:
        with time_limit(5.0, "nothing"):
            time.sleep(0.01)
        assert not rung and 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 0.15
        time.sleep(0.3)
        assert rung
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)
        signal.signal(signal.SIGALRM, before)


def test_other_threads_are_told() -> None:
    said: list[str] = []

    def work() -> None:
        try:
            limited("well").reset()
        except WorldFailure as failure:
            said.append(str(failure))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "only the main thread" in said[0]


@pytest.mark.parametrize("option", ["step_seconds", "reset_seconds"])
def test_limits_are_above_zero(option: str) -> None:
    with pytest.raises(ValueError, match=f"TimeLimited.{option} is 0"):
        TimeLimited(Sleepy("well"), **{option: 0})


@pytest.fixture(scope="module")
def policy() -> Policy:
    words = ["task", "taken", "1", "wait", "now", "here", "can", "a", "subgoal", "None", "saw", "did"]
    return Policy(PolicyConfig(tiny=TinyModel(words=words, hidden_size=16, layers=1, heads=2, max_length=64)))


def rollout(policy: Policy, how: list[str], on_error: Any) -> tuple[Any, list[Sleepy]]:
    worlds = [Sleepy(one) for one in how]
    limits = [TimeLimited(world, step_seconds=0.1, reset_seconds=0.1) for world in worlds]
    episodes = [PlanExecuteEpisode(world, prompts=WorldPrompts(style="short")) for world in limits]
    planned = [Planned(environment=e, index=i, task_id=str(i), group=i) for i, e in enumerate(episodes)]
    parties = {"agent": PolicyParty(adapter="agent", settings=SamplingSettings(max_tokens=4))}
    played = play(planned, parties, policy, seed=0, on_error=on_error)
    return played, worlds


def test_such_episodes_are_dropped_and_counted_and_their_worlds_closed(policy: Policy) -> None:
    how = ["well", "hang in step", "raise in step", "hang in reset", "raise in reset", "well"]
    played, worlds = rollout(policy, how, "drop")
    assert [episode.index for episode in played.episodes] == [0, 5]
    assert [episode.turns[0].reward for episode in played.episodes] == [1.0, 1.0]
    assert len(played.dropped) == 4 and any("took longer than 0.1" in sentence for sentence in played.dropped)
    assert all(world.closed for world in worlds)
    with pytest.raises(EnvironmentFailure, match="took longer"):
        rollout(policy, ["hang in step"], "stop")


class Wordy(Sleepy):
    """Its second observation fills a tiny model's context."""

    def step(self, action: str) -> Step:
        return Step(Observation("a " * 70))


def test_a_prompt_that_does_not_fit_cuts_the_episode(policy: Policy) -> None:
    episode = PlanExecuteEpisode(Wordy("well"), prompts=WorldPrompts(style="short"))
    plan = Planned(environment=episode, index=0, task_id="0", group=0)
    parties = {"agent": PolicyParty(adapter="agent", settings=SamplingSettings(max_tokens=4))}
    (cut,) = play([plan], parties, policy, seed=0).episodes
    assert (cut.stop_reason, cut.truncated, cut.terminated, len(cut.turns)) == ("context_full", True, False, 1)


def test_an_episode_of_one_turn_and_its_facts(policy: Policy) -> None:
    """hiper.md 2.6: the facts of shaping are in the turn, and no penalty is in its reward."""
    played, _ = rollout(policy, ["well"], "stop")
    (turn,) = played.episodes[0].turns
    names = {
        "switch",
        "subgoal",
        "action",
        "valid",
        "boundary",
        "admissible",
        "keep_mismatch",
        "observation",
        "success",
    }
    assert set(turn.info) == names and turn.new_row and turn.reward == 1.0
    assert (turn.info["valid"], turn.info["boundary"]) == (False, True)
