"""Text adventures that TextWorld makes and plays (Côté et al., 2018), offline; needs the extra ``textworld``."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from lit_rl.stream_keys import stream_key
from lit_rl.tiny import cache_folder
from lit_rl.worlds.base import Advice, Observation, Step, World

NOTHING = "Nothing happens."
_PROMPT = re.compile(r"\n\s*>.*", re.DOTALL)  # the interpreter's prompt and its status line


class TextWorldGame:
    """One game; see `TextWorldGames`.

    Args:
        path: Of the compiled game, with TextWorld's JSON beside it.
        max_turns: Turns until it is cut off.
        reward: Of winning.
    """

    def __init__(self, path: Path, *, max_turns: int, reward: float):
        textworld = _textworld()
        asked = ("admissible_commands", "objective", "won", "lost", "policy_commands", "description", "inventory")
        infos = textworld.EnvInfos(feedback=True, max_score=True, score=True, **dict.fromkeys(asked, True))
        self.env: Any = textworld.start(str(path), request_infos=infos)
        self.max_turns, self.reward, self.turn, self.task = max_turns, reward, 0, ""
        self.state: Any = None

    def reset(self) -> Observation:
        self.state = self.env.reset()
        self.task = " ".join(self.state.objective.split())
        return self._observation("")

    def step(self, action: str) -> Step:
        self.turn += 1
        known = action in self.state.admissible_commands
        if known:  # anything else might be an order to the interpreter, such as "restart" or "save"
            self.state, _, _ = self.env.step(action)
        event = said(self.state.feedback) if known else NOTHING
        won, lost = bool(self.state.won), bool(self.state.lost)
        late = self.turn >= self.max_turns and not (won or lost)
        info = {"success": won, "score": self.state.score / max(1, self.state.max_score)}
        return Step(self._observation(event), self.reward if won else 0.0, won or lost, late, info)

    def close(self) -> None:
        self.env.close()

    def advice(self) -> Advice:
        """The next command of TextWorld's own way to win; the subgoal is the next of them that is not a walk."""
        way = list(self.state.policy_commands)
        if not way:
            return Advice("win", "look")
        deed = next((command for command in way if not command.startswith("go ")), way[-1])
        return Advice(deed, way[0])

    def _observation(self, event: str) -> Observation:
        room, hand = said(self.state.description), said(self.state.inventory)
        parts = (event, "" if room in event else room, hand)
        return Observation(" ".join(filter(None, parts)), tuple(self.state.admissible_commands))


class TextWorldGames:
    """Games of TextWorld, made from a seed and compiled once, when a game is first asked for; then they are cached.

    Compiling takes seconds.  Winning pays ``success_reward``, all else 0; the share of points is ``info["score"]``.
    An action that is not admissible is not handed to the interpreter: nothing happens, and a turn is gone.  The oracle
    follows TextWorld's own way to win.

    Args:
        size: Number of games.
        seed: Of the games.
        rooms, objects, quest_length: Size of a game, as TextWorld counts.
        max_turns: Turns until a game is cut off.
        success_reward: Of winning.

    Attributes:
        ceiling: The best mean return.

    Raises:
        ValueError: An option is out of range.
        ImportError: TextWorld is not installed.
    """

    name = "TextWorldGames"

    def __init__(
        self,
        size: int = 100,
        seed: int = 0,
        *,
        rooms: int = 3,
        objects: int = 5,
        quest_length: int = 4,
        max_turns: int = 30,
        success_reward: float = 10.0,
    ):
        least = {"size": size, "rooms": rooms, "objects": objects, "quest_length": quest_length}
        for option, value in least.items():
            if value < 1:
                raise ValueError(f"TextWorldGames.{option} is {value}; it must be at least 1.")
        if max_turns < quest_length:
            raise ValueError(
                f"TextWorldGames.max_turns is {max_turns}; a quest of {quest_length} commands needs as many turns."
            )
        if not success_reward > 0:
            raise ValueError(f"TextWorldGames.success_reward is {success_reward}; success has to pay more than 0.")
        _textworld()
        self.size, self.seed, self.max_turns = size, seed, max_turns
        self.rooms, self.objects, self.quest_length = rooms, objects, quest_length
        self.ceiling = self.success_reward = success_reward

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> World:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return TextWorldGame(self._game(index), max_turns=self.max_turns, reward=self.success_reward)

    def _game(self, index: int) -> Path:
        sizes = f"{self.rooms}-{self.objects}-{self.quest_length}"
        folder = cache_folder() / "textworld" / _textworld().__version__ / f"{sizes}-{self.seed}-{index}"
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=folder.parent))
            self._compile(scratch, index)
            try:
                scratch.rename(folder)  # whole or not at all: another process may be making the same
            except OSError:
                if not folder.exists():
                    raise
                shutil.rmtree(scratch)
        return folder / "game.z8"

    def _compile(self, folder: Path, index: int) -> None:
        textworld = _textworld()
        options = textworld.GameOptions()
        options.seeds = stream_key(self.seed, self.name, index) % 2**31
        options.nb_rooms, options.nb_objects, options.quest_length = self.rooms, self.objects, self.quest_length
        options.path = str(folder / "game.z8")
        textworld.make(options)


def said(text: str | None) -> str:
    """A game's words on one line, without the interpreter's prompt.

    Example:
        >>> said("\\nYou take the spork.\\n\\n>      -= Study =-0/1")
        'You take the spork.'
    """
    return " ".join(_PROMPT.sub("", text or "").split())


def _textworld() -> Any:
    try:
        import textworld
    except ImportError as error:
        raise ImportError('TextWorldGames needs TextWorld: pip install "lit-rl[textworld]"') from error
    return textworld
