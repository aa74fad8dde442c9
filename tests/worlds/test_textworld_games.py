"""Games of TextWorld, made and played for real."""

from pathlib import Path

import pytest

from lit_rl.environments.world_demonstrations import WorldDemonstrations
from lit_rl.verification.plan_execute import parse_plan_execute
from lit_rl.worlds.base import AdvisedWorld, WorldSource
from lit_rl.worlds.textworld_games import TextWorldGames, said


def test_the_interpreters_prompt_is_cut_off() -> None:
    assert said("\n\nYou take\nthe spork.\n\n\n>    -= Study =-0/1") == "You take the spork."
    assert said(None) == ""


@pytest.mark.textworld
def test_games_are_made_won_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One game, compiled once: by the oracle's way it is won, by nonsense nothing happens until turns run out."""
    pytest.importorskip("textworld")
    monkeypatch.setenv("LIT_RL_CACHE", str(tmp_path))
    games = TextWorldGames(size=1, rooms=2, objects=3, quest_length=2, max_turns=4)
    assert isinstance(games, WorldSource)
    world = games[0]
    assert isinstance(world, AdvisedWorld)
    seen = world.reset()
    assert world.task and "$$" not in seen.text and ">" not in seen.text
    done = False
    while not done:
        advice = world.advice()
        assert advice.action in seen.admissible
        step = world.step(advice.action)
        seen, done = step.observation, step.terminated
        assert not step.truncated
    assert step.reward == games.ceiling == 10.0 and step.info == {"success": True, "score": 1.0}
    world.close()
    world.close()

    other = games[0]
    before = other.reset()
    assert other.task == world.task
    steps = [other.step(action) for action in ("restart", "", "quit", "fly")]
    assert {step.observation.text for step in steps} == {f"Nothing happens. {before.text}"}
    assert [step.truncated for step in steps] == [False, False, False, True]
    other.close()

    shown = WorldDemonstrations(games)
    replies = [parse_plan_execute(shown[i].messages[-1].content) for i in range(len(shown))]
    assert all(reply.valid for reply in replies) and replies[-1].subgoal == replies[-1].action
    assert len(list((tmp_path / "textworld").rglob("game.z8"))) == 1


@pytest.mark.textworld
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rooms": 0}, "rooms is 0"),
        ({"quest_length": 9, "max_turns": 5}, "a quest of 9 commands"),
        ({"success_reward": 0}, "success_reward is 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, int], message: str) -> None:
    pytest.importorskip("textworld")
    with pytest.raises(ValueError, match=message):
        TextWorldGames(**options)


def test_a_missing_textworld_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "textworld", None)
    with pytest.raises(ImportError, match=r'pip install "lit-rl\[textworld\]"'):
        TextWorldGames()
