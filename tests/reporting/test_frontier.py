"""Quality against diversity in the report: what is read, what is drawn, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_rl.cli import main
from lit_rl.reporting.frontier import Number, chart, read_frontier
from lit_rl.reporting.report import write_report
from lit_rl.reporting.run_data import read_run
from tests.reporting.test_report import HOSTILE, Page


def number(mean: float, half_width: float | None = 0.01) -> dict[str, Any]:
    return {"mean": mean, "half_width": half_width}


def point(strength: str, quality: float, entropy: float) -> dict[str, Any]:
    return {"strength": strength, "quality": number(quality), "entropy": number(entropy, None), "distinct": number(7)}


def frontier(title: str = "Many right answers") -> dict[str, Any]:
    """Two methods; the first one's points are not in order, and the second one has no bound."""
    return {
        "title": title,
        "quality": "share of right answers",
        "entropy": "nats",
        "methods": {
            "QEMPO": {"points": [point("a = 0.2", 0.9, 3.0), point("a = 0.4", 0.7, 4.0)], "bound": [[0.9, 3.5]]},
            "RLHF": {"points": [point("a = 0.3", 0.8, 2.5)]},
        },
        "start": {"quality": number(0.4), "entropy": number(4.5)},
        "at_quality": [{"quality": 0.85, "entropy": {"QEMPO": number(3.25, 0.125), "RLHF": None}}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of many runs, whose sweep is all there is to show."""
    (tmp_path / "frontier.json").write_text(json.dumps(frontier()))
    return tmp_path


def test_points_are_in_order_of_quality_and_say_all_their_figures(folder: Path) -> None:
    drawn = chart(read_frontier(folder / "frontier.json"))
    qempo, rlhf = drawn["sweeps"]
    assert [found[:4] for found in qempo["points"]] == [[0.7, 0.01, 4.0, None], [0.9, 0.01, 3.0, None]]
    assert qempo["points"][0][4] == "QEMPO, a = 0.4: quality 0.700 ± 0.010, entropy 4.000, distinct 7.000 ± 0.010"
    assert qempo["bound"] == [(0.9, 3.5)] and rlhf["bound"] == []
    assert drawn["axes"] == {"quality": "share of right answers", "entropy": "nats"}


def test_a_folder_of_many_runs(folder: Path) -> None:
    page = Page(write_report(folder))
    assert page.data("frontier")["sweeps"][1]["name"] == "RLHF"
    text = page.text
    assert "Many right answers" in text and "Before training: share of right answers 0.400 ± 0.010" in text
    assert "Nats at 0.85 QEMPO 3.250 ± 0.125 RLHF –" in text  # read off at equal quality
    assert "a = 0.4 0.700 ± 0.010 4.000 7.000 ± 0.010" in text
    ids = [attributes.get("id") for _, attributes in page.tags]
    assert "frontier" in ids and not {"dialogues", "controls", "learning"} & set(ids)
    assert "There is no" not in text and "Not validated" not in text


def test_a_run_may_have_one_too(run_folder: Path) -> None:
    assert "frontier" not in [attributes.get("id") for _, attributes in Page(write_report(run_folder)).tags]
    (run_folder / "frontier.json").write_text(json.dumps(frontier()))
    page = Page(write_report(run_folder))
    ids = [attributes.get("id") for _, attributes in page.tags]
    assert {"frontier", "dialogues", "controls", "learning"} <= set(ids)


def test_what_may_be_left_out(folder: Path) -> None:
    found = frontier()
    del found["start"], found["at_quality"]
    (folder / "frontier.json").write_text(json.dumps(found))
    read = read_frontier(folder / "frontier.json")
    assert read.start is None and read.at_quality == [] and read.further == ["distinct"]
    text = Page(write_report(folder)).text
    assert "Before training" not in text and "at 0.85" not in text


def test_a_figure_that_one_method_lacks_is_a_dash(folder: Path) -> None:
    found = frontier()
    del found["methods"]["RLHF"]["points"][0]["distinct"]
    (folder / "frontier.json").write_text(json.dumps(found))
    assert "a = 0.3 0.800 ± 0.010 2.500 –" in Page(write_report(folder)).text


def test_numbers_of_a_single_seed_have_no_interval() -> None:
    assert [str(Number(0.5)), str(Number(0.5, 0.25))] == ["0.500", "0.500 ± 0.250"]


def test_hostile_names_do_not_leave_their_element(folder: Path) -> None:
    found = frontier(HOSTILE)
    found["methods"] = {HOSTILE: found["methods"]["QEMPO"]}
    (folder / "frontier.json").write_text(json.dumps(found))
    page = Page(write_report(folder))
    assert "alert(1)" not in "".join(script for script in page.scripts if not script.startswith("{"))
    assert page.data("frontier")["sweeps"][0]["name"] == HOSTILE
    assert "img" not in [tag for tag, _ in page.tags]


def without_title(found: dict[str, Any]) -> None:
    del found["title"]


def no_points(found: dict[str, Any]) -> None:
    found["methods"] = {"QEMPO": {"points": []}}


def not_a_number(found: dict[str, Any]) -> None:
    found["methods"]["RLHF"]["points"][0]["quality"]["mean"] = float("nan")


def text_for_a_number(found: dict[str, Any]) -> None:
    found["start"]["entropy"]["mean"] = "4.5"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (without_title, "'title'"),
        (no_points, "no point of any method"),
        (not_a_number, "nan is no finite number"),
        (text_for_a_number, "'4.5' is no finite number"),
    ],
)
def test_a_broken_file_is_said_in_a_sentence(
    folder: Path, spoil: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    found = frontier()
    spoil(found)
    (folder / "frontier.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=sentence):
        read_frontier(folder / "frontier.json")
    run = read_run(folder)
    assert run.frontier is None and sentence in run.notes["frontier.json"]
    assert "frontier.json" in Page(write_report(folder)).text and str(folder) not in Page(write_report(folder)).text


def test_the_command_takes_such_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").exists() and "report.html" in capsys.readouterr().out
