"""The episode log: token-level arrays of every episode, text of some, in one append-only binary file.

The file is ``MAGIC``, then records.  A record is the length and the CRC-32 of its body (two little-endian uint32), then
the body: zlib of a container, which is the length of a JSON header (uint32), the header, and the bytes of the arrays
the header lists.  One record holds one batch.  Nothing is pickled: reading a log runs nothing.
"""

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # reading a log, as the report does, needs no torch
    from torch import Tensor

MAGIC = b"lit-rl episodes 1\n"
_FRAME = struct.Struct("<II")
_LENGTH = struct.Struct("<I")

# Per token, the padding left out: name -> type on disk.  Log-probs in half precision err by at most 0.004 above -8.
TOKEN_ARRAYS = {
    "input_ids": "<i4",
    "party_ids": "|i1",
    "turn_ids": "<i2",
    "loss_mask": "|b1",
    "old_log_probs": "<f2",
    "advantages": "<f4",
}
# Per row, of the batch's ``extras``: what a credit callback decided of a turn that is a row.
ROW_EXTRAS = ("boundary", "advantage_switch", "advantage_high", "advantage_low")


@dataclass(frozen=True, slots=True)
class LoggedTurn:
    """What one party said in a sampled episode."""

    party: str
    exchange: int
    text: str
    reward: float
    stop_reason: str
    info: Mapping[str, Any]
    tokens: tuple[str, ...] | None  # text of each sampled token; None if no tokenizer was at hand
    heard: str | None  # text inserted before it, as the party saw it; None if no tokenizer was at hand


@dataclass(frozen=True, slots=True)
class LoggedEpisode:
    """One episode as read back; ``rows`` are its training rows, each name of ``TOKEN_ARRAYS`` -> array ``(T,)``."""

    label: str  # "train" or the name of a validation condition
    batch: int  # training batches before it
    step: int  # optimizer steps before it
    policy_version: int
    parties: tuple[str, ...]
    index: int
    group: int
    rows: tuple[Mapping[str, np.ndarray], ...]
    rewards: np.ndarray  # float32 (rows, N)
    row_extras: tuple[Mapping[str, float], ...] = ()  # of each row those of ``ROW_EXTRAS`` that the batch had
    task_id: str | None = None
    stop_reason: str | None = None
    turns: tuple[LoggedTurn, ...] | None = None  # of sampled episodes only


# -- writing -----------------------------------------------------------------------------------------------------------


def batch_record(
    batch: Any, *, batch_number: int, step: int, sample_size: int, tokenizer: Any = None, label: str = "train"
) -> bytes:
    """One batch of rollouts as the bytes to append.

    Args:
        batch: Has ``input_ids``, ``attention_mask``, ``party_ids``, ``turn_ids``, ``loss_mask``, ``old_log_probs``
            ``(B, T)``, ``rewards`` ``(B, N)``, ``group_ids``, ``episode_ids`` ``(B,)``; if known ``advantages``
            ``(B, T)``, ``parties``, ``policy_version``, ``episodes`` and of ``extras`` those in ``ROW_EXTRAS``.
        batch_number: Training batches before this one.
        step: Optimizer steps taken.
        sample_size: Episodes whose text is kept, one of each group until there are enough.
        tokenizer: Makes text of token ids, as those of transformers do; None keeps text by turn only.
        label: "train" or the name of a validation condition.
    """
    arrays = _row_arrays(batch)
    header: dict[str, Any] = {
        "label": label,
        "batch": batch_number,
        "step": step,
        "policy_version": int(getattr(batch, "policy_version", 0)),
        "parties": list(getattr(batch, "parties", ())),
        "arrays": [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()],
        "samples": [_sample(e, tokenizer) for e in choose_samples(getattr(batch, "episodes", ()), sample_size)],
    }
    text = json.dumps(header, default=str, separators=(",", ":")).encode()
    body = zlib.compress(_LENGTH.pack(len(text)) + text + b"".join(a.tobytes() for a in arrays.values()), 6)
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def choose_samples(episodes: Sequence[Any], count: int) -> list[Any]:
    """The first episode of each group, then the second of each, until there are ``count``: the same in every run."""
    seen: dict[int, int] = {}
    place = []
    for number, episode in enumerate(episodes):
        seen[episode.group] = seen.get(episode.group, 0) + 1
        place.append((seen[episode.group], number))
    return [episodes[number] for _, number in sorted(place)[:count]]


def _row_arrays(batch: Any) -> dict[str, np.ndarray]:
    mask = batch.attention_mask.detach().cpu().bool()
    arrays = {"lengths": mask.sum(1).numpy().astype("<i4")}
    for name, dtype in TOKEN_ARRAYS.items():
        tensor: Tensor | None = getattr(batch, name, None)
        if tensor is not None:
            arrays[name] = tensor.detach().cpu()[mask].numpy().astype(dtype)
    for name, dtype in (("rewards", "<f4"), ("episode_ids", "<i8"), ("group_ids", "<i8")):
        arrays[name] = getattr(batch, name).detach().cpu().numpy().astype(dtype)
    extras: Mapping[str, Tensor] = getattr(batch, "extras", {})
    for name in ROW_EXTRAS:
        if name in extras:
            arrays[name] = extras[name].detach().cpu().numpy().astype("<f4")
    return arrays


