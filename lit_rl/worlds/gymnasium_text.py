"""Any environment with the interface of Gymnasium whose observations are text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lit_rl.stream_keys import stream_key
from lit_rl.worlds.base import Observation, Step, World

NOTHING = "Nothing happens."


class GymnasiumWorld:
    """One episode of a Gymnasium environment; see `GymnasiumText`.

    Args:
        env: With ``reset(seed=...)`` and ``step(action)`` as in Gymnasium.
        seed: Of the episode.
        task: What is to be done; None takes the first observation, for prompts do not grow.
        actions: Names of a discrete environment's actions, in their order; None hands over the agent's text.
        text_key: Where the text is in observations that are mappings.
        admissible_key: Where ``info`` lists admissible actions, if it does.
        max_turns: Turns until the episode is cut off.
    """

    def __init__(
        self,
        env: Any,
        *,
        seed: int,
        task: str | None,
        actions: Sequence[str] | None,
        text_key: str | None,
        admissible_key: str,
        max_turns: int,
    ):
        self.env, self.seed, self.task, self.actions = env, seed, task or "", actions
        self.text_key, self.admissible_key, self.max_turns = text_key, admissible_key, max_turns
        self._task_is_seen = task is None
        self._seen = Observation("")
        self.turn = 0

    def reset(self) -> Observation:
        seen, info = self.env.reset(seed=self.seed)
        self._seen = self._observation(seen, info)
        if self._task_is_seen:
            self.task = self._seen.text
        return self._seen

    def step(self, action: str) -> Step:
        self.turn += 1
        late = self.turn >= self.max_turns
        if not action or (self._seen.admissible and action not in self._seen.admissible):
            refused = Observation(f"{NOTHING} {self._seen.text}", self._seen.admissible)
            return Step(refused, truncated=late)
        taken = action if self.actions is None else self.actions.index(action)
        seen, reward, terminated, truncated, info = self.env.step(taken)
        self._seen = self._observation(seen, info)
        late = late and not terminated
        return Step(self._seen, float(reward), bool(terminated), bool(truncated) or late, _facts(info))

    def close(self) -> None:
        self.env.close()

    def _observation(self, seen: Any, info: Mapping[str, Any]) -> Observation:
        text = seen if self.text_key is None else seen[self.text_key]
        if not isinstance(text, str):
            raise ValueError(
                f"{type(self.env).__name__} shows a {type(text).__name__}, not text; for observations that are "
                "mappings set text_key."
            )
        listed = info.get(self.admissible_key, self.actions or ())
        return Observation(text, tuple(str(action) for action in listed))


class GymnasiumText:
    """Episodes of one Gymnasium text environment, episode ``i`` always from the same seed.

    What an environment's ``info`` says in plain types is kept; ``success`` should be among it.  An action that is not
    listed is not handed on: nothing happens, and a turn is gone.

    Args:
        env: Id of a registered environment, for which Gymnasium has to be installed, or whatever makes a new one.
        size: Number of episodes that count as tasks.
        seed: Of the episodes' seeds.
        task, actions, text_key, admissible_key, max_turns: As in `GymnasiumWorld`.

    Raises:
        ValueError: An option is out of range.
        ImportError: An id, and Gymnasium is not installed.
    """

    def __init__(
        self,
        env: str | Callable[[], Any],
        size: int = 1000,
        seed: int = 0,
        *,
        task: str | None = None,
        actions: Sequence[str] | None = None,
        text_key: str | None = None,
        admissible_key: str = "admissible_actions",
        max_turns: int = 50,
    ):
        for option, value in (("size", size), ("max_turns", max_turns)):
            if value < 1:
                raise ValueError(f"GymnasiumText.{option} is {value}; it must be at least 1.")
        if actions is not None and (not actions or len(set(actions)) < len(actions)):
            raise ValueError(f"GymnasiumText.actions is {list(actions)}; give each action a name of its own, or None.")
        self.name = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
        self.make = _maker(env) if isinstance(env, str) else env
        self.size, self.seed, self.task, self.actions, self.text_key = size, seed, task, actions, text_key
        self.admissible_key, self.max_turns = admissible_key, max_turns

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> World:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return GymnasiumWorld(
            self.make(),
            seed=stream_key(self.seed, self.name, index) % 2**31,
            task=self.task,
            actions=self.actions,
            text_key=self.text_key,
            admissible_key=self.admissible_key,
            max_turns=self.max_turns,
        )


def _maker(name: str) -> Callable[[], Any]:
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError(f"GymnasiumText needs Gymnasium to make {name!r}: pip install gymnasium") from error
    return lambda: gymnasium.make(name)


def _facts(info: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in info.items() if isinstance(value, bool | int | float | str)}
