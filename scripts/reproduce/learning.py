"""Does a student learn to use its teacher?  Quickstart and count-primes over several seeds, with their controls.

For every seed: NumberSearch from random weights; and on reasoning-gym's count_primes a warm-up on right answers, then
reinforcement learning with the teacher and, for as many episodes, with a content-free message in the teacher's place.
Every model is validated under all conditions.  Finished parts are found again, so a stopped run goes on.

    python scripts/reproduce/learning.py --seeds 0 1 2 --jobs 2

writes ``runs/reproduce/learning.json`` and prints the tables of the README.
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
from typing import Any

from lit_rl.environments import best_blind_search
from lit_rl.metrics import seed_interval

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "configs/quickstart/number_search.yaml"
WARMUP = ROOT / "configs/warmup/count_primes.yaml"
PRIMES = ROOT / "configs/sml/count_primes.yaml"
CONDITIONS = ("teacher", "retry", "shuffled", "resample")


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


def run_seed(root: Path, seed: int) -> None:
    """All runs of one seed."""
    numbers = ["--seed_everything", str(seed)]
    model = ["--model.init_args.policy.tiny.seed", str(seed)]
    here = root / f"seed-{seed}"
    run(here / "number_search", QUICKSTART, *numbers, *model)
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


def report(root: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Collect every validation into tables."""
    folders = [root / f"seed-{seed}" for seed in seeds]
    search = [accuracies(folder / "number_search") for folder in folders]
    numbers = {name: over_seeds([result[name] for result in search]) for name in search[0]}
    primes: dict[str, list[list[float]]] = {}
    before = [accuracies(folder / "primes", "validation_before.json") for folder in folders]
    after = [accuracies(folder / "primes") for folder in folders]
    wordless = [accuracies(folder / "primes_without_words") for folder in folders]
    primes["warmed up, teacher"] = over_seeds([result["teacher"] for result in before])
    for name in after[0]:
        primes[f"trained, {name}"] = over_seeds([result[name] for result in after])
    primes["trained without words, teacher"] = over_seeds([result["teacher"] for result in wordless])
    primes["trained without words, retry"] = over_seeds([result["retry"] for result in wordless])
    primes["best search that does not read the question"] = [[value] for value in blind_search()]
    seconds = {
        part: [json.loads((folder / part / "finished.json").read_text())["fit_seconds"] for folder in folders]
        for part in ("number_search", "warmup", "primes", "primes_without_words")
    }
    return {"seeds": list(seeds), "number_search": numbers, "count_primes": primes, "fit_seconds": seconds}


def blind_search(turns: int = 4) -> list[float]:
    """Accuracy by turn of the best higher/lower search under the answers' prior on the training tasks."""
    from collections import Counter

    from lit_rl.lightning_cli import load

    tasks = load(PRIMES).datamodule.tasks
    counts = Counter(int(tasks[i].gold) for i in range(len(tasks)))
    prior = {answer: count / counts.total() for answer, count in counts.items()}
    return [best_blind_search(prior, k + 1) for k in range(turns)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="seeds run side by side, one thread each if more than 1")
    parser.add_argument("--root", type=Path, default=ROOT / "runs/reproduce")
    options = parser.parse_args()
    if options.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda seed: run_seed(options.root.resolve(), seed), options.seeds))
    result = report(options.root, options.seeds)
    (options.root / "learning.json").write_text(json.dumps(result, indent=1))
    print("NumberSearch, from random weights\n\n" + table(result["number_search"]))
    print("\ncount_primes of reasoning-gym\n\n" + table(result["count_primes"]))
    print("\nseconds of training: " + json.dumps(result["fit_seconds"]))


if __name__ == "__main__":
    main()
