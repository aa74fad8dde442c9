"""Does a student that learns its teacher's critiques correct itself without one?  RL2F on small worlds, with controls.

For every seed and part:

* "colour_fix": from one warm-up, RL on ColourFix with a teacher who names the first clashing edge; with critique
  prediction of weight 1 ("trained") and 0.1 ("trained_weakly"), without ("no_critiques"), and with words about another
  problem, heard and predicted ("permuted").  Under "self_crit_base" the warmed-up model criticises the trained one.
  Tasks held out have labelled graphs that warm-up and training leave out.
* "transfer": the model "trained" on graphs of more edges, and with a teacher who names a vertex by what only it knows.
* "number_search": the negative control, where no critic can know what to say: from random weights, with critiques.

How ColourFix was set: on seed 0, after four settings on the way to ``configs/rl2f/tiny.yaml``, by two more with
a weight of 0.1 and held-out tasks that did not leave graphs out: with 5 edges learning was slow; with 4 the student
used critiques before it could give them, and its self-correction was no better than with critiques of other problems.
So the weight is 1 here; nothing was changed after its first run.

The learnability of each training says whether its table counts.  Finished runs are found again, so a stopped script
goes on.

    python scripts/reproduce/rl2f.py --seeds 0 1 2 --jobs 2

writes ``runs/reproduce-rl2f/rl2f.json`` and prints the tables; ``--quick`` takes the first seed alone.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import combinations
from math import sqrt
from pathlib import Path

from lit_rl.environments.teacher_words import RETRY
from lit_rl.environments.teachers import PLEASE

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.reproduce.arms import (
    ROOT,
    Table,
    accuracies,
    arguments,
    by_turn,
    conditions,
    each_seed,
    learnability,
    markdown,
    over_seeds,
    publish,
    run,
    validate,
)

WARMUP = ROOT / "configs/rl2f/warmup.yaml"
TINY = ROOT / "configs/rl2f/tiny.yaml"
NUMBERS = ROOT / "configs/quickstart/number_search.yaml"
WORLD = {"size": 20000, "vertices": 5, "edges": 4}
WORDS = [
    *(f"clash {a} {b}" for a, b in combinations(range(5), 2)),
    *(f"change {vertex}" for vertex in range(5)),
    *("correct", PLEASE, RETRY),
]
# The warm-up teaches the words of a critic, drawn at random, and so their form but not when they are right.
WARM = (
    *("--data.init_args.demonstrations.init_args.feedback", json.dumps(WORDS)),
    *("--data.init_args.train_feedback", "true"),
    *("--data.init_args.batch_size", "128", "--data.init_args.batches_per_epoch", "250", "--trainer.max_epochs", "1"),
    *("--model.init_args.lr_scheduler.init_args.total_iters", "250"),
)
SLOW_START = {
    "class_path": "torch.optim.lr_scheduler.LinearLR",
    "init_args": {"start_factor": 0.05, "end_factor": 1.0, "total_iters": 30},
}
TRAINING = (
    *("--model.init_args.optimizer.init_args.lr", "1e-3", "--model.init_args.optimizer.init_args.eps", "1e-5"),
    *("--model.init_args.lr_scheduler", json.dumps(SLOW_START)),
    *("--model.init_args.entropy_coef", "0.02", "--model.init_args.steps_per_batch", "2"),
    *("--data.init_args.student.max_tokens", "6", "--data.init_args.max_critique_tokens", "10"),
    *("--data.init_args.batches_per_epoch", "100", "--trainer.max_epochs", "6"),
)
ARMS = {
    "trained": ("--model.init_args.critique_coef", "1"),
    "trained_weakly": ("--model.init_args.critique_coef", "0.1"),
    "no_critiques": ("--model.init_args.critique_coef", "0"),
    "permuted": ("--model.init_args.critique_coef", "1", "--data.init_args.feedback", "shuffled"),
}
LOCAL = "lit_rl.local_party.LocalParty"
AS_THE_STUDENT = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 10}
VERTEX = {"class_path": "lit_rl.environments.ColourHint", "init_args": {"kind": "vertex"}}
TRANSFER: dict[str, tuple[dict[str, int], tuple[str, ...]]] = {
    "edges_5": ({"edges": 5}, ()),
    "edges_6": ({"edges": 6}, ()),
    "vertex_teacher": ({}, ("--data.init_args.teacher", json.dumps(VERTEX))),
}
RL2F_ON_NUMBERS = (
    *("--model", "lit_rl.methods.RL2F", "--model.init_args.critique_coef", "0.1"),
    *("--trainer.callbacks+", "lit_rl.callbacks.TeacherCritiquePrediction"),
    *("--data.init_args.dialogue.accept_message", "correct", "--data.init_args.max_critique_tokens", "2"),
    *("--data.init_args.conditions", json.dumps(["teacher", "retry", "self_crit", "shuffled_crit"])),
    *("--trainer.max_epochs", "15", "--validate_first", "false"),
)
CONTROLS = ("retry", "resample", "shuffled", "shuffled_crit")
ELSEWHERE = ("teacher", "retry", "resample", "self_crit", "shuffled_crit")
FIGURES = {  # column -> (condition, figure) of a validation
    "acc_last@4": ("self_crit", "acc_last_turn_4"),
    "acc_self": ("self_crit", "acc_self"),
    "attempts used": ("self_crit", "attempts_used"),
    "verdicts right": ("self_crit", "verdict_accuracy"),
    "true accept": ("self_crit", "true_accept"),
    "false accept": ("self_crit", "false_accept"),
    "critique nll": ("teacher", "critique_nll"),
    "critique exact": ("teacher", "critique_exact"),
    "over-compliance": ("false_criticism", "over_compliance"),
}


def tasks(name: str, held_out: bool, **changes: int) -> tuple[str, str]:
    """An option that takes ColourFix problems from one lot of graphs."""
    world = {"class_path": "lit_rl.environments.ColourFix", "init_args": WORLD | changes}
    lot = {"class_path": "scripts.reproduce.unseen.Lot", "init_args": {"tasks": world, "held_out": held_out}}
    return f"--{name}", json.dumps(lot)


def run_seed(folder: Path, seed: int, parts: Sequence[str]) -> None:
    """All runs of one seed."""
    numbers = ("--seed_everything", str(seed))
    model = ("--model.init_args.policy.tiny.seed", str(seed))
    if {"colour_fix", "transfer"} & set(parts):
        demonstrations = tasks("data.init_args.demonstrations.init_args.tasks", held_out=False)
        run(folder / "warmup", WARMUP, *numbers, *model, *demonstrations, *WARM, validate=False)
        colours(folder, numbers, parts)
    if "number_search" in parts:
        run(folder / "number_search", NUMBERS, *numbers, *model, *RL2F_ON_NUMBERS)


def colours(folder: Path, numbers: Sequence[str], parts: Sequence[str]) -> None:
    """The arms of ColourFix, from one warm-up, and what the first of them does elsewhere."""
    start = ("--model.init_args.policy.path", str(folder / "warmup/checkpoints/last-policy"))
    warm = (*numbers, *start, *TRAINING)
    lots = (*tasks("data.init_args.tasks", held_out=False), *tasks("data.init_args.validation_tasks", held_out=True))
    for arm in ARMS if "colour_fix" in parts else ("trained",):
        before = () if arm == "trained" else ("--validate_first", "false")  # the same for all arms
        run(folder / arm, TINY, *warm, *lots, *ARMS[arm], *before)
    if "colour_fix" in parts:
        critic = {"policy": {"path": start[1]}, "settings": AS_THE_STUDENT}
        others = (
            *("--data.init_args.base_critic", json.dumps({"class_path": LOCAL, "init_args": critic})),
            *("--data.init_args.conditions", json.dumps(["self_crit_base"])),
        )
        validate(folder / "base_critic", TINY, folder / "trained/checkpoints/last.ckpt", *warm, *lots, *others)
    for name, (changes, options) in TRANSFER.items() if "transfer" in parts else ():
        elsewhere = (*lots[:2], *tasks("data.init_args.validation_tasks", held_out=True, **changes), *options)
        for model, checkpoint in (("warmed_up", None), ("trained", folder / "trained/checkpoints/last.ckpt")):
            validate(folder / f"{model}_on_{name}", TINY, checkpoint, *warm, *elsewhere)


def row(folders: Sequence[Path], run_name: str, condition: str, file: str = "validation.json") -> list[list[float]]:
    """Accuracy by turn of one run under one condition, over seeds."""
    return over_seeds([accuracies(folder / run_name, file)[condition] for folder in folders])


def colour_fix_tables(folders: Sequence[Path]) -> dict[str, Table]:
    """Accuracy within k attempts of warm-up and arms; what self-correction is worth; blind figures and verdicts."""
    before = "validation_before.json"
    names = [name for name in conditions(folders[0] / "trained") if name != "self_crit_greedy"]
    within = {f"warmed up, {name}": row(folders, "trained", name, before) for name in names}
    within |= {f"{arm}, {name}": row(folders, arm, name) for arm in ARMS for name in names}
    within["trained, self_crit_base"] = row(folders, "base_critic", "self_crit_base")
    return {
        "accuracy within k attempts": within,
        "self_crit of trained minus control, within k attempts": differences(folders),
        "self-correction and critiques": figures(folders, ARMS),
    }


def differences(folders: Sequence[Path]) -> Table:
    """Accuracy of the trained arm under "self_crit" minus that of every control, seed by seed."""
    mine = row(folders, "trained", "self_crit")
    others = {name: row(folders, "trained", name) for name in CONTROLS}
    others["self_crit_base"] = row(folders, "base_critic", "self_crit_base")
    others |= {f"self_crit of {arm}": row(folders, arm, "self_crit") for arm in ARMS if arm != "trained"}
    return {
        name: [[a - b for a, b in zip(*turn, strict=True)] for turn in zip(mine, other, strict=True)]
        for name, other in others.items()
    }


def figures(folders: Sequence[Path], runs: Iterable[str]) -> Table:
    """`FIGURES` of every run; of a seed where one is undefined (no wrong attempt to accept, say) there is none."""
    found = {name: [conditions(folder / name) for folder in folders] for name in runs}
    return {
        name: [
            [result[where][figure] for result in results if figure in result.get(where, {})]
            for where, figure in FIGURES.values()
        ]
        for name, results in found.items()
    }


def transfer_tables(folders: Sequence[Path]) -> dict[str, Table]:
    """Accuracy within k attempts where nothing was trained."""
    rows: Table = {}
    for name in TRANSFER:
        for model, file in (("warmed_up", "validation_before.json"), ("trained", "validation.json")):
            run_name = f"{model}_on_{name}"
            rows |= {f"{name}, {model}, {shown}": row(folders, run_name, shown, file) for shown in ELSEWHERE}
    return {"accuracy within k attempts, transfer": rows}


def number_search_tables(folders: Sequence[Path]) -> dict[str, Table]:
    """Accuracy within k attempts, what nobody without a teacher can exceed, and blind figures."""
    within = {name: row(folders, "number_search", name) for name in conditions(folders[0] / "number_search")}
    within["without a teacher at most"] = [[k / 15] for k in range(1, 5)]
    return {
        "accuracy within k attempts": within,
        "self-correction and critiques": figures(folders, ["number_search"]),
    }


def negative_control(folders: Sequence[Path]) -> str:
    """Whether self-correction on NumberSearch stays within chance and three standard errors, seed by seed."""
    lines = []
    for folder in folders:
        found = conditions(folder / "number_search")["self_crit"]
        reached, dialogues = found["accuracy"][3], 15 * 64
        limit = 4 / 15 + 3 * sqrt(4 / 15 * 11 / 15 / dialogues)
        lines.append(f"{folder.name}: {reached:.3f} {'<=' if reached <= limit else 'EXCEEDS'} {limit:.3f}")
    return "self_crit acc@4 against chance and 3 standard errors: " + "; ".join(lines)


Part = tuple[Callable[[Sequence[Path]], dict[str, Table]], str, float]
PARTS: dict[str, Part] = {  # tables, the run they stand on, and the best reward of its training
    "colour_fix": (colour_fix_tables, "trained", 1.0),
    "transfer": (transfer_tables, "trained", 1.0),
    "number_search": (number_search_tables, "number_search", (2**4 - 1) / 15),
}


def told(title: str, rows: Table) -> str:
    """One table as text."""
    return f"{title}\n\n" + (markdown(rows, list(FIGURES)) if title.startswith("self-correction") else by_turn(rows))


def report(folders: Sequence[Path], part: str) -> tuple[dict[str, Table], str]:
    """The tables of one part, and them as text with the verdicts on them."""
    make, run_name, ceiling = PARTS[part]
    tables = make(folders)
    notes = [learnability(folders, run_name, ceiling)]
    if part == "colour_fix":
        notes += [learnability(folders, arm, ceiling) for arm in ARMS if arm != run_name]
    if part == "number_search":
        notes.append(negative_control(folders))
    return tables, "\n\n".join([f"# {part}", *notes, *(told(title, rows) for title, rows in tables.items())])


def main() -> None:
    parser = arguments(str(__doc__), "reproduce-rl2f")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    folders = each_seed(partial(run_seed, parts=options.parts), options)
    reports = {part: report(folders, part) for part in options.parts}
    publish("rl2f.json", reports, folders, options.root)


if __name__ == "__main__":
    main()
