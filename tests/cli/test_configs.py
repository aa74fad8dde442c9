"""Every config runs: its training, its validation, its prediction, cut to a moment (stack.md's forking driver)."""

from pathlib import Path

import pytest
import yaml

from lit_rl import lightning_cli
from tests.forking import in_child

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def run(tmp_path: Path, *arguments: str) -> str:
    output = tmp_path / "output.txt"
    code = in_child(lambda: sys_exit(lightning_cli.main(arguments)), output)
    text = output.read_text()
    assert code == 0, text[-3000:]
    return text


def sys_exit(code: int) -> None:
    raise SystemExit(code)


def small_enough(path: Path) -> bool:
    """Whether a config names no model, data or hardware that is not here."""
    return "tiny" in yaml.safe_load(path.read_text())["model"]["init_args"]["policy"]


@pytest.mark.parametrize("path", [p for p in CONFIGS if small_enough(p)], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_config_fits_and_validates(path: Path, tmp_path: Path) -> None:
    common = [f"--config={path}", f"--trainer.default_root_dir={tmp_path}", "--trainer.enable_progress_bar=false"]
    run(tmp_path, "fit", *common, "--trainer.fast_dev_run=true")
    assert not (tmp_path / "checkpoints").exists(), "a trial run must not overwrite a run's files"
    run(tmp_path, "validate", *common, "--trainer.limit_val_batches=1")


def test_first_lines_say_what_a_config_trains() -> None:
    for path in CONFIGS:
        assert path.read_text().startswith("# "), path
