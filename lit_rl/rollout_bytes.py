"""Rollouts as bytes: tensors as safetensors, all else as JSON, so that nothing has to be trusted when it is read."""

import json
import struct
from dataclasses import asdict
from typing import Any

from safetensors.torch import load, save

from lit_rl.episodes import ROW_FIELDS, Episode, Heard, Rollouts, Turn

_GROUPS = ("field", "extras", "reward_parts")
_LENGTH = struct.Struct("<Q")  # of the JSON, which comes first


def rollouts_to_bytes(rollouts: Rollouts) -> bytes:
    """Rollouts with their episodes, whole.

    Raises:
        ValueError: The ``info`` of an episode or a turn holds what JSON does not know.
    """
    fields = {name: getattr(rollouts, name) for name in ROW_FIELDS if getattr(rollouts, name) is not None}
    named = zip(_GROUPS, (fields, rollouts.extras, rollouts.reward_parts), strict=True)
    tensors = {f"{group}/{name}": tensor for group, some in named for name, tensor in some.items()}
    facts = {
        "parties": rollouts.parties,
        "policy_version": rollouts.policy_version,
        "label": rollouts.label,
        "temperature": rollouts.temperature,
        "figures": rollouts.figures,
        "episodes": [asdict(episode) for episode in rollouts.episodes],
    }
    try:
        text = json.dumps(facts).encode()
    except TypeError as error:
        raise ValueError(
            f"An episode's info cannot be kept in a checkpoint ({error}); let info hold numbers, texts, lists and "
            "dictionaries only."
        ) from error
    return _LENGTH.pack(len(text)) + text + save({name: t.cpu().contiguous() for name, t in tensors.items()})


def rollouts_from_bytes(content: bytes) -> Rollouts:
    """What `rollouts_to_bytes` was given, on the CPU; tuples in ``info`` have become lists."""
    (length,) = _LENGTH.unpack_from(content)
    facts = json.loads(content[_LENGTH.size : _LENGTH.size + length])
    tensors: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    for name, tensor in load(content[_LENGTH.size + length :]).items():
        group, _, rest = name.partition("/")
        tensors[group][rest] = tensor
    return Rollouts(
        **facts | {"episodes": [_episode(plain) for plain in facts["episodes"]]},
        extras=tensors["extras"],
        reward_parts=tensors["reward_parts"],
        **tensors["field"],
    )


def _episode(plain: dict[str, Any]) -> Episode:
    return Episode(**plain | {"turns": [_turn(turn) for turn in plain["turns"]]})


def _turn(plain: dict[str, Any]) -> Turn:
    return Turn(**plain | {"heard": tuple(Heard(**heard) for heard in plain["heard"])})
