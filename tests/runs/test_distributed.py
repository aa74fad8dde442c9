"""Two processes learn what one process learns on the union of their rows."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/quickstart/number_search.yaml"


def fit(root: Path, *options: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "lit_rl", "fit", f"--config={CONFIG}", f"--trainer.default_root_dir={root}"),
        *("--trainer.max_epochs=1", "--data.init_args.batches_per_epoch=3", "--data.init_args.tasks_per_batch=8"),
        *("--model.init_args.steps_per_batch=2", "--model.init_args.micro_batch_tokens=700", *options),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_equal_one_on_the_union(tmp_path: Path) -> None:
    fit(tmp_path / "one")
    fit(tmp_path / "two", "--trainer.devices=2", "--trainer.strategy=ddp")
    one, two = (torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("one", "two"))
    assert one["policy_version"] == two["policy_version"] == 6
    # Rows are sampled in batches of another width, so logits differ in the last bits and Adam magnifies nothing.
    for name, weights in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], weights, atol=2e-5, rtol=0, msg=name)
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for ours, theirs in zip(*lines, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ("train/loss", "train/grad_norm", "train/reward", "train/entropy", "train/accuracy_turn_4"):
            assert ours.get(key) == pytest.approx(theirs.get(key), abs=1e-5), key
