from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.reporting import read_episodes
from lit_rl.reporting.episode_log import (
    MAGIC,
    batch_record,
    choose_samples,
    find_records,
    read_record,
    token_texts,
)

WORDS = ["ans", "7", "<end>"]


class WordLevel:
    """Decodes as word-level tokenizers do: a space between words."""

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        words = [WORDS[i] for i in ids]
        return " ".join(word for word in words if not (skip_special_tokens and word.startswith("<")))


class ByteLevel:
    """Decodes as byte-level ones do: tokens carry their spaces, and a character may be two of them."""

    def decode(self, ids: list[int]) -> str:
        return b"".join([b"a", b" b", b"\xc3", b"\xa9"][i] for i in ids).decode(errors="replace")


def batch(rows: int = 2) -> Rollouts:
    """Episodes of which each has two training rows."""
    episodes = [
        Episode(
            index=i,
            task_id=f"task {i}",
            group=0,
            seed=0,
            stop_reason="max_turns",
            turns=[
                Turn(
                    party="student",
                    exchange=k,
                    text="ans 7",
                    prompt_ids=[2, 0],
                    completion_ids=[0, 1, 2],
                    log_probs=[-1.0, -2.0, 0.0],
                    new_row=True,
                    info={"kind": "answer"},
                )
                for k in range(2)
            ],
        )
        for i in range(rows)
    ]
    return Rollouts.from_episodes(episodes, trained=["student"], parties=["student"], policy_version=3)


def write(path: Path, records: int) -> bytes:
    data = MAGIC + b"".join(
        batch_record(batch(), batch_number=n, step=2 * n, sample_size=1, tokenizer=WordLevel()) for n in range(records)
    )
    path.write_bytes(data)
    return data


def test_rows_of_an_episode_come_back_together(tmp_path: Path) -> None:
    write(tmp_path / "log", 2)
    episodes = list(read_episodes(tmp_path / "log"))
    assert [(e.batch, e.step, e.index) for e in episodes] == [(0, 0, 0), (0, 0, 1), (1, 2, 0), (1, 2, 1)]
    first = episodes[0]
    assert len(first.rows) == 2 and first.rewards.shape == (2, 2)
    np.testing.assert_array_equal(first.rows[1]["input_ids"], [2, 0, 0, 1, 2])
    np.testing.assert_array_equal(first.rows[1]["old_log_probs"], [0, 0, -1, -2, 0])
    assert "advantages" not in first.rows[0]  # there were none
    assert first.policy_version == 3 and first.stop_reason == "max_turns"
    assert first.turns is not None
    assert first.turns[1].tokens == ("ans", " 7", " <end>")
    assert first.turns[1].heard == "ans"
    assert episodes[1].turns is None  # not sampled


def test_a_torn_log_gives_everything_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = write(path, 1)
    whole = len(data)
    data = write(path, 2)
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        expected = 0 if size < whole else 2 if size < len(data) else 4
        assert len(list(read_episodes(path))) == expected
    path.write_bytes(data[:-4] + b"\0\0\0\0")  # the length reached the disk, the end of the body did not
    assert len(list(read_episodes(path))) == 2


def test_damage_and_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = bytearray(write(path, 2))
    data[60] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="the record at byte 26 is damaged"):
        list(read_episodes(path))
    path.write_bytes(b"PK\x03\x04 something else entirely")
    with pytest.raises(ValueError, match="is not an episode log"):
        list(read_episodes(path))
    with pytest.raises(FileNotFoundError):
        list(read_episodes(tmp_path / "none"))


def test_token_texts_join_to_the_text() -> None:
    assert token_texts([0, 1, 2], WordLevel()) == ["ans", " 7", " <end>"]
    assert token_texts([0, 1, 1], ByteLevel()) == ["a", " b", " b"]
    assert token_texts([0, 2, 3, 0], ByteLevel())[-1] == "a"  # half a character confuses nothing after it


def test_samples_come_from_different_groups_first() -> None:
    episodes = [SimpleNamespace(group=g, index=i) for i, g in enumerate([5, 5, 5, 6, 6])]
    assert [e.index for e in choose_samples(episodes, 4)] == [0, 3, 1, 4]
    assert choose_samples(episodes, 0) == []
    assert len(choose_samples(episodes, 99)) == 5


def test_records_are_found_and_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 3)
    places = list(find_records(path))
    assert [(p.label, p.batch, p.step, p.policy_version, p.sampled) for p in places] == [
        ("train", 0, 0, 3, 1), ("train", 1, 2, 3, 1), ("train", 2, 4, 3, 1)
    ]  # fmt: skip
    whole = list(read_episodes(path))
    alone = [episode for place in reversed(places) for episode in read_record(path, place)]
    assert [(e.batch, e.index, e.turns) for e in alone] == [
        (e.batch, e.index, e.turns) for e in whole[4:] + whole[2:4] + whole[:2]
    ]
    np.testing.assert_array_equal(alone[0].rows[1]["old_log_probs"], whole[4].rows[1]["old_log_probs"])
