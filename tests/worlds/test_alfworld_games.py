"""The adapter of ALFWorld: finding games and reading what its engine says; no game is downloaded."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lit_rl.worlds.alfworld_games import AlfworldGame, AlfworldGames, family_of
from lit_rl.worlds.base import World, WorldSource


class Engine:
    """Says what ALFWorld's engine says in a game of two steps."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.closed = False

    def reset(self) -> SimpleNamespace:
        feedback = (
            "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, "
        )
        return self._state(f"{feedback}you see a shelf 1.\n\nYour task is to: put a mug in shelf.")

    def step(self, command: str) -> tuple[SimpleNamespace, float, bool]:
        self.commands.append(command)
        state = self._state("You arrive at shelf 1.\nOn the shelf 1, you see nothing.")
        state.won = command == "win"
        return state, float(state.won), state.won

    def close(self) -> None:
        self.closed = True

    def _state(self, feedback: str) -> SimpleNamespace:
        return SimpleNamespace(feedback=feedback, won=False, admissible_commands=["go to shelf 1", "help", "look"])


def game(max_turns: int = 3) -> AlfworldGame:
    return AlfworldGame(Engine(), family="pick", max_turns=max_turns, reward=10.0)


def test_a_game_by_hand() -> None:
    """The task leaves the first observation for every prompt, and "help" is not listed (hiper.md 2.2)."""
    world = game()
    assert isinstance(world, World)
    seen = world.reset()
    assert seen.text == "You are in the middle of a room. Looking quickly around you, you see a shelf 1."
    assert world.task == "put a mug in shelf." and seen.admissible == ("go to shelf 1", "look")
    step = world.step("go to shelf 1")
    assert step.observation.text == "You arrive at shelf 1. On the shelf 1, you see nothing."
    assert (step.reward, step.terminated, step.info) == (0.0, False, {"success": False, "family": "pick"})
    last = world.step("win")
    assert (last.reward, last.terminated, last.truncated, last.info["success"]) == (10.0, True, False, True)
    world.close()
    assert world.env.closed


def test_running_out_of_turns_is_a_truncation() -> None:
    world = game(max_turns=1)
    world.reset()
    step = world.step("look")
    assert (step.truncated, step.terminated) == (True, False)


def write(folder: Path, task: str, solvable: bool = True) -> Path:
    path = folder / f"{task}-Mug-None-Shelf-10" / "trial_1" / "game.tw-pddl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"solvable": solvable}))
    return path


def test_games_are_found(tmp_path: Path) -> None:
    kept = [write(tmp_path, task) for task in ("look_at_obj_in_light", "pick_two_obj_and_place")]
    write(tmp_path, "pick_and_place_with_movable_recep")
    write(tmp_path, "pick_and_place_simple", solvable=False)
    games = AlfworldGames(str(tmp_path))
    assert isinstance(games, WorldSource) and games.games == kept
    assert [family_of(path) for path in kept] == ["look", "pick_two"]
    assert AlfworldGames(str(tmp_path), families=["look"]).games == kept[:1]


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="has no solvable game.tw-pddl"):
        AlfworldGames(str(tmp_path))
    with pytest.raises(ValueError, match=r"families is \['eat'\]"):
        AlfworldGames(str(tmp_path), **{"families": ["eat"]})
    with pytest.raises(ValueError, match="max_turns is 0"):
        AlfworldGames(str(tmp_path), max_turns=0)
    with pytest.raises(ValueError, match="success_reward is 0"):
        AlfworldGames(str(tmp_path), success_reward=0)
    write(tmp_path, "look_at_obj_in_light")
    monkeypatch.setitem(sys.modules, "alfworld", None)
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(ImportError, match=r'pip install "lit-rl\[alfworld\]"'):
        AlfworldGames(str(tmp_path))[0]
