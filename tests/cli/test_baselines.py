"""The baselines of sml.md, section 9, on a model that was warmed up for a moment, on sums of single digits."""

from pathlib import Path

import pytest

import lit_rl.lightning_cli  # noqa: F401  # before the fork, so that no child has to
from lit_rl.cli import main
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


def easy(tasks: str) -> list[str]:
    return [f"--data.init_args.{tasks}.init_args.{option}" for option in ("width=2", "size=100")]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a policy that answers in the right form."""
    folder = tmp_path_factory.mktemp("warm")
    sizes = ["num_validation=10", "batch_size=32", "batches_per_epoch=60"]
    run(
        folder, "fit", f"--config={CONFIGS / 'warmup/digit_edit.yaml'}", *easy("demonstrations.init_args.tasks"),
        *(f"--data.init_args.{size}" for size in sizes), "--model.init_args.policy.tiny.hidden_size=32",
        "--checkpoints.every_n_batches=1000",
    )  # fmt: skip
    return str(folder / "checkpoints/last-policy")


def test_all_baselines_are_there() -> None:
    wanted = {"base", "st_sft", "st_rl", "mt_sft", "mt_rl", "q_sft", "q_mt_rl"}
    assert {path.stem for path in BASELINES} == wanted


@pytest.mark.slow
@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_baseline(path: Path, warm: str, tmp_path: Path) -> None:
    policy = f"--model.init_args.policy.path={warm}"
    small = ["--data.init_args.num_validation_tasks=8", "--data.init_args.validation_turns=2"]
    if path.stem.endswith("sft"):
        small.append("--data.init_args.num_problems=90")
    if path.stem == "base":
        table = run(tmp_path, "validate", f"--config={path}", policy, *easy("tasks"), *small)
        assert "acc@2" in table and "retry" in table
    else:
        run(tmp_path, "fit", f"--config={path}", policy, *easy("tasks"), *small, "--trainer.fast_dev_run=true")
        assert not (tmp_path / "dialogues.jsonl").exists(), "a trial run must not overwrite a run's files"
