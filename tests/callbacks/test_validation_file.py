import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_rl.callbacks import PredictionFile, ValidationFile
from lit_rl.callbacks.validation_file import conditions_of, table_of
from lit_rl.reporting.run_files import read_json_lines


class Foreign(L.LightningModule):
    """Somebody else's module that logs accuracies under our names, and predicts records."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        for turn, accuracy in ((1, 0.25), (2, 0.5)):
            self.log(f"val/teacher/accuracy_turn_{turn}", accuracy)
            self.log(f"val/teacher_greedy/accuracy_turn_{turn}", 1.0)
        self.log("val/teacher/gain", 0.25)
        self.log("val/teacher/listener_match/one/0.5", 0.75)
        self.log("val/elsewhere/figure", 1.0)  # of no condition that was played
        self.log("val/loss", 3.0)

    def predict_step(self, batch: Any, batch_idx: int) -> list[dict[str, int]]:
        return [{"batch": batch_idx, "row": row} for row in range(2)]

    def data(self) -> Any:
        return torch.utils.data.DataLoader(torch.zeros(4, 1), batch_size=2)


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., L.Trainer]:
    def make(*callbacks: L.Callback) -> L.Trainer:
        return L.Trainer(
            default_root_dir=tmp_path, callbacks=list(callbacks), accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False,
        )  # fmt: skip

    return make


def test_validation_is_written_and_printed(
    trainer: Callable[..., L.Trainer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = Foreign()
    trainer(ValidationFile()).validate(module, module.data(), verbose=False)
    result = json.loads((tmp_path / "validation_before.json").read_text())  # no checkpoint was loaded
    assert result == {
        "conditions": {
            "teacher": {"accuracy": [0.25, 0.5], "gain": 0.25, "listener_match/one/0.5": 0.75},
            "teacher_greedy": {"accuracy": [1.0, 1.0]},
        },
        "ceiling": None,
        "policy_version": 0,
    }
    printed = capsys.readouterr().out
    assert "0.250" in printed and "teacher, greedy" in printed
    assert not (tmp_path / "validation.json").exists()


def test_turns_come_in_order_whatever_the_keys_order() -> None:
    keys = {f"test/x/accuracy_turn_{k}": k / 10 for k in (10, 2, 1)} | {"train/x/accuracy_turn_1": 9.0, "val/loss": 1.0}
    assert conditions_of(keys) == {"x": {"accuracy": [0.1, 0.2, 1.0]}}


def test_where_nothing_is_right_or_wrong_all_figures_are_kept_and_shown() -> None:
    found = conditions_of({"val/world/success": 0.5, "val/world/success/heat": 0.25, "val/world_greedy/success": 1.0})
    assert found == {"world": {"success": 0.5, "success/heat": 0.25}, "world_greedy": {"success": 1.0}}
    table = table_of(found, None)
    assert [list(column.cells) for column in table.columns] == [
        ["success", "success/heat"], ["0.500", "0.250"], ["1.000", ""],
    ]  # fmt: skip


def test_predictions_are_lines_and_an_earlier_file_is_kept(trainer: Callable[..., L.Trainer], tmp_path: Path) -> None:
    module = Foreign()
    for _ in range(2):
        trainer(PredictionFile()).predict(module, module.data())
    lines = list(read_json_lines(tmp_path / "predictions.jsonl"))
    assert lines == [{"batch": b, "row": r} for b in range(2) for r in range(2)]
    assert (tmp_path / "predictions.jsonl.previous").read_bytes() == (tmp_path / "predictions.jsonl").read_bytes()


def test_a_table_of_many_turns_fits_a_terminal() -> None:
    conditions = {"teacher": {"accuracy": [k / 10 for k in range(1, 11)]}, "full": {"accuracy": [0.25]}}
    table = table_of(conditions, None)
    assert [str(c.header) for c in table.columns] == [
        "feedback",
        "acc@1",
        "acc@2",
        "acc@3",
        "acc@4",
        "acc@10",
    ]
    assert [list(column.cells) for column in table.columns[-2:]] == [["0.400", ""], ["1.000", ""]]
    six = table_of({"teacher": {"accuracy": [0.5] * 6}}, [1.0] * 6)
    assert len(six.columns) == 7
