from typing import Any

import pytest

from lit_rl.reporting.run_time import amount, duration, run_time


def line(clock: float, sampling: float = 2.0, learning: float = 1.0, stage: str = "train") -> dict[str, Any]:
    values = {"time/sampling_seconds": sampling, "time/learning_seconds": learning} if stage == "train" else {}
    values["time/sampling_tokens_per_second"] = 100.0
    return {"stage": stage, "time/clock": clock, **values}


def test_a_run_by_hand() -> None:
    time = run_time([line(100.0), line(104.0), line(150.0, stage="val"), line(154.0)])
    assert time is not None
    assert time.seconds == 3 + 4 + 46 + 4  # the first batch by its own seconds, then by the clock
    assert (time.sampling, time.learning, time.paused) == (6.0, 3.0, 0.0)
    assert time.sampled_tokens == 600.0


def test_a_night_between_kill_and_resume_is_no_training() -> None:
    time = run_time([line(100.0), line(40_103.0), line(40_106.0)])
    assert time is not None and time.seconds == 9 and time.paused == 40_000
    long_validation = run_time([line(100.0), line(4_000.0, stage="val")])
    assert long_validation is not None and long_validation.paused == 0


def test_a_clock_that_was_set_back_takes_nothing_away() -> None:
    time = run_time([line(100.0), line(50.0), line(53.0)])
    assert time is not None and time.seconds == 6


def test_without_a_clock_nothing_is_known() -> None:
    assert run_time([]) is None
    assert run_time([{"stage": "train", "batch": 1}]) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (48.3, "48 s"), (59.7, "1 min 00 s"), (252, "4 min 12 s"), (11_100, "3 h 05 min"),
     (3599.9, "1 h 00 min"), (187_200, "2 d 4 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(950, "950"), (12_345, "12.3 k"), (4.56e6, "4.56 M"), (2e9, "2 G")])
def test_amounts(number: float, text: str) -> None:
    assert amount(number).replace("\N{NO-BREAK SPACE}", " ") == text
