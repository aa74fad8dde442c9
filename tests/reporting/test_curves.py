import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from lit_rl.reporting.curves import curve, curves, moving_mean, smoothing_window, thinned
from lit_rl.reporting.run_data import RunData, Series, read_run


def series(values: list[float]) -> Series:
    return Series(list(range(1, len(values) + 1)), values)


@pytest.mark.parametrize("window", [1, 3, 7])
def test_moving_mean_is_the_slow_loop(window: int) -> None:
    values = [0.5, 2.0, math.nan, -1.0, 4.0, 4.0, math.nan, math.nan, math.nan, 1.0]
    expected = []
    for place in range(len(values)):
        near = values[max(0, place - window // 2) : place + window // 2 + 1]
        known = [value for value in near if not math.isnan(value)]
        expected.append(statistics.fmean(known) if known else math.nan)
    np.testing.assert_allclose(moving_mean(np.array(values), window), expected)


def test_short_runs_are_not_smoothed() -> None:
    assert [smoothing_window(n) for n in (0, 79, 80, 400, 4000)] == [1, 1, 3, 11, 101]
    assert "smooth" not in curve(series([1.0, 2.0]))


def test_thinning_keeps_the_ends_and_every_spike() -> None:
    values = np.zeros(10_000)
    values[[1234, 8000]] = 50.0, -50.0
    kept = thinned(values, 400)
    assert len(kept) <= 400 and kept == sorted(set(kept))
    assert {0, 1234, 8000, 9999} <= set(kept)
    assert thinned(values[:400], 400) == list(range(400))


def test_what_is_not_finite_becomes_null() -> None:
    values = [1.0, math.nan, math.inf, 2.0]
    assert curve(series(values))["y"] == [1.0, None, None, 2.0]
    assert values[2] == math.inf  # the series itself is left alone
    assert len(thinned(np.full(1000, np.nan), 100)) == 2


def test_curves_of_a_run(run_folder: Path) -> None:
    run = read_run(run_folder)
    drawn = curves(run, "teacher")
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["stage"] == "train"]
    for turn, points in enumerate(drawn["accuracy"]["turns"], 1):
        assert points["y"] == pytest.approx([line[f"train/accuracy_turn_{turn}"] for line in train], rel=1e-5)
    assert [points["x"] for points in drawn["accuracy"]["held_out"]] == [[20, 40, 60]] * 4
    keys = [panel["key"] for panel in drawn["panels"]]
    assert keys[:3] == ["train/reward", "train/loss", "train/entropy"]
    assert "time/sampling_tokens_per_second" in keys and "time/clock" not in keys
    assert not [key for key in keys if "accuracy_turn" in key]
    constant = {item["name"]: item["value"] for item in drawn["constant"]}
    assert constant["Learning rate"] == "0.001" and constant["Clipped tokens"] == "0"
    json.dumps(drawn, allow_nan=False)


def test_other_conditions_have_a_small_chart_of_their_last_turn() -> None:
    names = [f"val/{c}/accuracy_turn_{k}" for c in ("teacher", "retry") for k in (1, 2)]
    run = RunData(Path("x"), val={name: series([0.1, 0.2]) for name in names} | {"val/loss": series([2.0, 1.0])})
    panels = curves(run, "teacher")["panels"]
    assert [(p["title"], p["hint"], p["percent"]) for p in panels] == [
        ("Solved within 2 turns", "held out, retry", True),
        ("Loss", "held out", False),
    ]


def test_figures_of_a_condition_are_named_and_those_derived_from_accuracy_left_out() -> None:
    names = ["gain", "area_under_turns", "repeat_rate", "mean_turns_to_solve"]
    run = RunData(Path("x"), val={f"val/teacher/{name}": series([0.1, 0.2]) for name in names})
    assert [(p["title"], p["hint"], p["percent"]) for p in curves(run, "teacher")["panels"]] == [
        ("Repeat rate", "held out, teacher", True),
        ("Mean turns to solve", "held out, teacher", False),
    ]


def test_the_number_of_charts_is_bounded() -> None:
    run = RunData(Path("x"), train={f"train/q{i}": series([0.0, float(i + 1)]) for i in range(100)})
    drawn = curves(run, None)
    assert len(drawn["panels"]) == 48 and drawn["left_out"] == 52
