"""The baselines of sml.md, section 9, on models that know little or nothing yet."""

from pathlib import Path

import pytest
import yaml

import lit_rl.lightning_cli  # noqa: F401  # before the fork, so that no child has to
from lit_rl.cli import main
from lit_rl.tiny import TinyModel, materialize
from tests.forking import in_child

CONFIGS = Path(__file__).parents[2] / "configs"
BASELINES = sorted((CONFIGS / "sml/baselines").glob("*.yaml"))
QUIET = "--trainer.enable_progress_bar=false"


def run(folder: Path, *arguments: str) -> str:
    def child() -> None:
        raise SystemExit(main([*arguments, f"--trainer.default_root_dir={folder}", QUIET]))

    code = in_child(child, folder / "output.txt")
    text = (folder / "output.txt").read_text()
    assert code == 0, text[-3000:]
    return text


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Policies: one with random weights, who is given the format, and one that was taught it for a moment."""
    gcd = yaml.safe_load((CONFIGS / "warmup/gcd.yaml").read_text())["model"]["init_args"]["policy"]["tiny"]
    folder = tmp_path_factory.mktemp("warm")
    run(folder, "fit", f"--config={CONFIGS / 'warmup/hidden_bits.yaml'}", "--checkpoints.every_n_batches=1000")
    return {"gcd": str(materialize(TinyModel(**gcd))), "hidden_bits": str(folder / "checkpoints/last-policy")}


def test_all_baselines_are_there() -> None:
    wanted = {"base", "st_sft", "st_rl", "mt_sft", "mt_rl", "q_sft", "q_mt_rl"}
    assert {path.stem for path in BASELINES} == wanted


@pytest.mark.slow
@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_baseline(path: Path, start: dict[str, str], tmp_path: Path) -> None:
    policy = f"--model.init_args.policy.path={start['hidden_bits' if path.stem.startswith('q_') else 'gcd']}"
    small = ["--data.init_args.num_validation_tasks=8", "--data.init_args.validation_turns=2"]
    if path.stem == "base":
        table = run(tmp_path, "validate", f"--config={path}", policy, *small)
        assert "acc@2" in table and "retry" in table
    else:
        run(tmp_path, "fit", f"--config={path}", policy, *small, "--trainer.fast_dev_run=true")
        assert not (tmp_path / "dialogues.jsonl").exists(), "a trial run must not overwrite a run's files"
