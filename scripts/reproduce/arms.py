"""What the scripts beside this one share: runs in forked children, found again once finished, and tables of them."""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lit_rl import lightning_cli
from lit_rl.metrics import seed_interval

ROOT = Path(__file__).resolve().parents[2]
Table = dict[str, list[list[float]]]  # row -> one entry a column, each a list over seeds

_FORK = multiprocessing.get_context("fork")  # a child has everything imported already


def lit_rl(*arguments: str, log: Path) -> float:
    """Run ``lit-rl`` in a forked child; returns wall-clock seconds, raises with the end of its output."""
    return apart(f"lit-rl {' '.join(arguments)}", partial(lightning_cli.main, arguments), log)


def apart(name: str, work: Callable[[], Any], log: Path) -> float:
    """Do ``work`` in a forked child, its output in a file; returns wall-clock seconds, raises with the end of it.

    A process that has computed with several threads must not fork: its children would wait for threads that are not
    there.  So whatever computes before another run does so in a child as well.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    child = _FORK.Process(target=_in_child, args=(work, log))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"{name} ended with {child.exitcode}:\n{log.read_text()[-2000:]}")
    return time.perf_counter() - start


def _in_child(work: Callable[[], Any], log: Path) -> None:
    with log.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.chdir(ROOT)
    # torch makes its thread pool anew after a fork, when first asked, and two threads must not be first together.
    torch.set_num_threads(torch.get_num_threads())
    work()
    sys.stdout.flush()


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


def validate(folder: Path, config: Path, checkpoint: Path | None, *options: str) -> None:
    """Validate a checkpoint, or the model as the config loads it, into a folder of its own; nothing if that is done."""
    name = "validation_before.json" if checkpoint is None else "validation.json"
    if (folder / name).exists():
        return
    given = () if checkpoint is None else ("--ckpt_path", str(checkpoint))
    common = ["--config", str(config), "--trainer.default_root_dir", str(folder), *options]
    lit_rl("validate", *common, *given, log=folder / "validate.log")


def arguments(description: str, root: str) -> argparse.ArgumentParser:
    """Options that every script takes: seeds, jobs, and the folder of its runs; `each_seed` obeys them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="the first seed alone")
    parser.add_argument("--jobs", type=int, default=1, help="seeds run side by side, one thread each if more than 1")
    parser.add_argument("--root", type=Path, default=ROOT / "runs" / root)
    return parser


def each_seed(function: Callable[[Path, int], None], options: argparse.Namespace) -> list[Path]:
    """Call ``function(folder, seed)``, which must pickle, for every seed, ``jobs`` at a time; returns the folders."""
    if options.jobs > 1:
        torch.set_num_threads(1)  # the children inherit it; the environment is read when torch is loaded
    if options.quick:
        options.seeds = options.seeds[:1]
    folders = [options.root.resolve() / f"seed-{seed}" for seed in options.seeds]
    with ProcessPoolExecutor(options.jobs, _FORK) as pool:  # of processes: a child forked by a thread ends with 1
        list(pool.map(function, folders, options.seeds))
    return folders


def conditions(folder: Path, name: str = "validation.json") -> dict[str, dict[str, Any]]:
    """All figures of every condition of one validation."""
    found: dict[str, dict[str, Any]] = json.loads((folder / name).read_text())["conditions"]
    return found


def accuracies(folder: Path, name: str = "validation.json") -> dict[str, list[float]]:
    """Accuracy by turn of every condition of one validation."""
    return {condition: result["accuracy"] for condition, result in conditions(folder, name).items()}


def training_rewards(folder: Path, batches: int = 20) -> tuple[float, float]:
    """Mean reward of a dialogue in training, over the first and over the last ``batches`` batches of a run."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    rewards = [record["train/reward"] for record in records if "train/reward" in record]
    return statistics.fmean(rewards[:batches]), statistics.fmean(rewards[-batches:])


def gap_covered(start: float, end: float, ceiling: float) -> float:
    """Which share of the way from a training's first rewards to the best that are possible it went."""
    return (end - start) / (ceiling - start) if start < ceiling else 0.0


def learnability(folders: Sequence[Path], run_name: str, ceiling: float) -> str:
    """Whether a training learned enough, in every seed, for its table to say anything of what was learned."""
    rewards = [training_rewards(folder / run_name) for folder in folders]
    shares = [gap_covered(start, end, ceiling) for start, end in rewards]
    told = ", ".join(
        f"{folder.name}: {start:.3f} -> {end:.3f} of {ceiling:.3f}, {share:.0%} of the gap"
        for folder, (start, end), share in zip(folders, rewards, shares, strict=True)
    )
    counts = "this table counts" if min(shares) >= 0.5 else "this table does not count: less than half the gap"
    return f"learnability of {run_name} ({told}): {counts}"


def verdict(shares: Mapping[str, Sequence[float]], judged: str) -> str:
    """Whether an arm covered half of its gap in every seed, so that tables say anything; the others beside it.

    Args:
        shares: Of every arm the share of its gap that it covered, one entry a seed.
        judged: The arm that decides.
    """
    told = "; ".join(f"{arm} " + ", ".join(f"{share:.0%}" for share in each) for arm, each in shares.items())
    counts = "the tables count" if min(shares[judged]) >= 0.5 else "the tables do not count: less than half the gap"
    return f"learnability, share of the gap by seed: {told}: {counts}"


def over_seeds(results: Sequence[Sequence[float]]) -> list[list[float]]:
    """Turn (seeds, columns) into (columns, seeds)."""
    return [list(column) for column in zip(*results, strict=True)]


def fit_seconds(folders: Sequence[Path]) -> dict[str, list[float]]:
    """Wall-clock seconds of every training, by run, one entry a seed."""
    names = sorted({done.parent.name for folder in folders for done in folder.glob("*/finished.json")})
    return {
        name: [json.loads((folder / name / "finished.json").read_text())["fit_seconds"] for folder in folders]
        for name in names
    }


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % half-width over seeds; a dash where no seed has a value."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    result = seed_interval(values)
    return f"{result.mean:.3f} ± {result.half_width:.3f}"


def markdown(rows: Table, columns: Sequence[str]) -> str:
    """One line a row of the table."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(interval(values) for values in entry) + " |" for name, entry in rows.items()]
    return "\n".join(lines)


def by_turn(rows: Table) -> str:
    """`markdown` of accuracies by turn."""
    return markdown(rows, [f"acc@{k + 1}" for k in range(max(len(entry) for entry in rows.values()))])


def publish(name: str, reports: Mapping[str, tuple[Any, str]], folders: Sequence[Path], root: Path) -> None:
    """Write the tables of every part, and them as text, to a JSON file in ``root``, and print the text."""
    result: dict[str, Any] = {"seeds": [folder.name for folder in folders], "fit_seconds": fit_seconds(folders)}
    result |= {part: {"tables": tables, "text": text} for part, (tables, text) in reports.items()}
    (root / name).write_text(json.dumps(result, indent=1))
    print("\n\n".join(text for _, text in reports.values()))
    print("\nseconds of training: " + json.dumps(result["fit_seconds"]))
