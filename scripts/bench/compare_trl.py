"""Times whole training iterations of lit-rl and of TRL's GRPOTrainer against each other, on one machine, in one run.

Both load one model folder, answer the same prompts in groups, sample turns of the same limits, and learn from them in
one optimizer step, in float32 on the CPU.  Each side is a process of its own, and they take turns iteration by
iteration: while one works the other waits.  So a busy machine slows both, and ratios are taken between neighbours.

Cases; the model is that of `lit_rl.tiny`, 0.1 million weights, unless options say otherwise:

  single             128 completions of 64 tokens each
  single_stopping    as many, each ending by chance after 28 tokens in the mean, 64 at most
  dialogue           128 dialogues of 4 turns of 64 tokens each
  dialogue_stopping  as many, each turn ending by chance as above

In the stopping cases the sides sample about as many tokens, not the same: the last column divides by their number.
``cpu`` is processor time of a whole iteration, which a busy machine disturbs less than the clock.

TRL runs with its defaults, except that vLLM, bfloat16, recomputed activations, logs and checkpoints are off on both
sides, and that it splits a batch of dialogues into 4 micro-batches, with which it is fastest.  Its dialogues are those
of its ``environment_factory``: somebody else's turn is the result of a tool that the model calls.  lit-rl runs with its
defaults too.  Two things differ beside speed: where a turn is cut off, lit-rl inserts the end of turn that TRL leaves
out; and TRL pads a batch to its longest row, where lit-rl sorts rows by length into micro-batches.

Needs ``pip install "lit-rl[bench]"``.

    python scripts/bench/compare_trl.py --out runs/bench/trl.json
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # run as a file, Python looks beside it alone

from scripts.bench.case import Case, build_model  # noqa: E402

SIDES = ("lit_rl", "trl")
PHASES = ("sampling", "learning", "rest", "iteration", "cpu")
CASES = {
    "single": Case(name="single"),
    "single_stopping": Case(name="single_stopping", stop_probability=1 / 32),
    "dialogue": Case(name="dialogue", turns=4, trl_micro_batches=4),
    "dialogue_stopping": Case(name="dialogue_stopping", turns=4, stop_probability=1 / 32, trl_micro_batches=4),
}


class Side:
    """The process of one side."""

    def __init__(self, name: str, case: Case, folder: Path, iterations: int):
        self.name, self.log = name, folder.parent / f"{name}.log"
        command = [sys.executable, "-m", f"scripts.bench.{name}_side", case.to_json(), str(folder), str(iterations)]
        threads = {"OMP_NUM_THREADS": str(case.threads), "TOKENIZERS_PARALLELISM": "false"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | threads | {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def iterate(self) -> dict[str, float]:
        """Let it train one iteration; what that took."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the log says why
            print(file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The side of {self.name} ended:\n{self.log.read_text()[-4000:]}")
        report: dict[str, float] = json.loads(line)
        return report

    def close(self) -> None:
        """End it if it has not ended."""
        self.process.kill()
        self.process.communicate()


def compare(case: Case, iterations: int, warm_up: int) -> dict[str, Any]:
    """Run one case; every figure of every iteration behind the warm-up, and what they come to."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        build_model(case, folder)
        sides = [Side(name, case, folder, warm_up + iterations) for name in SIDES]
        reports: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
        try:
            for number in range(warm_up + iterations):
                for side in sides if number % 2 else reversed(sides):
                    reports[side.name].append(side.iterate())
        finally:
            for side in sides:
                side.close()
    measured = {name: found[warm_up:] for name, found in reports.items()}
    return {"case": json.loads(case.to_json()), "summary": summarize(measured), "iterations": measured}


def summarize(measured: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Median and quartiles of each figure; ratios are between iterations that ran side by side."""
    summary: dict[str, Any] = {
        name: {key: spread([report[key] for report in found]) for key in found[0]} for name, found in measured.items()
    }
    pairs = list(zip(measured["trl"], measured["lit_rl"], strict=True))
    summary["trl / lit_rl"] = {phase: spread([trl[phase] / ours[phase] for trl, ours in pairs]) for phase in PHASES}
    per_token = [
        (trl["iteration"] / trl["sampled_tokens"]) / (ours["iteration"] / ours["sampled_tokens"]) for trl, ours in pairs
    ]
    summary["trl / lit_rl"]["iteration_per_token"] = spread(per_token)
    return summary


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3
    return {"median": quartiles[1], "low": quartiles[0], "high": quartiles[2]}


def table(result: dict[str, Any]) -> str:
    """One case as Markdown; seconds, median (quartiles)."""
    case, summary = Case(**result["case"]), result["summary"]
    lines = [
        f"{case.name}: {case.rows} dialogues x {case.turns} turns x up to {case.max_tokens} tokens, "
        f"hidden {case.hidden_size}, {case.layers} layers, {case.threads} threads",
        "",
        "| | " + " | ".join(PHASES) + " | tokens sampled | iteration per token |",
        "|---" * (len(PHASES) + 3) + "|",
    ]
    for name in SIDES:
        cells = [shown(summary[name][phase]) for phase in PHASES]
        tokens = summary[name]["sampled_tokens"]["median"]
        cells += [f"{tokens:.0f}", f"{summary[name]['iteration']['median'] / tokens * 1e6:.0f} us"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    ratios = summary["trl / lit_rl"]
    cells = [shown(ratios[phase]) for phase in PHASES]
    lines.append("| trl / lit_rl | " + " | ".join([*cells, "", shown(ratios["iteration_per_token"])]) + " |")
    return "\n".join(lines)


def shown(figure: dict[str, float]) -> str:
    """Median and quartiles, three digits each."""
    return f"{figure['median']:.3g} ({figure['low']:.3g}-{figure['high']:.3g})"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    packages = ("lit-rl", "trl", "torch", "transformers", "lightning", "peft")
    facts = {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}
    return facts | {"python": platform.python_version()} | {name: version(name) for name in packages}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--iterations", type=int, default=10, help="measured, of each side and case")
    parser.add_argument("--warm-up", type=int, default=2, help="iterations before those")
    parser.add_argument("--out", type=Path, help="write every figure there, as JSON")
    for name in ("turns", "max_tokens", "tasks", "group_size", "hidden_size", "layers", "heads", "threads", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="of every case")
    options = parser.parse_args(arguments)
    if options.iterations < 1 or options.warm_up < 0:
        parser.error("--iterations must be at least 1 and --warm-up at least 0.")
    if importlib.util.find_spec("trl") is None:
        parser.error('TRL is not installed: pip install "lit-rl[bench]".')
    return options


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = parse(arguments)
    changes = {k: v for k, v in vars(options).items() if k in Case.__dataclass_fields__ and v is not None}
    result: dict[str, Any] = {"machine": machine(), "cases": {}}
    for name in options.cases:
        result["cases"][name] = compare(replace(CASES[name], **changes), options.iterations, options.warm_up)
        print(table(result["cases"][name]) + "\n", flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
