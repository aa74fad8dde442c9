"""Does a student learn to use its teacher?  Quickstart and count-primes over several seeds, with their controls.

For every seed, "number_search": NumberSearch from random weights; "count_primes": on that task of reasoning-gym a
warm-up on right answers, then reinforcement learning with the teacher and, for as many episodes, with a content-free
message in the teacher's place.  Every model is validated under all conditions.  Finished runs are found again, so a
stopped script goes on.

    python scripts/reproduce/learning.py --parts number_search --seeds 0 1 2 --jobs 2

writes ``runs/reproduce/learning.json`` and prints the table of the README.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lit_rl.environments import best_blind_search
from lit_rl.metrics import seed_interval

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "configs/quickstart/number_search.yaml"
WARMUP = ROOT / "configs/warmup/count_primes.yaml"
PRIMES = ROOT / "configs/sml/count_primes.yaml"


def lit_rl(*arguments: str, log: Path) -> float:
    """Run ``lit-rl`` in a process of its own; returns wall-clock seconds, raises with the end of its output."""
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with log.open("w") as out:
        command = [sys.executable, "-m", "lit_rl", *arguments]
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT).returncode
    if code:
        raise RuntimeError(f"{' '.join(arguments)} ended with {code}:\n{log.read_text()[-2000:]}")
    return time.perf_counter() - start


def run(folder: Path, config: Path, *options: str, validate: bool = True) -> None:
    """Fit (or go on with) one run and validate it; nothing if it is finished."""
    done = folder / "finished.json"
    if done.exists():
        return
    common = ["--config", str(config), "--trainer.default_root_dir", str(folder), *options]
    seconds = lit_rl("fit", *common, "--ckpt_path", "last", log=folder / "fit.log")
    if validate:
        last = str(folder / "checkpoints/last.ckpt")
        lit_rl("validate", *common, "--ckpt_path", last, log=folder / "validate.log")
    done.write_text(json.dumps({"fit_seconds": seconds}))


def run_seed(root: Path, seed: int, parts: Sequence[str]) -> None:
    """All runs of one seed."""
    numbers = ["--seed_everything", str(seed)]
    model = ["--model.init_args.policy.tiny.seed", str(seed)]
    here = root / f"seed-{seed}"
    if "number_search" in parts:
        run(here / "number_search", QUICKSTART, *numbers, *model)
    if "count_primes" in parts:
        run(here / "warmup", WARMUP, *numbers, *model, validate=False)
        warm = ["--model.init_args.policy.path", str(here / "warmup/checkpoints/last-policy")]
        run(here / "primes", PRIMES, *numbers, *warm)
        run(here / "primes_without_words", PRIMES, *numbers, *warm, "--data.init_args.feedback", "retry")


def accuracies(folder: Path, name: str = "validation.json") -> dict[str, list[float]]:
    """Accuracy by turn of every condition of one validation."""
    conditions = json.loads((folder / name).read_text())["conditions"]
    return {condition: result["accuracy"] for condition, result in conditions.items()}


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % half-width over seeds."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    result = seed_interval(values)
    return f"{result.mean:.3f} ± {result.half_width:.3f}"


def table(rows: dict[str, list[list[float]]]) -> str:
    """Markdown: one row a condition, one column a turn; entries are lists over seeds."""
    turns = max(len(entry) for entry in rows.values())
    lines = ["| | " + " | ".join(f"acc@{k + 1}" for k in range(turns)) + " |", "|---" * (turns + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(interval(values) for values in entry) + " |" for name, entry in rows.items()]
    return "\n".join(lines)


def over_seeds(results: list[list[float]]) -> list[list[float]]:
    """Turn (seeds, turns) into (turns, seeds)."""
    return [list(column) for column in zip(*results, strict=True)]


def number_search_table(folders: Sequence[Path]) -> dict[str, list[list[float]]]:
    """Rows of NumberSearch, and the best that any student can reach."""
    results = [accuracies(folder / "number_search") for folder in folders]
    rows = {name: over_seeds([result[name] for result in results]) for name in results[0]}
    ceiling = json.loads((folders[0] / "number_search/validation.json").read_text())["ceiling"]
    return rows | {"ceiling": [[value] for value in ceiling]}


def count_primes_table(folders: Sequence[Path]) -> dict[str, list[list[float]]]:
    """Rows of count_primes: before and after training, with and without a teacher, and a search that does not read."""
    before = [accuracies(folder / "primes", "validation_before.json") for folder in folders]
    after = [accuracies(folder / "primes") for folder in folders]
    wordless = [accuracies(folder / "primes_without_words") for folder in folders]
    rows = {f"warmed up, {name}": over_seeds([result[name] for result in before]) for name in ("teacher", "resample")}
    rows |= {f"trained, {name}": over_seeds([result[name] for result in after]) for name in after[0]}
    for name in ("teacher", "retry"):
        rows[f"trained without words, {name}"] = over_seeds([result[name] for result in wordless])
    return rows | {"best search that does not read the question": [[value] for value in blind_search()]}


def fit_seconds(folders: Sequence[Path]) -> dict[str, list[float]]:
    """Wall-clock seconds of every training, by run, one entry a seed."""
    names = sorted({done.parent.name for folder in folders for done in folder.glob("*/finished.json")})
    return {
        name: [json.loads((folder / name / "finished.json").read_text())["fit_seconds"] for folder in folders]
        for name in names
    }


def blind_search(turns: int = 4) -> list[float]:
    """Accuracy by turn of the best higher/lower search under the answers' prior on the training tasks."""
    from collections import Counter

    from lit_rl.lightning_cli import load

    tasks = load(PRIMES).datamodule.tasks
    counts = Counter(int(tasks[i].gold) for i in range(len(tasks)))
    prior = {answer: count / counts.total() for answer, count in counts.items()}
    return [best_blind_search(prior, k + 1) for k in range(turns)]


TABLES = {"number_search": number_search_table, "count_primes": count_primes_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="seeds run side by side, one thread each if more than 1")
    parser.add_argument("--root", type=Path, default=ROOT / "runs/reproduce")
    parser.add_argument("--parts", nargs="+", choices=list(TABLES), default=list(TABLES))
    options = parser.parse_args()
    if options.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda seed: run_seed(options.root.resolve(), seed, options.parts), options.seeds))
    folders = [options.root / f"seed-{seed}" for seed in options.seeds]
    tables = {part: TABLES[part](folders) for part in options.parts}
    result = {"seeds": options.seeds, "tables": tables, "fit_seconds": fit_seconds(folders)}
    (options.root / "learning.json").write_text(json.dumps(result, indent=1))
    for part, rows in tables.items():
        print(f"{part}\n\n{table(rows)}\n")
    print("seconds of training: " + json.dumps(result["fit_seconds"]))


if __name__ == "__main__":
    main()
