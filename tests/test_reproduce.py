"""Scripts of scripts/reproduce: what they make of finished runs, here made up, and the tasks they hold out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lit_rl.environments import ColourFix
from scripts.reproduce import rl2f, sml
from scripts.reproduce.arms import gap_covered, interval, learnability, training_rewards, validate
from scripts.reproduce.unseen import Lot

CONDITIONS = ("teacher", "retry", "shuffled", "resample", "self_crit", "shuffled_crit", "false_criticism")


def write_run(folder: Path, rewards: Sequence[float], conditions: Mapping[str, Any], file: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps({"conditions": conditions, "ceiling": None}))
    (folder / "finished.json").write_text(json.dumps({"fit_seconds": 10.0}))
    lines = [{"stage": "train", "train/reward": reward} for reward in rewards] + [{"stage": "val", "val/loss": 1.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def figures(first: float, **further: float) -> dict[str, Any]:
    """Of one condition; accuracy grows by a tenth a turn."""
    return {"accuracy": [first + 0.1 * k for k in range(4)], **further}


def colour_fix_runs(root: Path, rewards: Sequence[float]) -> list[Path]:
    """Two seeds; "self_crit" is 0.2 above every control in the trained arm, and 0.3 above that of other arms."""
    folders = [root / "seed-0", root / "seed-1"]
    for number, folder in enumerate(folders):
        for arm in rl2f.ARMS:
            found = {name: figures(0.2 + 0.1 * number) for name in CONDITIONS}
            found["self_crit"] = figures(0.4 + 0.1 * number if arm == "trained" else 0.1 + 0.1 * number, acc_self=0.5)
            found["teacher"] |= {"critique_nll": 0.25, "critique_exact": 0.75}
            if number == 0:  # the other seed accepts nothing wrong because nothing is wrong
                found["self_crit"]["false_accept"] = 0.125
            write_run(folder / arm, rewards, found, "validation.json")
        write_run(folder / "trained", rewards, found, "validation_before.json")
        write_run(folder / "base_critic", [], {"self_crit_base": figures(0.1 + 0.1 * number)}, "validation.json")
    return folders


LEARNED = [0.2] * 20 + [0.5] * 5 + [0.8] * 20  # three quarters of the gap to 1
LITTLE = [0.2] * 20 + [0.4] * 20  # a quarter


def test_tables_of_colour_fix(tmp_path: Path) -> None:
    tables, text = rl2f.report(colour_fix_runs(tmp_path, LEARNED), "colour_fix")
    within = tables["accuracy within k attempts"]
    assert within["trained, self_crit"][0] == pytest.approx([0.4, 0.5])
    assert within["no_critiques, retry"][3] == pytest.approx([0.5, 0.6])
    assert len(within) == (1 + len(rl2f.ARMS)) * len(CONDITIONS) + 1  # the warm-up, the arms, another critic
    [minus] = [table for title, table in tables.items() if "minus" in title]
    assert minus["self_crit_base"][1] == pytest.approx([0.3, 0.3])
    assert minus["retry"][1] == pytest.approx([0.2, 0.2]) and minus["self_crit of permuted"][3] == pytest.approx(
        [0.3] * 2
    )
    assert "| trained, self_crit | 0.450 ± 0.635 |" in text  # t(0.975, 1) = 12.706 times 0.0707 / sqrt(2)


def test_a_figure_that_is_undefined_in_a_seed_is_left_out(tmp_path: Path) -> None:
    tables, text = rl2f.report(colour_fix_runs(tmp_path, LEARNED), "colour_fix")
    row = dict(zip(rl2f.FIGURES, tables["self-correction and critiques"]["trained"], strict=True))
    assert row["acc_self"] == [0.5, 0.5] and row["false accept"] == [0.125] and row["true accept"] == []
    assert row["critique exact"] == [0.75, 0.75]
    [line] = [line for line in text.splitlines() if line.startswith("| trained | ")]
    assert line.split(" | ")[2:7] == ["0.500 ± 0.000", "–", "–", "–", "0.125"]


@pytest.mark.parametrize(("rewards", "said"), [(LEARNED, "this table counts"), (LITTLE, "this table does not count")])
def test_learnability(tmp_path: Path, rewards: Sequence[float], said: str) -> None:
    folders = colour_fix_runs(tmp_path, rewards)
    assert said in rl2f.report(folders, "colour_fix")[1]
    assert learnability(folders, "trained", 1.0).count("of the gap") == 2


def test_one_seed_that_did_not_learn_is_enough(tmp_path: Path) -> None:
    folders = colour_fix_runs(tmp_path, LEARNED)
    write_run(folders[1] / "trained", LITTLE, {}, "unused.json")
    assert "this table does not count" in learnability(folders, "trained", 1.0)


def test_gap_covered() -> None:
    assert gap_covered(0.2, 0.8, 1.0) == pytest.approx(0.75)
    assert gap_covered(0.2, 0.1, 1.0) == pytest.approx(-0.125)
    assert gap_covered(1.0, 1.0, 1.0) == 0.0  # nothing was left to learn


def test_rewards_are_those_of_training(tmp_path: Path) -> None:
    write_run(tmp_path, [0.0, 0.5, 1.0], {}, "validation.json")
    assert training_rewards(tmp_path, 2) == (0.25, 0.75)


@pytest.mark.parametrize(("reached", "said"), [(0.30, "<="), (0.32, "EXCEEDS")])  # 0.2667 + 3 * 0.0143 = 0.3095
def test_negative_control(tmp_path: Path, reached: float, said: str) -> None:
    """rl2f.md 14.2 and 16.11."""
    found = {"self_crit": {"accuracy": [0.07, 0.1, 0.2, reached]}, "teacher": figures(0.1)}
    write_run(tmp_path / "seed-0/number_search", LEARNED, found, "validation.json")
    tables, text = rl2f.report([tmp_path / "seed-0"], "number_search")
    assert f"{reached:.3f} {said} 0.309" in text
    assert tables["accuracy within k attempts"]["without a teacher at most"][3] == [4 / 15]


def test_transfer_table(tmp_path: Path) -> None:
    folder = tmp_path / "seed-0"
    write_run(folder / "trained", LEARNED, {}, "validation.json")
    for name in rl2f.TRANSFER:
        write_run(
            folder / f"warmed_up_on_{name}", [], dict.fromkeys(CONDITIONS, figures(0.1)), "validation_before.json"
        )
        write_run(folder / f"trained_on_{name}", [], dict.fromkeys(CONDITIONS, figures(0.5)), "validation.json")
    [rows] = rl2f.report([folder], "transfer")[0].values()
    assert len(rows) == 2 * len(rl2f.TRANSFER) * len(rl2f.ELSEWHERE) and rows["edges_6, trained, teacher"][0] == [0.5]


def test_a_validation_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "validation.json").write_text("{}")
    validate(tmp_path, tmp_path / "no.yaml", tmp_path / "no.ckpt")
    assert not (tmp_path / "validate.log").exists()


def test_a_single_seed_has_no_interval_and_none_a_dash() -> None:
    assert [interval(values) for values in ([0.25], [], [0.5, 0.5])] == ["0.250", "–", "0.500 ± 0.000"]


def test_lots_share_no_graph_and_leave_none_out() -> None:
    tasks = ColourFix(size=600, vertices=5, edges=4)
    lots = [{lot[i].prompt for i in range(len(lot))} for lot in (Lot(tasks, False), Lot(tasks, True))]
    assert not lots[0] & lots[1]
    assert lots[0] | lots[1] == {tasks[i].prompt for i in range(600)}
    assert 20 < len(lots[1]) < 65  # about a fifth of 210 graphs
    held_out = Lot(tasks, True)
    assert held_out.verify(held_out[0], f"ans {held_out[0].gold}").correct and held_out.name == "ColourFix"


def test_bad_lots() -> None:
    with pytest.raises(ValueError, match="one_in is 1"):
        Lot(ColourFix(size=3), held_out=True, one_in=1)
    with pytest.raises(ValueError, match="give more tasks"):
        Lot(ColourFix(size=1), held_out=True, one_in=10**9)


def test_tables_of_sml(tmp_path: Path) -> None:
    """Accuracy after k turns is k / 20, and 0.1 more where an arm has a teacher."""
    controls = {name: {"accuracy": [k / 20 for k in range(1, 11)]} for name in ("retry", "shuffled", "resample")}
    teacher = {"accuracy": [0.1 + k / 20 for k in range(1, 11)], "question_share": 0.25, "premature_rate": 0.75}
    found = controls | {"teacher": teacher}
    for name in (*sml.ARMS, "mt_rl_of_bits", "q_sft", "q_mt_rl", "no_q_mt_rl"):
        for file in ("validation.json", "validation_before.json"):
            write_run(tmp_path / name, LEARNED, found, file)
    for name in (*(f"{arm}_on_bits" for arm in sml.ARMS), "mt_rl_of_bits_on_gcd"):
        write_run(tmp_path / name, LEARNED, found, "validation_before.json")
    gcd = sml.gcd_table([tmp_path])
    assert gcd["mt_rl"] == [[pytest.approx(0.1 + k / 20)] for k in sml.TURNS]
    assert gcd["*base, retry*"] == [[pytest.approx(k / 20)] for k in sml.TURNS]
    assert len(sml.transfer_table([tmp_path])) == len(sml.ARMS) + 2
    assert sml.asking_table([tmp_path])["q_mt_rl"] == [[pytest.approx(0.3)], [0.25], [0.75]]
