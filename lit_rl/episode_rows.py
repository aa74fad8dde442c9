"""From finished episodes to training rows: their fields, what each row holds, and padding."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_rl.turns import Episode, Turn

# Field name -> (dtype, dimensions): "BT" tokens, "BN" turns, "B" rows.
ROW_FIELDS: dict[str, tuple[torch.dtype, str]] = {
    "input_ids": (torch.int64, "BT"),
    "attention_mask": (torch.bool, "BT"),
    "party_ids": (torch.int8, "BT"),
    "loss_mask": (torch.bool, "BT"),
    "turn_ids": (torch.int16, "BT"),
    "old_log_probs": (torch.float32, "BT"),
    "ref_log_probs": (torch.float32, "BT"),
    "values": (torch.float32, "BT"),
    "advantages": (torch.float32, "BT"),
    "returns": (torch.float32, "BT"),
    "target_mask": (torch.bool, "BT"),
    "target_weights": (torch.float32, "BT"),
    "constraint_states": (torch.int32, "BT"),
    "rewards": (torch.float32, "BN"),
    "turn_valid": (torch.bool, "BN"),
    "group_ids": (torch.int64, "B"),
    "episode_ids": (torch.int64, "B"),
    "terminated": (torch.bool, "B"),
    "truncated": (torch.bool, "B"),
}
REQUIRED: tuple[str, ...] = ("input_ids", "attention_mask", "party_ids", "loss_mask", "turn_ids", "old_log_probs")
REQUIRED += ("rewards", "turn_valid", "group_ids", "episode_ids", "terminated", "truncated")
# What stands in padding and outside; 0 in fields that are not named.
FILL = {"party_ids": -1, "turn_ids": -1, "constraint_states": -1}


def padded(rows: Sequence[Sequence[Any]], length: int, fill: Any, dtype: torch.dtype) -> Tensor:
    """Rows of any lengths, filled up on the right, ``(B, length)``."""
    return torch.tensor([[*row, *([fill] * (length - len(row)))] for row in rows], dtype=dtype)


def rows_of(
    episode: Episode, trained: Sequence[str], parties: Sequence[str], offsets: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """The training rows of one episode as plain lists."""
    number = {name: i for i, name in enumerate(parties)}
    exchanges = 1 + max((turn.exchange for turn in episode.turns), default=0)
    for party in trained:
        rewards, valid = [0.0] * exchanges, [False] * exchanges
        for turn in episode.turns_of(party):
            rewards[turn.exchange] += turn.reward
            valid[turn.exchange] = True
        row: dict[str, Any] | None = None
        for turn in episode.turns:
            if turn.party != party:
                continue
            if row is None or turn.new_row:
                if row is not None:
                    yield row
                row = {name: [] for name, (_, d) in ROW_FIELDS.items() if d == "BT" and name in _BUILT}
                row |= {"rewards": rewards, "turn_valid": valid, "group_ids": episode.group}
                row |= {"episode_ids": episode.index}
                row |= {"terminated": episode.terminated, "truncated": episode.truncated}
            _append(row, turn, number, offsets.get(turn.constraint or "", 0))
        if row is not None:
            yield row


_BUILT = ("input_ids", "attention_mask", "party_ids", "loss_mask", "turn_ids", "old_log_probs", "constraint_states")


def _append(row: dict[str, Any], turn: Turn, number: Mapping[str, int], offset: int) -> None:
    prompt, said = len(turn.prompt_ids), len(turn.completion_ids)
    who, when = [-1] * prompt, [-1] * prompt
    for span in turn.heard:
        who[span.start : span.stop] = [number[span.party]] * (span.stop - span.start)
        when[span.start : span.stop] = [span.exchange] * (span.stop - span.start)
    states = [offset + state for state in turn.constraint_states] if turn.constraint else [-1] * said
    row["input_ids"] += turn.prompt_ids + turn.completion_ids
    row["attention_mask"] += [True] * (prompt + said)
    row["party_ids"] += who + [number[turn.party]] * said
    row["loss_mask"] += [False] * prompt + [True] * said
    row["turn_ids"] += when + [turn.exchange] * said
    row["old_log_probs"] += [0.0] * prompt + turn.log_probs
    row["constraint_states"] += [-1] * prompt + states