def _sample(episode: Any, tokenizer: Any) -> dict[str, Any]:
    turns = []
    for turn in episode.turns:
        ids = list(turn.completion_ids)
        known = tokenizer is not None
        turns.append(
            {
                "party": turn.party,
                "exchange": turn.exchange,
                "text": turn.text,
                "reward": turn.reward,
                "stop_reason": turn.stop_reason,
                "info": dict(turn.info),
                "tokens": token_texts(ids, tokenizer) if known and ids else None,
                "heard": tokenizer.decode(turn.prompt_ids, skip_special_tokens=True) if known else None,
            }
        )
    return {
        "index": episode.index,
        "task_id": str(episode.task_id),
        "stop_reason": episode.stop_reason,
        "turns": turns,
    }


def token_texts(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """The text that each token adds, in time linear in their number.

    Decoding a token together with the one before shows the space between them, for word-level, byte-level and
    sentencepiece vocabularies alike.
    """
    texts: list[str] = []
    for number, token in enumerate(ids):
        alone = tokenizer.decode([token])
        if number:
            before = tokenizer.decode([ids[number - 1]])
            both = tokenizer.decode([ids[number - 1], token])
            alone = both[len(before) :] if both.startswith(before) else alone
        texts.append(alone)
    return texts


# -- reading -----------------------------------------------------------------------------------------------------------


def read_episodes(path: str | Path) -> Iterator[LoggedEpisode]:
    """All episodes in the order logged.  A last record torn by the end of the process is left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no episode log, or a record before the last is damaged.
    """
    for header, arrays in read_records(Path(path)):
        yield from episodes_of(header, arrays)


def read_records(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """The header and arrays of each logged batch; raises as `read_episodes`."""
    for _, body in _bodies(path):
        yield _unpack(zlib.decompress(body))


@dataclass(frozen=True, slots=True)
class RecordPlace:
    """Where one logged batch stands in the file, and what its header says."""

    offset: int
    label: str
    batch: int
    step: int
    policy_version: int
    sampled: int  # episodes with their text


def find_records(path: Path) -> Iterator[RecordPlace]:
    """The place of each logged batch, for `read_record`: arrays are not unpacked.  Raises as `read_episodes`."""
    for offset, body in _bodies(path):
        unpacker = zlib.decompressobj()
        (length,) = _LENGTH.unpack(unpacker.decompress(body, _LENGTH.size))
        header = json.loads(unpacker.decompress(unpacker.unconsumed_tail, length))
        facts = {name: header[name] for name in ("label", "batch", "step", "policy_version")}
        yield RecordPlace(offset=offset, sampled=len(header["samples"]), **facts)


def read_record(path: Path, place: RecordPlace) -> tuple[LoggedEpisode, ...]:
    """The episodes of the logged batch at ``place``."""
    with open(path, "rb") as file:
        file.seek(place.offset)
        length, _ = _FRAME.unpack(file.read(_FRAME.size))
        return tuple(episodes_of(*_unpack(zlib.decompress(file.read(length)))))


def _bodies(path: Path) -> Iterator[tuple[int, bytes]]:
    """Where each whole record begins, and its body as it is on disk."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC and not MAGIC.startswith(magic):
            raise ValueError(f"{path} is not an episode log of lit-rl: it does not begin with {MAGIC!r}.")
        while len(frame := file.read(_FRAME.size)) == _FRAME.size:
            length, checksum = _FRAME.unpack(frame)
            start = file.tell()
            body = file.read(length)
            if len(body) < length:
                return
            if zlib.crc32(body) != checksum:
                if file.tell() == size:  # the length reached the disk, not all of the body
                    return
                raise ValueError(f"{path}: the record at byte {start} is damaged; what follows cannot be trusted.")
            yield start - _FRAME.size, body


def _unpack(container: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    (length,) = _LENGTH.unpack_from(container)
    offset = _LENGTH.size + length
    header = json.loads(container[_LENGTH.size : offset])
    arrays = {}
    for name, dtype, shape in header["arrays"]:
        arrays[name] = np.frombuffer(container, dtype, math.prod(shape), offset).reshape(shape)
        offset += arrays[name].nbytes
    return header, arrays


def episodes_of(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Iterator[LoggedEpisode]:
    """The episodes of one logged batch."""
    samples = {sample["index"]: sample for sample in header["samples"]}
    ends = np.cumsum(arrays["lengths"])
    rows_of: dict[int, list[int]] = {}
    for row, index in enumerate(arrays["episode_ids"].tolist()):
        rows_of.setdefault(index, []).append(row)
    for index, rows in rows_of.items():
        tokens = [
            {n: arrays[n][ends[r] - arrays["lengths"][r] : ends[r]] for n in TOKEN_ARRAYS if n in arrays} for r in rows
        ]
        sample = samples.get(index)
        turns = None
        if sample is not None:
            turns = tuple(
                LoggedTurn(**{**turn, "tokens": None if turn["tokens"] is None else tuple(turn["tokens"])})
                for turn in sample["turns"]
            )
        yield LoggedEpisode(
            label=header["label"],
            batch=header["batch"],
            step=header["step"],
            policy_version=header["policy_version"],
            parties=tuple(header["parties"]),
            index=index,
            group=int(arrays["group_ids"][rows[0]]),
            rows=tuple(tokens),
            rewards=arrays["rewards"][rows],
            row_extras=tuple({n: float(arrays[n][r]) for n in ROW_EXTRAS if n in arrays} for r in rows),
            task_id=sample and sample["task_id"],
            stop_reason=sample and sample["stop_reason"],
            turns=turns,
        )
