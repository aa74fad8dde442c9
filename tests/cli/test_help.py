"""Help is there at once, and a report needs no training stack."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOADED = "import sys; from lit_rl.cli import main; main({arguments}); print('LOADED', *sys.modules)"
HEAVY = {"torch", "lightning", "transformers", "peft", "bitsandbytes", "jsonargparse", "datasets", "numpy"}


def modules_after(*arguments: str) -> set[str]:
    code = LOADED.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    return set(line.split()[1:])


def test_help_imports_nothing_heavy_and_takes_no_time() -> None:
    assert not HEAVY & modules_after("--help")
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "lit_rl", "--help"], cwd=ROOT, capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
        assert done.stdout.startswith("usage: lit-rl ")
    assert min(seconds) < 0.5


def test_a_report_imports_no_training_stack() -> None:
    assert not {"torch", "lightning", "transformers", "jsonargparse"} & modules_after("report", "no-such-folder")


def test_fit_imports_no_library_it_does_not_use() -> None:
    code = "import sys, lit_rl.lightning_cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"reasoning_gym", "textworld", "openai", "trl", "bitsandbytes"} & set(done.stdout.split())
