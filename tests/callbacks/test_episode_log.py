from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from lit_rl.callbacks import EpisodeLog
from lit_rl.episodes import Rollouts
from lit_rl.reporting import LoggedEpisode, read_episodes

Play = Callable[[Callable[[], L.Callback]], tuple[Path, Path]]


def test_a_killed_and_resumed_run_writes_the_same_bytes(killed_and_resumed: Play) -> None:
    whole, killed = killed_and_resumed(EpisodeLog)
    assert (whole / "episodes.bin").read_bytes() == (killed / "episodes.bin").read_bytes()


def test_the_same_when_the_bound_thins_the_log_out(killed_and_resumed: Play) -> None:
    whole, killed = killed_and_resumed(lambda: EpisodeLog(max_bytes=4000))
    data = (whole / "episodes.bin").read_bytes()
    assert data == (killed / "episodes.bin").read_bytes()
    assert len(data) <= 4000
    assert len({e.batch for e in read_episodes(whole / "episodes.bin") if e.label == "train"}) < 8


def test_every_batch_is_read_back(
    tmp_path: Path, run_fit: Callable[..., L.Trainer], batch_of: Callable[..., Rollouts]
) -> None:
    run_fit(tmp_path, [EpisodeLog(sample_size=3)], batches=4)
    episodes = list(read_episodes(tmp_path / "episodes.bin"))
    train = [e for e in episodes if e.label == "train"]
    assert [e.batch for e in train] == [number for number in range(4) for _ in range(4)]
    validation = [e for e in episodes if e.label == "teacher"]
    assert [e.batch for e in validation] == [3] * 8  # one validation of two batches, after three training batches
    check_against(train[4:8], batch_of(2))
    sampled = [e.group for e in train[4:8] if e.turns is not None]
    assert sampled == [0, 0, 1]  # one of each group first


def check_against(logged: list[LoggedEpisode], batch: Rollouts) -> None:
    assert batch.advantages is not None
    for row, episode in enumerate(logged):
        mask = batch.attention_mask[row]
        (arrays,) = episode.rows
        for name in ("input_ids", "party_ids", "turn_ids", "loss_mask"):
            np.testing.assert_array_equal(arrays[name], getattr(batch, name)[row][mask].numpy())
        np.testing.assert_array_equal(arrays["advantages"], batch.advantages[row][mask].numpy())
        np.testing.assert_allclose(arrays["old_log_probs"], batch.old_log_probs[row][mask].numpy(), rtol=1e-3)
        np.testing.assert_array_equal(episode.rewards[0], batch.rewards[row].numpy())
        assert episode.index == int(batch.episode_ids[row])
        assert episode.policy_version == batch.policy_version
        assert episode.parties == ("student", "teacher")
        if episode.turns is not None:
            assert [turn.text for turn in episode.turns] == ["ans 7", "higher", "ans 9"]
            assert episode.turns[2].info == {"correct": True, "answer": "9"}
            assert episode.turns[0].tokens is None  # the module has no tokenizer


def test_the_log_never_exceeds_its_bound(tmp_path: Path, run_fit: Callable[..., L.Trainer]) -> None:
    for max_bytes in (1024, 3000, 10_000):
        run_fit(tmp_path / str(max_bytes), [EpisodeLog(max_bytes=max_bytes)], batches=60)
        path = tmp_path / str(max_bytes) / "episodes.bin"
        if path.exists():
            assert path.stat().st_size <= max_bytes
            assert all(e.index for e in read_episodes(path))
    batches = sorted({e.batch for e in read_episodes(path) if e.label == "train"})
    assert batches[0] == 0
    gaps = np.diff(batches)
    assert gaps[0] == 1 and gaps[-1] > 1 and (np.diff(gaps) >= 0).all()  # every one, then every 2nd, then every 4th
    assert path.stat().st_size > 5000


def test_text_every(tmp_path: Path, run_fit: Callable[..., L.Trainer]) -> None:
    run_fit(tmp_path, [EpisodeLog(text_every=3)])
    with_text = {e.batch for e in read_episodes(tmp_path / "episodes.bin") if e.turns and e.label == "train"}
    assert with_text == {0, 3, 6}


def test_foreign_batches_are_refused_in_one_sentence(batch_of: Callable[..., Rollouts], tmp_path: Path) -> None:
    trainer = L.Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match="needs batches of rollouts; this one is a Tensor"):
        EpisodeLog().on_train_batch_end(trainer, L.LightningModule(), None, torch.zeros(2), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_bytes": 10}, "max_bytes is 10"), ({"sample_size": -1}, "sample_size is -1"), ({"text_every": 0}, "is 0")],
)
def test_options_are_checked(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpisodeLog(**options)
