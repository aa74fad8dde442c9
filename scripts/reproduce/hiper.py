"""HiPER's findings reproduced small: plans with credit on two time scales, on one, or by comparing episodes.

A household in few words, models of 0.1 M parameters.  Long tasks have two goals and 20 turns, short ones one goal and
12.  One warm-up a seed imitates an oracle with whims on both; from it each arm trains on long tasks, with the same
prompts and replies of switch, subgoal and action:

* hiper: ``configs/hiper/tiny.yaml``; no_keep_penalty is the same with keeping free of charge;
* flat_ppo, group_credit: ``configs/hiper/baselines``, one advantage for all tokens of a turn, from one value or from
  other episodes of the same task.

All are measured on long and on short tasks that nothing was trained on.  A table counts only where in every seed hiper
covers half of what lay between its first rewards and 1, which the oracle earns.  The variance of the estimators is
exact, on the decision process of ``switching_process.py``; nothing there depends on seeds.

Settings were chosen by hiper on seeds 0 and 2; the other arms took them over.  Warm-ups of 1600 steps left seed 2 with
a model that failed a third of its tasks even where it said what it thought best, and little to sharpen.  An action at
the end of a segment is paid by a value, so values must know something first: hence a critic of its own, 20 steps in
which values alone learn, and the number of turns taken among what is read.  Where values read the actor's last states,
which hold little of the task there, actions drifted off, and success with them; that hurt less where advantages were
not whitened.  With the critic whitening changed nothing on those two seeds; it is off, unlike in the paper.

    python scripts/reproduce/hiper.py --seeds 0 1 2 --jobs 2

writes ``runs/reproduce-hiper/hiper.json`` and prints the tables; finished runs are found again, and ``--quick`` takes
the first seed alone.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.reproduce.arms import (
    Table,
    arguments,
    each_seed,
    gap_covered,
    markdown,
    over_seeds,
    publish,
    training_rewards,
    verdict,
)
from scripts.reproduce.hiper_runs import ARMS, LENGTHS, run_seed
from scripts.reproduce.hiper_worlds import FIGURES
from scripts.reproduce.switching_process import SwitchingProcess
from scripts.reproduce.switching_tables import LAMBDAS, variance_table
from scripts.reproduce.switching_tables import text as exact_text

PLANS = {
    "keep ratio": "keep_ratio",
    "switches an episode": "switches_per_episode",
    "turns": "turns",
    "valid": "valid",
    "admissible": "admissible",
}


def figure(folder: Path, name: str) -> float:
    """One figure of a validation."""
    found: dict[str, float] = json.loads((folder / FIGURES).read_text())
    return found[f"val/world/{name}"]


def success_table(folders: Sequence[Path]) -> Table:
    """Success of the start and of every arm on long and on short tasks."""
    return {
        row: over_seeds([[figure(folder / f"{row}_{length}", "success") for length in LENGTHS] for folder in folders])
        for row in ("start", *ARMS)
    }


def plan_table(folders: Sequence[Path]) -> Table:
    """How plans go on long tasks."""
    return {
        row: over_seeds([[figure(folder / f"{row}_long", name) for name in PLANS.values()] for folder in folders])
        for row in ("start", *ARMS)
    }


def covered(folder: Path) -> float:
    """Which share of what lay between its first rewards and 1 a training covered: of 3 batches, and of its last 5."""
    return gap_covered(training_rewards(folder, 3)[0], training_rewards(folder, 5)[1], 1.0)


def shares(folders: Sequence[Path]) -> dict[str, list[float]]:
    """The share of its gap that every arm covered, one entry a seed."""
    return {arm: [covered(folder / arm) for folder in folders] for arm in ARMS}


def learning(folders: Sequence[Path]) -> tuple[dict[str, Table], str]:
    """What came of the runs: tables, and them as text with the verdicts on them."""
    tables = {"success on held-out tasks": (success_table(folders), list(LENGTHS))}
    tables["plans on long tasks"] = (plan_table(folders), list(PLANS))
    shown = [f"{title}\n\n{markdown(rows, columns)}" for title, (rows, columns) in tables.items()]
    told = "\n\n".join([verdict(shares(folders), "hiper"), *shown])
    return {title: rows for title, (rows, _) in tables.items()}, told


def variance() -> tuple[dict[str, dict[str, list[float]]], str]:
    """Exact variances of gradient estimates, by discount, and them as text."""
    tables = {f"gamma = {gamma:g}": variance_table(SwitchingProcess.specified(gamma)) for gamma in (1.0, 0.9)}
    columns = [f"lambdas {low:g}, {high:g}" for low, high in LAMBDAS]
    shown = [f"{exact_text(rows, columns)}" for rows in tables.values()]
    titles = [f"variance of the gradient estimate, exact, {name}" for name in tables]
    return tables, "\n\n".join(f"{title}\n\n{table}" for title, table in zip(titles, shown, strict=True))


def main() -> None:
    options = arguments(str(__doc__), "reproduce-hiper").parse_args()
    folders = each_seed(run_seed, options)
    publish("hiper.json", {"learning": learning(folders), "variance": variance()}, folders, options.root)


if __name__ == "__main__":
    main()
