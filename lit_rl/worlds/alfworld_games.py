"""ALFWorld's text games (Shridhar et al., 2021) as worlds; needs the extra ``alfworld`` and the games.

``pip install "lit-rl[alfworld]"``, then ``alfworld-download`` once; the games lie below ``json_2.1.1/train`` and its
neighbours ``valid_seen`` and ``valid_unseen`` in the folder that it names.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_rl.worlds.base import Observation, Step, World
from lit_rl.worlds.household_rules import FAMILIES, Family
from lit_rl.worlds.textworld_games import NOTHING, said

GAME = "game.tw-pddl"
_TASK, _WELCOME = "Your task is to:", "-= Welcome to TextWorld, ALFRED! =-"
_FAMILIES: Mapping[str, Family] = {  # by how the folder of a game begins
    "pick_and_place_simple": "pick",
    "look_at_obj_in_light": "look",
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
    "pick_two_obj_and_place": "pick_two",
}


class AlfworldGame:
    """One game; see `AlfworldGames`.

    Args:
        env: Of TextWorld, loaded with the game.
        family: Which kind of task it is.
        max_turns: Turns until it is cut off.
        reward: Of success.
    """

    def __init__(self, env: Any, *, family: str, max_turns: int, reward: float):
        self.env, self.family, self.max_turns, self.reward = env, family, max_turns, reward
        self.turn, self.task = 0, ""
        self._admissible: tuple[str, ...] = ()

    def reset(self) -> Observation:
        state = self.env.reset()
        room, _, task = said(state.feedback).partition(_TASK)
        self.task = task.strip()
        return self._observation(room.removeprefix(_WELCOME).strip(), state)

    def step(self, action: str) -> Step:
        self.turn += 1
        state, _, done = self.env.step(action)
        won = bool(state.won)
        ended = won or bool(done)
        info = {"success": won, "family": self.family}
        seen = self._observation(said(state.feedback) or NOTHING, state)
        return Step(seen, self.reward if won else 0.0, ended, not ended and self.turn >= self.max_turns, info)

    def close(self) -> None:
        self.env.close()

    def _observation(self, text: str, state: Any) -> Observation:
        return Observation(text, tuple(command for command in state.admissible_commands if command != "help"))


class AlfworldGames:
    """The games below a folder that can be solved, in the order of their paths.

    Success pays ``success_reward``, all else 0, as published.

    Args:
        folder: Such as ``json_2.1.1/train``.
        families: Which kinds of task.
        max_turns: Turns until a game is cut off; 50 as published.
        success_reward: 10 as published.

    Attributes:
        ceiling: The best mean return.

    Raises:
        ValueError: No such games, an unknown family, or a number out of range.
    """

    name = "AlfworldGames"

    def __init__(
        self,
        folder: str,
        *,
        families: Sequence[Family] = FAMILIES,
        max_turns: int = 50,
        success_reward: float = 10.0,
    ):
        if not families or not set(families) <= set(FAMILIES):
            raise ValueError(f"AlfworldGames.families is {list(families)}; give some of {list(FAMILIES)}.")
        if max_turns < 1:
            raise ValueError(f"AlfworldGames.max_turns is {max_turns}; it must be at least 1.")
        if not success_reward > 0:
            raise ValueError(f"AlfworldGames.success_reward is {success_reward}; success has to pay more than 0.")
        self.max_turns, self.families = max_turns, tuple(families)
        self.ceiling = self.success_reward = success_reward
        self.games = [path for path in sorted(Path(folder).rglob(GAME)) if self._wanted(path)]
        if not self.games:
            raise ValueError(
                f"AlfworldGames.folder {folder!r} has no solvable {GAME} of these families; run alfworld-download and "
                "give its json_2.1.1/train."
            )

    def __len__(self) -> int:
        return len(self.games)

    def __getitem__(self, index: int) -> World:
        if not 0 <= index < len(self):
            raise IndexError(index)
        path = self.games[index]
        return AlfworldGame(
            _started(path), family=str(family_of(path)), max_turns=self.max_turns, reward=self.success_reward
        )

    def _wanted(self, path: Path) -> bool:
        return family_of(path) in self.families and bool(json.loads(path.read_text()).get("solvable"))


def family_of(game: Path) -> Family | None:
    """The kind of task by the name of a folder, as in ``pick_two_obj_and_place-Mug-None-Shelf-10/trial/game.tw-pddl``.

    Movable receptacles and the other kinds of tasks ALFWorld leaves out give None.
    """
    return _FAMILIES.get(game.parent.parent.name.split("-")[0])


def _started(game: Path) -> Any:
    try:
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    except ImportError as error:
        raise ImportError('AlfworldGames needs ALFWorld: pip install "lit-rl[alfworld]"') from error
    infos = textworld.EnvInfos(feedback=True, won=True, admissible_commands=True)
    return textworld.start(str(game), request_infos=infos, wrappers=[AlfredDemangler])
