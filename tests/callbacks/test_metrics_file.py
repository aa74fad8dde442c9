import json
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest

from lit_rl.callbacks import MetricsFile
from lit_rl.reporting.run_files import AppendOnlyFile, json_line, offset_of_line, read_json_lines

Play = Callable[[Callable[[], L.Callback]], tuple[Path, Path]]


def test_a_killed_and_resumed_run_writes_the_same_bytes(killed_and_resumed: Play) -> None:
    whole, killed = killed_and_resumed(MetricsFile)
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    heads = [
        [(line["step"], line["batch"], line["stage"]) for line in read_json_lines(folder / "timings.jsonl")]
        for folder in (whole, killed)
    ]
    assert heads[0] == heads[1]


def test_lines(tmp_path: Path, run_fit: Callable[..., L.Trainer]) -> None:
    run_fit(tmp_path, [MetricsFile()])
    lines = list(read_json_lines(tmp_path / "metrics.jsonl"))
    stages = [line["stage"] for line in lines]
    assert stages == ["train"] * 3 + ["val"] + ["train"] * 3 + ["val"] + ["train"] * 2
    assert [line["batch"] for line in lines if line["stage"] == "train"] == list(range(1, 9))
    train, val = lines[2], lines[3]
    assert set(train) == {"step", "batch", "stage", "train/loss", "train/now_and_then"}
    assert set(val) == {"step", "batch", "stage", "val/loss"}
    assert val["step"] == 3
    timings = list(read_json_lines(tmp_path / "timings.jsonl"))
    assert set(timings[0]) == {"step", "batch", "stage", "time/tokens_per_second", "time/clock"}
    assert set(timings[3]) == {"step", "batch", "stage", "time/clock"}  # a validation
    assert timings[0]["time/clock"] <= timings[-1]["time/clock"]


def test_another_folder_and_a_second_run_keeps_the_first(tmp_path: Path, run_fit: Callable[..., L.Trainer]) -> None:
    for _ in range(2):
        run_fit(tmp_path / "root", [MetricsFile(folder=str(tmp_path / "here"))], batches=4)
    assert (tmp_path / "here/metrics.jsonl").read_bytes() == (tmp_path / "here/metrics.jsonl.previous").read_bytes()
    assert not (tmp_path / "root/metrics.jsonl").exists()


def test_validating_an_old_checkpoint_leaves_the_files_alone(
    killed_and_resumed: Play, foreign: Callable[[int], L.LightningModule]
) -> None:
    _, killed = killed_and_resumed(MetricsFile)
    before = (killed / "metrics.jsonl").read_bytes()
    trainer = L.Trainer(
        default_root_dir=killed, callbacks=[MetricsFile()], accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.validate(foreign(8), ckpt_path=killed / "five.ckpt", weights_only=True, verbose=False)
    assert (killed / "metrics.jsonl").read_bytes() == before


def test_cut(tmp_path: Path) -> None:
    file = AppendOnlyFile(tmp_path / "a" / "log")
    assert file.offset == 0
    file.append(b"12345")
    file.append(b"678")
    file.cut(5)
    assert file.path.read_bytes() == b"12345"
    file.cut(5)  # nothing to cut
    with pytest.warns(UserWarning, match="has 5 bytes, but the checkpoint was written when it had 9"):
        file.cut(9)
    assert file.offset == 0
    assert file.path.with_name("log.previous").read_bytes() == b"12345"


def test_json_lines_without_numbers_json_lacks(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(json_line({"a": float("nan"), "b": float("-inf"), "c": 1}) + b'{"torn": ')
    (line,) = read_json_lines(path)
    assert line == {"a": "nan", "b": "-inf", "c": 1}
    assert float(line["b"]) == float("-inf")
    assert offset_of_line(path, 1) == offset_of_line(path, 7) == path.read_bytes().index(b"\n") + 1
    path.write_bytes(json_line({"a": 1}) + b"{{\n" + json_line({"a": 2}))
    with pytest.raises(ValueError, match="line 2: not JSON"):
        list(read_json_lines(path))
    path.write_bytes(json.dumps([1]).encode() + b"\n")
    with pytest.raises(ValueError, match="line 1: wanted a JSON object, found list"):
        list(read_json_lines(path))
