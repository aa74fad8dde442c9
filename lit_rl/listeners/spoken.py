"""What a speaker said in a batch: of our rollouts, or of a plain dictionary of anybody's."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

_KEYS = ("questions", "completions", "labels")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spoken:
    """One reply to a question whose answer is one of a few labels."""

    question: str
    reply: str
    labels: Sequence[str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    identity: tuple[int | str, ...]  # of the reply in the run, for its random streams
    group: tuple[int | str, ...]  # replies to one task share it
    rows: tuple[int, ...]  # of the batch
    column: int = 0  # of the rewards


def spoken_in(batch: Any, speaker: str) -> list[Spoken]:
    """The replies of ``speaker`` in a batch with ``episodes``, or all replies of a dictionary.

    Raises:
        ValueError: The batch is neither, or lacks what listeners need to know.
    """
    if isinstance(batch, Mapping):
        return _of_dictionary(batch)
    if not getattr(batch, "episodes", None) or getattr(batch, "party_ids", None) is None:
        raise ValueError(
            f"ListenerExecution needs batches of rollouts or a dictionary with {list(_KEYS)}; this one is a "
            f"{type(batch).__name__} without episodes or party_ids."
        )
    return _of_rollouts(batch, speaker)


def _of_rollouts(batch: Any, speaker: str) -> list[Spoken]:
    if speaker not in batch.parties:
        raise ValueError(
            f"ListenerExecution: there is no party {speaker!r} in the batch, only {list(batch.parties)}; set speaker "
            "to one of them."
        )
    rows = _rows_of(batch, speaker)
    spoken = []
    for episode in batch.episodes:
        for turn in episode.turns_of(speaker):
            if missing := [name for name in ("prompt", "labels") if name not in turn.info]:
                raise ValueError(
                    f"ListenerExecution: the turn of {speaker!r} in episode {episode.index} (task {episode.task_id}) "
                    f"has no {missing[0]!r} in its info; use tasks whose answers are labels and whose meta names them."
                )
            spoken.append(
                Spoken(
                    question=turn.info["prompt"],
                    reply=turn.text,
                    labels=turn.info["labels"],
                    aliases=turn.info.get("aliases") or {},
                    options=turn.info.get("options") or {},
                    identity=(batch.label, episode.index, turn.exchange),
                    group=(batch.label, episode.group),
                    rows=rows.get(episode.index, ()),
                    column=turn.exchange,
                )
            )
    return spoken


def _rows_of(batch: Any, speaker: str) -> dict[int, tuple[int, ...]]:
    """The rows of each episode whose sampled tokens are the speaker's."""
    owner = torch.where(batch.loss_mask, batch.party_ids.long(), -1).amax(1).tolist()
    rows: dict[int, tuple[int, ...]] = {}
    for row, (index, party) in enumerate(zip(batch.episode_ids.tolist(), owner, strict=True)):
        if party == batch.parties.index(speaker):
            rows[index] = (*rows.get(index, ()), row)
    return rows


def _of_dictionary(batch: Mapping[str, Any]) -> list[Spoken]:
    if missing := [key for key in _KEYS if key not in batch]:
        raise ValueError(f"ListenerExecution: the batch has no {missing[0]!r}; a dictionary needs {list(_KEYS)}.")
    count = len(batch["completions"])
    for key in (*_KEYS, "aliases", "options", "group_ids"):
        if key in batch and len(batch[key]) != count:
            raise ValueError(
                f"ListenerExecution: the batch has {count} 'completions', but {len(batch[key])} {key!r}; give one each."
            )
    groups = [int(group) for group in batch["group_ids"]] if "group_ids" in batch else None
    seen: Counter[tuple[str, str]] = Counter()
    spoken = []
    for row, (question, reply) in enumerate(zip(batch["questions"], batch["completions"], strict=True)):
        # Nothing numbers these replies in the run: what was said does, and how often in this batch.
        identity = (question, reply, seen[question, reply])
        seen[question, reply] += 1
        spoken.append(
            Spoken(
                question=question,
                reply=reply,
                labels=batch["labels"][row],
                aliases=batch["aliases"][row] if "aliases" in batch else {},
                options=batch["options"][row] if "options" in batch else {},
                identity=identity,
                group=(question,) if groups is None else (question, groups[row]),
                rows=(row,),
            )
        )
    return spoken
