"""IntelliReward, IntelliAsk and DAPO, their findings reproduced small, on models of 0.1 M parameters.

* "heads": the ablation of the reward model.  Synthetic papers; each question is one of four sources that ask well or
  badly on purpose, or one of the generator's own before it is trained; 5 % of the labels are wrong.  Heads read the
  last token's state, or a mean over the last 16 or over all, of a frozen model (the generator's warm-up) or of one
  trained with them.  Tested on papers of another seed: agreement with labels as wrong as those that were learned from,
  and with the oracle, who is never wrong; beside what those reach who have not read the questions.
* "ladder": from GRPO to DAPO, one technique after the other, on greatest common divisors of reasoning-gym.  The model
  was warmed up on Euclid's remainders by somebody who dawdles and errs, so that answers have any length and some do not
  end in time.  All rungs take as many optimizer steps.  Dynamic sampling draws more problems for them: "at equal
  problems" is its accuracy when it had drawn as many as the others (the last validation before).  Soft punishment of
  length comes in the place of filtering.
* "ask": the generator learns by DAPO what a reward model finds good (the transformer on the last 16 states, trained
  with its backbone), counted as "hard_sum" or in probabilities ("soft_mean").  Judges of its questions about papers
  that nothing was trained on: that reward model, another one of other papers and another seed, and the oracle.

A table counts only where in every seed what was trained covers half of what lay between its start and the most that can
be had (1 for right answers, 3 or 1 from the reward model) on its own training reward.

Settings were chosen on seed 0, the ladder's number of batches on all: with 240 DAPO ran out of undecided problems on
seed 2.  Reward models that had not seen the generator's own questions took any two sentences for a good question:
within 50 batches they gave 2.99 of 3, and the oracle, who had given 0.91 before, 0.14.  A seed takes 14 minutes on one
core.

    python scripts/reproduce/intelli.py --seeds 0 1 2 --jobs 2

writes ``runs/reproduce-intelli/intelli.json`` and prints the tables; finished runs are found again, and ``--quick``
takes the first seed alone.
"""

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.reproduce.arms import (
    Table,
    arguments,
    conditions,
    each_seed,
    gap_covered,
    markdown,
    over_seeds,
    publish,
)
from scripts.reproduce.intelli_euclid import RESPONSES
from scripts.reproduce.intelli_heads import HEADS
from scripts.reproduce.intelli_runs import ASKED, BEST_OF, LADDER, PARTS, PROMPTS, SAMPLED, run_seed

AXES = ("effort", "evidence", "grounding")
JUDGES = ("reward", "judge", "oracle")
Shown = dict[str, tuple[Table, list[str]]]  # title -> rows, columns


# -- heads ---------------------------------------------------------------------------------------------------------


def heads_tables(folders: Sequence[Path]) -> Shown:
    """Agreement of every head with annotators and oracle, and whether it reads the paper."""
    found = [json.loads((folder / "heads.json").read_text()) for folder in folders]

    def rows(judge: str) -> Table:
        names = ("effort/accuracy", "evidence/accuracy", "grounding/accuracy", "accuracy", "balanced_accuracy")
        table = {head: over_seeds([[seed[head][judge][name] for name in names] for seed in found]) for head in HEADS}
        for baseline in ("majority", "source_mix", "by_source"):
            of = [next(iter(seed.values()))[f"{judge}, {baseline}"] for seed in found]
            table[f"*{baseline}*"] = over_seeds([[figures[name] for name in names[:-1]] for figures in of])
        return table

    columns = [*AXES, "mean", "balanced"]
    shares = {
        head: over_seeds([[seed[head]["grounded"][beside] for beside in ("own", "other")] for seed in found])
        for head in HEADS
    }
    return {
        "accuracy by the annotators' labels": (rows("annotators"), columns),
        "accuracy by the oracle's labels": (rows("oracle"), columns),
        "grounded questions called so": (shares, ["beside their paper", "beside another"]),
    }


# -- ladder --------------------------------------------------------------------------------------------------------


def records(folder: Path, stage: str) -> list[dict[str, Any]]:
    """The lines of a run's metrics of one stage."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["stage"] == stage]


def drawn(line: Mapping[str, Any]) -> float:
    """Problems that a batch took."""
    return float(line.get("sampling/draws", 1)) * (_PER_DRAW if "sampling/draws" in line else PROMPTS)


_PER_DRAW: int = json.loads(SAMPLED[1])["prompts_per_draw"]


def at_equal_problems(folder: Path, budget: float) -> float | None:
    """Held-out accuracy at the last validation by which no more than ``budget`` problems were drawn."""
    taken = {line["batch"]: drawn(line) for line in records(folder, "train")}
    held_out = [
        line["val/answers/accuracy_turn_1"]
        for line in records(folder, "val")
        if sum(count for batch, count in taken.items() if batch <= line["batch"]) <= budget
    ]
    return held_out[-1] if held_out else None


def ladder_tables(folders: Sequence[Path]) -> Shown:
    """Held-out accuracy of each rung, and what its answers are like."""
    rows: Table = {}
    for arm in LADDER:
        columns: list[list[float]] = [[] for _ in range(6)]
        for folder in folders:
            figures = json.loads((folder / f"{arm}_measured" / RESPONSES).read_text())
            spent = [sum(map(drawn, records(folder / name, "train"))) for name in ("grpo", arm)]
            entries = (
                conditions(folder / f"{arm}_measured")["answers"]["accuracy"][0],
                at_equal_problems(folder / arm, spent[0]),
                spent[1] / spent[0],
                figures["length"],
                figures["truncated"],
                figures["kept"],
            )
            for column, entry in zip(columns, entries, strict=True):
                column += [] if entry is None else [entry]
        rows[arm] = columns
    names = ["at equal steps", "at equal problems", "problems drawn", "tokens", "truncated", "problems undecided"]
    return {"held-out accuracy": (rows, names)}


# -- ask -----------------------------------------------------------------------------------------------------------


def asked(folder: Path, arm: str) -> dict[str, Any]:
    """All figures of the questions that a generator asks; the warm-up's are those before training."""
    if arm == "sft":
        return conditions(folder / next(iter(ASKED)), "validation_before.json")["answers"]
    return conditions(folder / arm)["answers"]


