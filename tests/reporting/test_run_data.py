import json
import math
from pathlib import Path

import pytest

from lit_rl.reporting.run_data import read_run


def test_everything_is_read(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert (run.batches, run.steps, run.notes) == (60, 60, {})
    assert run.train["train/loss"].batches == list(range(1, 61))
    assert [len(series.values) for series in run.accuracy("val/teacher/")] == [3] * 4
    assert run.val["val/teacher/accuracy_turn_4"].batches == [20, 40, 60]
    assert run.config["seed_everything"] == 0
    assert run.validation is not None and run.before is not None
    written = json.loads((run_folder / "validation.json").read_text())
    assert run.validation.ceiling == written["ceiling"] and run.validation.policy_version == 60
    assert {n: c.accuracy for n, c in run.validation.conditions.items()} == {
        n: c["accuracy"] for n, c in written["conditions"].items()
    }


def test_accuracy_by_turn_is_in_the_order_of_turns(tmp_path: Path) -> None:
    values = {f"train/accuracy_turn_{k}": k / 20 for k in (10, 2, 1)} | {"train/other_accuracy_turn_3": 0.9}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "batch": 1, "stage": "train", **values}) + "\n")
    assert [series.values for series in read_run(tmp_path).accuracy("train/")] == [[0.05], [0.1], [0.5]]


def test_a_run_cut_off_at_any_byte_is_read(run_folder: Path) -> None:
    data = (run_folder / "metrics.jsonl").read_bytes()
    first = data.index(b"\n") + 1
    for size in range(0, first + 50, 7):
        (run_folder / "metrics.jsonl").write_bytes(data[:size])
        run = read_run(run_folder)
        assert run.batches == (size >= first)
        assert ("metrics.jsonl" in run.notes) == (size < first)


def test_what_is_missing_is_said_in_a_sentence(run_folder: Path) -> None:
    for name in ("timings.jsonl", "config.yaml", "validation.json", "validation_before.json"):
        (run_folder / name).unlink()
    notes = read_run(run_folder).notes
    assert set(notes) == {"timings.jsonl", "config.yaml", "validation.json"}  # most runs have none from before
    assert all(note.endswith(".") and "\n" not in note for note in notes.values())
    assert "lit-rl validate" in notes["validation.json"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.yaml", "model: [", "cannot be read as YAML"),
        ("config.yaml", "- a\n- b\n", "holds list, not a mapping"),
        ("config.yaml", "a: \x00", "cannot be read as YAML"),
        ("validation.json", '{"conditions": {"teacher"', "cannot be read"),
        ("validation.json", '{"conditions": {"teacher": {"accuracy": [93]}}}', "not in [0, 1]"),
        ("validation.json", "[]", "wanted {"),
        ("validation.json", '{"conditions": 3}', "cannot be read"),
        ("metrics.jsonl", '{"step": 1, "batch": 1, "stage": "train"}\nnot json\n{}\n', "metrics.jsonl, line 2"),
        ("metrics.jsonl", '{"loss": 1}\n', "lacks batch, step or stage"),
        ("timings.jsonl", "[]\n", "timings.jsonl, line 1: wanted a JSON object, found list"),
    ],
)
def test_a_broken_file_costs_only_itself(run_folder: Path, name: str, text: str, said: str) -> None:
    (run_folder / name).write_text(text)
    run = read_run(run_folder)
    assert list(run.notes) == [name]
    assert said in run.notes[name] and str(run_folder) not in run.notes[name]
    assert run.train or name == "metrics.jsonl"


def test_numbers_json_lacks_are_read(tmp_path: Path) -> None:
    line = {"step": 1, "batch": 1, "stage": "train", "train/loss": "nan", "train/a": "-inf", "train/b": "x", "c": None}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    train = read_run(tmp_path).train
    assert set(train) == {"train/loss", "train/a"}
    assert math.isnan(train["train/loss"].values[0]) and train["train/a"].values == [-math.inf]


def test_conditions_without_dialogues_are_left_out(run_folder: Path) -> None:
    text = '{"conditions": {"teacher": {"accuracy": [NaN, NaN]}, "retry": {"accuracy": [0.5]}}, "ceiling": null}'
    (run_folder / "validation.json").write_text(text)
    validation = read_run(run_folder).validation
    assert validation is not None
    assert list(validation.conditions) == ["retry"] and validation.ceiling is None
    assert validation.policy_version is None and validation.conditions["retry"].dialogues is None


def test_other_folders_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no run folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds none of metrics.jsonl, episodes.bin, validation.json"):
        read_run(tmp_path)
