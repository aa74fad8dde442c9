"""What `scripts/reproduce/gopo.py` makes of finished runs: tables beside the best plans there are, and the verdict."""

import json
import statistics
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lit_rl.service import OBJECTIONS, ShopGoal, best_plan, toy_shop_procedure
from scripts.reproduce.arms import Table, markdown, over_seeds, verdict
from scripts.reproduce.gopo_runs import ARMS, FLAT_WARM, MEMORY, OFFLINE, WARM
from scripts.reproduce.gopo_worlds import FILE, SETTINGS

COLUMNS = {
    "TSE": "tse",
    "compliant TSE": "tse_compliant",
    "orders": "orders",
    "dialogues with a violation": "dialogues_with_violation",
    "ESNDCG": "esndcg",
}
JUDGED = ("gopo", "fixed_weights", "no_esndcg", "separate")  # planners that learn from R under masks
FIRST, LAST = 3, 5  # batches whose means are the start and the end of a training


def rows() -> dict[str, tuple[str, str]]:
    """Row of the tables -> run, and the masks it is measured under."""
    found = {
        "warm-up alone (SFT)": (WARM, "hard"),
        "warm-up alone, no masks": (WARM, "none"),
        "flat warm-up alone": (FLAT_WARM, "hard"),
    }
    found |= {arm.title: (name, arm.masks) for name, arm in ARMS.items()}
    return found | {"trajectory preferences, offline": (OFFLINE, "hard"), "memory, no gradient": (MEMORY, "hard")}


def figures(folder: Path, masks: str, choice: str) -> list[float] | None:
    """Every column of one run; None if it was not measured so."""
    found: dict[str, Any] = json.loads((folder / FILE).read_text())[masks]
    return None if choice not in found else [found[choice][name] for name in COLUMNS.values()]


def tables(folders: Sequence[Path]) -> dict[str, Table]:
    """One table of greedy choices and one of sampled ones; the best plans stand in the first."""
    found: dict[str, Table] = {}
    for choice in SETTINGS:
        found[choice] = {}
        for title, (name, masks) in rows().items():
            entries = [figures(folder / name, masks, choice) for folder in folders]
            measured = [entry for entry in entries if entry is not None]
            if measured:
                found[choice][title] = over_seeds(measured)
    found["greedy"] |= best_plans()
    return found


@cache
def best_plans() -> Table:
    """What the best plans come to, by trying all of up to 7 turns; a mean over objections."""
    procedure = toy_shop_procedure()
    found: Table = {}
    for title, compliant in (("best plans that break no rule", True), ("best plans, rules aside", False)):
        goals = [ShopGoal(0, objection) for objection in OBJECTIONS]
        runs = [best_plan(goal, procedure, compliant=compliant)[0] for goal in goals]
        means = (
            [run.tse(goal) for run, goal in zip(runs, goals, strict=True)],
            [run.tse(goal, compliant=True) for run, goal in zip(runs, goals, strict=True)],
            [float(run.ended == "ordered") for run in runs],
            [float(any(run.broken_rules)) for run in runs],
        )
        found[title] = [*([statistics.fmean(values)] for values in means), []]
    return found


def covered(folder: Path) -> float:
    """Which share of what lay between a training's first rewards and the best possible it covered.

    The best plans also are the expert's, and right replies are rated 1, so with the weights of a batch the best reward
    is their sum with the bound of TSE; weights that move along move both.
    """
    bound = best_plans()["best plans that break no rule"][0][0]
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    missing = [
        record["train/weight_tse"] * bound
        + record["train/weight_esndcg"]
        + record["train/weight_gre"]
        - record["train/joint_reward"]
        for record in records
        if "train/joint_reward" in record
    ]
    return 1 - statistics.fmean(missing[-LAST:]) / statistics.fmean(missing[:FIRST])


def shares(folders: Sequence[Path]) -> dict[str, list[float]]:
    """The share of its gap that GOPO covered, and its kin, one entry a seed."""
    return {ARMS[name].title: [covered(folder / name) for folder in folders] for name in JUDGED}


def report(folders: Sequence[Path]) -> tuple[dict[str, Table], str]:
    """Tables, and them as text with the verdict on them."""
    found = tables(folders)
    shown = [f"{choice}\n\n{markdown(table, list(COLUMNS))}" for choice, table in found.items()]
    return found, "\n\n".join(["# service", verdict(shares(folders), ARMS["gopo"].title), *shown])
