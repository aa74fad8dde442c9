"""Does a student learn to use its teacher?  Quickstart and count-bits over several seeds, with their controls.

For every seed, "number_search": NumberSearch from random weights; "count_bits": on that task of reasoning-gym a warm-up
on right answers, then reinforcement learning with the teacher and, for as many episodes, with a content-free message in
the teacher's place.  Every model is validated under all conditions.  Finished runs are found again, so a stopped script
goes on.

    python scripts/reproduce/learning.py --parts number_search --seeds 0 1 2 --jobs 2

writes ``runs/reproduce/learning.json`` and prints the tables of the README.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lit_rl.environments import best_blind_search
from lit_rl.lightning_cli import load

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.reproduce.arms import (
    ROOT,
    Table,
    accuracies,
    arguments,
    by_turn,
    each_seed,
    fit_seconds,
    over_seeds,
    run,
)

QUICKSTART = ROOT / "configs/quickstart/number_search.yaml"
WARMUP = ROOT / "configs/warmup/count_bits.yaml"
BITS = ROOT / "configs/sml/count_bits.yaml"


def run_seed(folder: Path, seed: int, parts: Sequence[str]) -> None:
    """All runs of one seed."""
    numbers = ["--seed_everything", str(seed)]
    model = ["--model.init_args.policy.tiny.seed", str(seed)]
    if "number_search" in parts:
        run(folder / "number_search", QUICKSTART, *numbers, *model)
    if "count_bits" in parts:
        run(folder / "warmup", WARMUP, *numbers, *model, validate=False)
        warm = ["--model.init_args.policy.path", str(folder / "warmup/checkpoints/last-policy")]
        run(folder / "bits", BITS, *numbers, *warm)
        run(folder / "bits_without_words", BITS, *numbers, *warm, "--data.init_args.feedback", "retry")


def number_search_table(folders: Sequence[Path]) -> Table:
    """Rows of NumberSearch, and the best that any student can reach."""
    results = [accuracies(folder / "number_search") for folder in folders]
    rows = {name: over_seeds([result[name] for result in results]) for name in results[0]}
    ceiling = json.loads((folders[0] / "number_search/validation.json").read_text())["ceiling"]
    return rows | {"ceiling": [[value] for value in ceiling]}


def count_bits_table(folders: Sequence[Path]) -> Table:
    """Rows of count_bits: before and after training, with and without a teacher, and a search that does not read."""
    before = [accuracies(folder / "bits", "validation_before.json") for folder in folders]
    after = [accuracies(folder / "bits") for folder in folders]
    wordless = [accuracies(folder / "bits_without_words") for folder in folders]
    rows = {f"warmed up, {name}": over_seeds([result[name] for result in before]) for name in ("teacher", "resample")}
    rows |= {f"trained, {name}": over_seeds([result[name] for result in after]) for name in after[0]}
    for name in ("teacher", "retry"):
        rows[f"trained without words, {name}"] = over_seeds([result[name] for result in wordless])
    return rows | {"best search that does not read the question": [[value] for value in blind_search()]}


def blind_search(turns: int = 4) -> list[float]:
    """Accuracy by turn of the best higher/lower search under the answers' prior on the training tasks."""
    tasks = load(BITS).datamodule.tasks
    counts = Counter(int(tasks[i].gold) for i in range(len(tasks)))
    prior = {answer: count / counts.total() for answer, count in counts.items()}
    return [best_blind_search(prior, k + 1) for k in range(turns)]


TABLES = {"number_search": number_search_table, "count_bits": count_bits_table}


def main() -> None:
    parser = arguments(str(__doc__), "reproduce")
    parser.add_argument("--parts", nargs="+", choices=list(TABLES), default=list(TABLES))
    options = parser.parse_args()
    folders = each_seed(partial(run_seed, parts=options.parts), options)
    tables = {part: TABLES[part](folders) for part in options.parts}
    result = {"seeds": options.seeds, "tables": tables, "fit_seconds": fit_seconds(folders)}
    (options.root / "learning.json").write_text(json.dumps(result, indent=1))
    for part, rows in tables.items():
        print(f"{part}\n\n{by_turn(rows)}\n")
    print("seconds of training: " + json.dumps(result["fit_seconds"]))


if __name__ == "__main__":
    main()
