import json
from pathlib import Path

import pytest

from lit_rl.reporting.comparison import Row, headline, leading_condition, remarks, rows, wilson
from lit_rl.reporting.run_data import Condition, RunData, Series, Validation, read_run


def run_of(**options: object) -> RunData:
    return RunData(Path("x"), batches=20, steps=20, **options)


def train(*turns: list[float]) -> dict[str, Series]:
    return {f"train/accuracy_turn_{k}": Series(list(range(1, len(v) + 1)), v) for k, v in enumerate(turns, 1)}


def validation(version: int | None = 20, ceiling: list[float] | None = None, **conditions: list[float]) -> Validation:
    return Validation({name: Condition(accuracy, 100) for name, accuracy in conditions.items()}, ceiling, version)


def test_validations_come_first() -> None:
    run = run_of(
        train=train([0.1] * 20, [0.2] * 20),
        validation=validation(teacher=[0.2, 0.9], retry=[0.2, 0.3], resample=[0.2, 0.4], teacher_greedy=[0.3, 1.0],
                              ceiling=[0.5, 1.0]),
        before=validation(0, teacher=[0.05, 0.1]),
    )  # fmt: skip
    found = headline(run)
    assert found.after is not None and found.before is not None and found.control is not None
    assert (found.after.accuracy, found.after.when) == ([0.2, 0.9], "after training")
    assert (found.before.accuracy, found.before.where) == ([0.05, 0.1], found.after.where)
    assert (found.control.name, found.ceiling, found.turns) == ("resample", 1.0, 2)


def test_then_what_was_validated_while_training() -> None:
    val = {f"val/teacher/accuracy_turn_{k}": Series([10, 20], [0.1, 0.4]) for k in (1, 2)}
    found = headline(run_of(train=train([0.05] * 20, [0.15] * 20), val=val))
    assert found.after is not None and found.before is not None
    assert (found.after.accuracy, found.after.when) == ([0.4, 0.4], "after 20 batches")
    assert found.before.accuracy == [0.05, 0.15] and "first batch" in found.before.where
    assert found.control is None and found.ceiling is None


def test_then_training_itself() -> None:
    found = headline(run_of(train=train([0.0] * 10 + [0.5] * 10)))
    assert found.after is not None and found.before is not None
    assert found.after.accuracy == [0.5] and "last 10 batches" in found.after.where
    assert found.before.accuracy == [0.0]
    assert headline(run_of()).after is None


def test_a_resumed_log_without_its_beginning_has_no_before() -> None:
    late = {"train/accuracy_turn_1": Series([7, 8], [0.5, 0.6])}
    assert headline(run_of(train=late)).before is None


def test_rows_tell_greedy_from_sampled() -> None:
    run = run_of(
        validation=validation(retry=[0.3], teacher=[0.9], teacher_greedy=[1.0], retry_greedy=[0.2]),
        before=validation(0, teacher=[0.1], teacher_greedy=[0.0]),
    )
    sampled = [(row.name, row.kind, row.accuracy) for row in rows(run, greedy=False)]
    assert sampled == [
        ("teacher, before training", "before", [0.1]),
        ("teacher, after training", "after", [0.9]),
        ("retry", "control", [0.3]),
    ]
    assert [row.accuracy for row in rows(run, greedy=True)] == [[0.0], [1.0], [0.2]]
    run.before = validation(0, teacher=[0.1, 0.2])  # of dialogues with more turns: not to be compared
    assert [row.kind for row in rows(run, greedy=False)] == ["after", "control"]


def test_the_leading_condition() -> None:
    assert leading_condition(run_of(validation=validation(retry=[0.1], teacher=[0.2]))) == "teacher"
    assert leading_condition(run_of(validation=validation(alone=[0.1]))) == "alone"
    assert leading_condition(run_of(val={"val/loss": Series([1], [2.0])})) is None


def test_wilson_by_hand() -> None:
    # z^2 = 3.8415; p = 0.9, n = 100: middle (0.9 + 0.019207) / 1.038415, half-width 0.0598
    assert wilson(0.9, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    low, high = wilson(0.0, 50)
    assert low == 0.0 and high == pytest.approx(3.8415 / 53.8415, abs=1e-4)
    assert Row("x", "", [0.5]).interval is None and Row("x", "", [0.5], 10).gain is None


def test_an_old_validation_is_no_end_of_training(run_folder: Path) -> None:
    path = run_folder / "validation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"policy_version": 0}))
    run = read_run(run_folder)
    found = headline(run)
    assert found.after is not None and found.after.when == "after 0 optimizer steps"
    assert remarks(run) == ["The validation is of the policy after 0 optimizer steps; training has taken 60."]


def test_a_falling_accuracy_within_turns_is_remarked() -> None:
    said = remarks(run_of(validation=validation(teacher=[0.5, 0.4])))
    assert len(said) == 1 and "teacher, after training" in said[0]
    assert remarks(run_of(validation=validation(teacher=[0.4, 0.4]))) == []