def ask_tables(folders: Sequence[Path]) -> Shown:
    """What judges find in the questions, how training went, and what choosing among the warm-up's comes to."""
    found = {arm: [asked(folder, arm) for folder in folders] for arm in ("sft", *ASKED)}

    def rows(*names: str) -> Table:
        return {arm: over_seeds([[seed[name] for name in names] for seed in seeds]) for arm, seeds in found.items()}

    marks = {f"{arm}, {judge}": found[arm] for arm in found for judge in JUDGES}
    by_axis = {
        row: over_seeds([[seed[f"{row.split(', ')[1]}/{axis}"] for axis in ("reward", *AXES)] for seed in seeds])
        for row, seeds in marks.items()
    }
    likeness = ("first_page_bias", "later_only", "unique_share", "mean_length", "truncated_share")
    chosen = {
        f"by {judge}": over_seeds([[seed[f"{judge}/best_of_{n}"] for n in BEST_OF] for seed in found["sft"]])
        for judge in JUDGES
    }
    return {
        "questions, 0 .. 3": (by_axis, ["sum", *AXES]),
        "what they are like": (rows(*likeness), [name.replace("_", " ") for name in likeness]),
        "best of n of the warm-up, chosen by reward": (chosen, [f"n = {n}" for n in BEST_OF]),
        "while training, sum": (course(folders), [f"{place + 1}" for place in range(len(_shortest(folders)))]),
    }


def _shortest(folders: Sequence[Path]) -> list[dict[str, Any]]:
    return min((records(folder / arm, "val") for folder in folders for arm in ASKED), key=len)


def course(folders: Sequence[Path]) -> Table:
    """The sum of marks at every validation while training."""
    count = len(_shortest(folders))
    return {
        f"{arm}, {judge}": over_seeds(
            [
                [line[f"val/answers/{judge}/reward"] for line in records(folder / arm, "val")[:count]]
                for folder in folders
            ]
        )
        for arm in ASKED
        for judge in JUDGES
    }


# -- verdicts ------------------------------------------------------------------------------------------------------


def raw_rewards(folder: Path, first: int = 3, last: int = 20) -> tuple[float, float]:
    """Mean reward over the first and over the last batches, of all that was sampled and not of what was kept."""
    lines = records(folder, "train")
    rewards = [line.get("sampling/reward", line.get("train/reward")) for line in lines]
    known = [reward for reward in rewards if reward is not None]
    return statistics.fmean(known[:first]), statistics.fmean(known[-last:])


def learnability(folders: Sequence[Path], arm: str, ceiling: float) -> str:
    """Whether a training learned enough, in every seed, for its table to count."""
    found = [(folder.name, *raw_rewards(folder / arm)) for folder in folders]
    shares = [gap_covered(start, end, ceiling) for _, start, end in found]
    told = [
        f"{seed}: {start:.3f} -> {end:.3f}, {share:.0%}"
        for (seed, start, end), share in zip(found, shares, strict=True)
    ]
    counts = "this table counts" if min(shares) >= 0.5 else "this table does not count: less than half the gap"
    return f"learnability of {arm} (of {ceiling:g}; {', '.join(told)} of the gap): {counts}"


def ladder_verdicts(folders: Sequence[Path]) -> list[str]:
    return [learnability(folders, arm, 1.0) for arm in LADDER]


def ask_verdicts(folders: Sequence[Path]) -> list[str]:
    return [learnability(folders, arm, 3.0 if mode == "hard_sum" else 1.0) for arm, mode in ASKED.items()]


REPORTS: dict[str, tuple[Callable[[Sequence[Path]], Shown], Callable[[Sequence[Path]], list[str]]]] = {
    "heads": (heads_tables, lambda folders: []),
    "ladder": (ladder_tables, ladder_verdicts),
    "ask": (ask_tables, ask_verdicts),
}


def report(folders: Sequence[Path], part: str) -> tuple[dict[str, Table], str]:
    """The tables of one part, and them as text with the verdicts on them."""
    make, judge = REPORTS[part]
    tables = make(folders)
    shown = [f"{title}\n\n{markdown(rows, columns)}" for title, (rows, columns) in tables.items()]
    return {title: rows for title, (rows, _) in tables.items()}, "\n\n".join([f"# {part}", *judge(folders), *shown])


def main() -> None:
    parser = arguments(str(__doc__), "reproduce-intelli")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    folders = each_seed(partial(run_seed, parts=options.parts), options)
    publish("intelli.json", {part: report(folders, part) for part in options.parts}, folders, options.root)


if __name__ == "__main__":
    main()
