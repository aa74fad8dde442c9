"""Which logged dialogues the page shows.

A page holds at most ``MAX_DIALOGUES`` dialogues in at most ``MAX_BYTES`` of JSON, however long the log: the first and
the last logged batch, then the one in the middle of each gap, until one of the two bounds is reached.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lit_rl.reporting.dialogue import ShownDialogue, shown_dialogue
from lit_rl.reporting.episode_log import LoggedEpisode, RecordPlace, find_records, read_record

MAX_DIALOGUES = 300
MAX_BYTES = 3_000_000
PER_BATCH = 4
TRAIN = "train"


@dataclass(frozen=True, slots=True)
class ShownBatch:
    """The shown dialogues of one logged batch; several of one validation are one."""

    batch: int  # training batches before it
    policy_version: int
    dialogues: list[ShownDialogue]


@dataclass(frozen=True, slots=True)
class Dialogues:
    """What the page shows of an episode log: per label the batches in the order of training."""

    views: dict[str, list[ShownBatch]]
    logged: dict[str, int]  # per label, batches in the log with dialogues
    scale: float  # advantage with the strongest colour
    note: str | None = None  # why there are none, or not all


def read_dialogues(path: Path, *, max_dialogues: int = MAX_DIALOGUES, max_bytes: int = MAX_BYTES) -> Dialogues:
    """Choose and read dialogues of an episode log; a missing or damaged one gives a note and what there is."""
    if not path.exists():
        return Dialogues({}, {}, 1.0, f"There is no {path.name}: the EpisodeLog callback was not used.")
    places, note = _places(path)
    by_label: dict[str, dict[int, list[RecordPlace]]] = {}
    for place in places:
        if place.sampled:
            by_label.setdefault(place.label, {}).setdefault(place.batch, []).append(place)
    if not by_label and note is None:
        note = f"{path.name} holds no text yet." if not places else f"{path.name} was written without text."
    views = {}
    for label, share in _shares(list(by_label)).items():
        room = _Room(int(max_dialogues * share), int(max_bytes * share))
        views[label] = _chosen(list(by_label[label].values()), lambda places: _batch(path, places), room)
    return Dialogues(views, {label: len(found) for label, found in by_label.items()}, _scale(views), note)


def _places(path: Path) -> tuple[list[RecordPlace], str | None]:
    places = []
    try:
        for place in find_records(path):
            places.append(place)
    except (ValueError, KeyError, zlib.error) as error:  # the last two: a record of another version
        return places, f"Not all of {path.name} could be read ({str(error).replace(str(path), path.name)})."
    return places, None


def _shares(labels: Sequence[str]) -> dict[str, float]:
    """What part of the bounds each label gets: training half of it, or all."""
    others = [label for label in labels if label != TRAIN]
    shares = {TRAIN: 0.5 if others else 1.0} if TRAIN in labels else {}
    left = 1 - sum(shares.values())
    return shares | {label: left / len(others) for label in others}


@dataclass(slots=True)
class _Room:
    """What is left of the two bounds."""

    dialogues: int
    size: int

    def holds(self, batch: ShownBatch, times: int = 1) -> bool:
        return times * len(batch.dialogues) <= self.dialogues and times * _size(batch) <= self.size

    def take(self, batch: ShownBatch) -> None:
        self.dialogues -= len(batch.dialogues)
        self.size -= _size(batch)


def _chosen(
    batches: Sequence[list[RecordPlace]], read: Callable[[list[RecordPlace]], ShownBatch], room: _Room
) -> list[ShownBatch]:
    found: dict[int, ShownBatch] = {}
    for number in ends_then_middles(len(batches)):
        batch = read(batches[number])
        times = 1 if found or len(batches) == 1 else 2  # the first leaves as much to the last
        if not room.holds(batch, times):
            batch = replace(batch, dialogues=batch.dialogues[:1])  # before and after are worth a dialogue each
        if len(found) > 1 and not room.holds(batch):
            break
        found[number] = batch
        room.take(batch)
    return [found[number] for number in sorted(found)]


def ends_then_middles(count: int) -> Iterator[int]:
    """0, the last, then the middle of every gap, gap by gap, so that every beginning of it covers the whole range."""
    if count:
        yield 0
    if count > 1:
        yield count - 1
    gaps = [(0, count - 1)]
    while gaps:
        halves = []
        for low, high in gaps:
            middle = (low + high) // 2
            if low < middle < high:
                yield middle
                halves += [(low, middle), (middle, high)]
        gaps = halves


def as_plain(batch: ShownBatch) -> dict[str, Any]:
    """A batch as dicts and lists for JSON; of a turn only what it has."""
    plain = asdict(batch)
    for dialogue in plain["dialogues"]:
        dialogue["turns"] = [
            {name: value for name, value in turn.items() if value not in (None, "", [])} for turn in dialogue["turns"]
        ]
    return plain


def _size(batch: ShownBatch) -> int:
    """Bytes on the page, where ``<``, ``>``, ``&`` and ``'`` take six each."""
    text = json.dumps(as_plain(batch), separators=(",", ":"))
    return len(text) + 5 * sum(text.count(sign) for sign in "<>&'")


def _batch(path: Path, places: Sequence[RecordPlace]) -> ShownBatch:
    episodes: list[LoggedEpisode] = []
    for place in places:
        episodes += [episode for episode in read_record(path, place) if episode.turns][: PER_BATCH - len(episodes)]
        if len(episodes) == PER_BATCH:
            break
    return ShownBatch(places[0].batch, places[0].policy_version, [shown_dialogue(episode) for episode in episodes])


def _scale(views: dict[str, list[ShownBatch]]) -> float:
    """The greatest advantage but for the rarest two in a hundred tokens, which would pale all the others."""
    found: list[float] = []
    for batches in views.values():
        for turn in (turn for batch in batches for dialogue in batch.dialogues for turn in dialogue.turns):
            values = turn.advantages if isinstance(turn.advantages, list) else [turn.advantages]
            found += [abs(value) for value in values if value]
    return float(f"{np.quantile(found, 0.98):.2g}") if found else 1.0
