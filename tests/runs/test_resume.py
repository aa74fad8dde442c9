"""A run killed by SIGKILL and resumed ends with the bytes of the run that was left alone (issue: bitwise resume)."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_rl import lightning_cli
from lit_rl.callbacks.metrics_file import MetricsFile
from lit_rl.methods import Method
from lit_rl.sampling import Sampler
from tests.forking import in_child, kill_on_call

CONFIG = Path(__file__).parents[2] / "configs/quickstart/number_search.yaml"
BATCHES = 30


def fit(root: Path, sabotage: Callable[[], None] | None = None) -> int:
    """The quickstart's training cut to 30 batches, with checkpoints and validation more often; exit code."""

    def child() -> None:
        if sabotage is not None:
            sabotage()
        lightning_cli.main(
            [
                "fit",
                f"--config={CONFIG}",
                f"--trainer.default_root_dir={root}",
                "--trainer.max_epochs=1",
                "--trainer.val_check_interval=7",
                f"--data.init_args.batches_per_epoch={BATCHES}",
                "--data.init_args.tasks_per_batch=8",
                "--model.init_args.micro_batch_tokens=512",
                "--model.init_args.steps_per_batch=2",
                "--checkpoints.every_n_batches=4",
                "--ckpt_path=last",
            ]
        )

    root.mkdir(parents=True, exist_ok=True)
    return in_child(child, root / "output.txt")


MOMENTS: dict[str, tuple[Any, str]] = {
    "sampling": (Sampler, "run"),
    "between micro-batches": (Method, "_backward"),
    "writing a checkpoint": (os, "fsync"),
    "writing metrics": (MetricsFile, "on_train_batch_end"),
}


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("left_alone")
    assert fit(root) == 0, (root / "output.txt").read_text()[-3000:]
    return root


def assert_same_run(resumed: Path, alone: Path) -> None:
    for name in ("metrics.jsonl", "episodes.bin"):
        assert (resumed / name).read_bytes() == (alone / name).read_bytes(), name
    ours, theirs = (torch.load(root / "checkpoints/last.ckpt", weights_only=True) for root in (resumed, alone))
    for part in ("state_dict", "optimizer_states", "callbacks", "loops", "policy_version"):
        assert_equal(ours[part], theirs[part], part)


def assert_equal(ours: Any, theirs: Any, where: str) -> None:
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(a, b, f"{where}[{i}]")
    else:
        assert ours == theirs, where


@pytest.mark.slow
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_killed_and_resumed_equals_left_alone(moment: str, left_alone: Path, tmp_path: Path) -> None:
    owner, name = MOMENTS[moment]
    rng = random.Random(moment)
    kills = 0
    for _ in range(3):
        call = rng.randint(2, 20) if name != "fsync" else rng.randint(1, 4)
        code = fit(tmp_path, lambda call=call: kill_on_call(owner, name, call, before=name != "_backward"))  # type: ignore[misc]
        kills += code == -9
        assert code in (0, -9), (tmp_path / "output.txt").read_text()[-3000:]
    assert kills, "the run was never killed, so nothing was tested"
    assert fit(tmp_path) == 0, (tmp_path / "output.txt").read_text()[-3000:]
    assert_same_run(tmp_path, left_alone)
