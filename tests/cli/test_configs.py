"""Every config runs: its training, its validation, its prediction, cut to a moment (stack.md's forking driver)."""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

import lit_rl.lightning_cli  # noqa: F401  # before the fork, so that no child has to
from lit_rl.cli import main
from lit_rl.environments import STUDENT_INSTRUCTION, TEACHER_INSTRUCTION
from lit_rl.environments.teacher_words import CANNOT_SAY, RETRY
from lit_rl.service import ServicePrompts, SkillLabels, toy_shop_procedure, toy_shop_words
from lit_rl.tiny import TinyModel, materialize
from tests.forking import in_child

ROOT = Path(__file__).parents[2]
RECIPES = [ROOT / "configs/remul/recipe.yaml"]  # of scripts/remul_recipe.py, tested in tests/test_remul_recipe.py
CONFIGS = sorted(set((ROOT / "configs").rglob("*.yaml")) - set(RECIPES))


def run(tmp_path: Path, *arguments: str) -> str:
    output = tmp_path / "output.txt"
    code = in_child(lambda: sys_exit(main(arguments)), output)
    text = output.read_text()
    assert code == 0, text[-3000:]
    return text


def sys_exit(code: int) -> None:
    raise SystemExit(code)


def policy_of(path: Path) -> dict[str, Any]:
    policy: dict[str, Any] = yaml.safe_load(path.read_text())["model"]["init_args"].get("policy", {})
    return policy


TINY = [path for path in CONFIGS if "tiny" in policy_of(path)]


WARMED_UP = {  # by a run of the other config
    ROOT / "configs/sml/count_bits.yaml": "warmup/count_bits.yaml",
    ROOT / "configs/rl2f/tiny.yaml": "rl2f/warmup.yaml",
    ROOT / "configs/qempo/tiny.yaml": "qempo/warmup.yaml",
    ROOT / "configs/gopo/tiny.yaml": "gopo/warmup.yaml",
    ROOT / "configs/gopo/offline.yaml": "gopo/warmup.yaml",
    ROOT / "configs/gopo/baselines/ppo_flat.yaml": "gopo/warmup.yaml",
    ROOT / "configs/gopo/baselines/sft.yaml": "gopo/warmup.yaml",
}
WARMED_UP |= dict.fromkeys((ROOT / "configs/qempo/baselines").glob("*.yaml"), "qempo/warmup.yaml")
SIZES = ("qlora", "multinode")
METHODS = ("sml", "rl2f", "qempo", "dapo", "gopo")
LARGE = {method: [ROOT / "configs" / method / f"{size}.yaml" for size in SIZES] for method in METHODS}
OFFLINE = ROOT / "configs/qempo/offline.yaml"
ELSEWHERE = [
    *(ROOT / "configs/sml/baselines").glob("*.yaml"),  # tests/cli/test_baselines.py
    # tests/cli/test_remul_configs.py
    *(path for path in (ROOT / "configs/remul").rglob("*.yaml") if path.stem not in ("warmup", "recipe")),
    *(ROOT / "configs/hiper").rglob("*.yaml"),  # tests/cli/test_hiper_configs.py
    *(ROOT / "configs/intelli").glob("ask_*.yaml"),  # tests/cli/test_ask_configs.py
    *(ROOT / "configs/intelli").glob("reward_*.yaml"),  # tests/reward_models/test_configs.py
    *(ROOT / "configs/intelli/heads").glob("*.yaml"),  # likewise
]


MEASURES_ONLY = [ROOT / "configs/sml/sharded_linear.yaml"]


def fit_and_validate(path: Path, tmp_path: Path, *overrides: str) -> None:
    common = [f"--config={path}", f"--trainer.default_root_dir={tmp_path}", "--trainer.enable_progress_bar=false"]
    if path not in MEASURES_ONLY:
        run(tmp_path, "fit", *common, "--trainer.fast_dev_run=true", *overrides)
    assert not (tmp_path / "checkpoints").exists(), "a trial run must not overwrite a run's files"
    run(tmp_path, "validate", *common, "--trainer.limit_val_batches=1", *overrides)


@pytest.mark.parametrize("path", TINY, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_config_of_a_tiny_model(path: Path, tmp_path: Path) -> None:
    fit_and_validate(path, tmp_path)


@pytest.mark.parametrize("path", WARMED_UP, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_config_that_goes_on_with_a_warmed_up_model(path: Path, tmp_path: Path) -> None:
    warm = TinyModel(**policy_of(ROOT / "configs" / WARMED_UP[path])["tiny"])
    given = f"--model.init_args.policy.path={materialize(warm)}"
    options = {"offline.yaml": "num_validation_scenarios", "sft.yaml": "num_validation"}
    held_out = options.get(path.name, "num_validation_tasks")
    fit_and_validate(path, tmp_path, given, f"--data.init_args.{held_out}=8")


def large(path: Path, tmp_path: Path, text: str, overrides: dict[str, Any], numbers: int = 10) -> None:
    """Run a large config on a small model that knows the words of ``text``; what ``overrides`` leaves alone stays."""
    words = sorted(set(re.findall(r"\w+|[^\w\s]+", text)))
    tiny = TinyModel(words=words, numbers=numbers, hidden_size=64, layers=1, heads=2, max_length=1024)
    overrides = {"model.init_args.policy.path": materialize(tiny), "trainer.accelerator": "cpu"} | overrides
    if path.stem == "multinode":
        overrides |= {"trainer.num_nodes": 1, "trainer.devices": 1, "trainer.strategy": "auto"}
    fit_and_validate(path, tmp_path, *(f"--{key}={value}" for key, value in overrides.items()))


FEW = {
    "data.init_args.num_validation_tasks": 2,
    "data.init_args.tasks_per_batch": 2,
    "data.init_args.group_size": 2,
    "data.init_args.student.max_tokens": 4,
}


@pytest.mark.parametrize("path", LARGE["sml"] + LARGE["rl2f"], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_large_config_of_dialogues(path: Path, tmp_path: Path) -> None:
    """Model, data and sizes are replaced; quantization, adapters, the model as a teacher and all else stay."""
    rows = [{"problem": f"What is 1 plus {n}", "answer": str(1 + n), "solution": f"1 plus {n} is 1"} for n in range(6)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = [STUDENT_INSTRUCTION, TEACHER_INSTRUCTION, RETRY, CANNOT_SAY, "What is 1 plus Answer solution : <>"]
    replaced = {
        "data.init_args.tasks.init_args.path": tmp_path / "problems.jsonl",
        "data.init_args.teacher.init_args.settings.max_tokens": 4,
        "data.init_args.validation_turns": 2,
    }
    large(path, tmp_path, " ".join(text), FEW | replaced)


@pytest.mark.parametrize("path", LARGE["qempo"] + LARGE["dapo"], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_large_config_of_puzzles(path: Path, tmp_path: Path) -> None:
    instruction = yaml.safe_load(path.read_text())["data"]["init_args"]["instruction"]
    replaced = {
        "data.init_args.tasks.init_args.size": 10,
        "data.init_args.tasks.init_args.prompt": "make {target} of {numbers}",
        "data.init_args.validation_group_size": 2,
        "data.init_args.evaluation.max_tokens": 4,
    }
    large(path, tmp_path, f"{instruction} make of", FEW | replaced, numbers=1000)


@pytest.mark.parametrize("path", LARGE["gopo"], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_large_config_of_services(path: Path, tmp_path: Path) -> None:
    procedure, prompts = toy_shop_procedure(), ServicePrompts()
    labels = SkillLabels.letters(procedure.skills)
    briefings = [*prompts.planner_briefing(procedure, labels, 3), *prompts.responder_briefing()]
    briefings += prompts.customer_briefing()
    text = [*toy_shop_words(), *(message.content for message in briefings), "Shop Customer Done Skill You : ; ,"]
    replaced = {name: value for name, value in FEW.items() if "student" not in name}
    replaced["data.init_args.customer.init_args.settings.max_tokens"] = 4
    large(path, tmp_path, " ".join(text), replaced)


def test_large_config_of_preferences(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"sum 1 {n}", "chosen": "yes", "rejected": "no no", "score_chosen": 8.0, "score_rejected": 3.0}
        for n in range(6)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    replaced = {
        "data.init_args.preferences.init_args.path": tmp_path / "pairs.jsonl",
        "data.init_args.validation_preferences.init_args.path": tmp_path / "pairs.jsonl",
        "data.init_args.num_validation": 2,
        "data.init_args.batch_size": 2,
    }
    large(OFFLINE, tmp_path, "sum yes no", replaced)


@pytest.mark.parametrize("method", LARGE)
def test_multinode_is_qlora_on_more_machines(method: str) -> None:
    """Data and method are the same; what differs is how the model is held and how much is done at once."""

    def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in config.items():
            found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return found

    one, many = (
        flat(yaml.safe_load((ROOT / "configs" / method / f"{size}.yaml").read_text()))
        for size in ("qlora", "multinode")
    )
    changed = {key.rpartition(".")[2] for key in one.keys() | many.keys() if one.get(key) != many.get(key)}
    sizes = {"max_length", "micro_batch_tokens", "tasks_per_batch", "batches_per_epoch"}
    sizes |= {"validation_turns"} if method in ("sml", "rl2f") else set()  # of one turn there
    assert changed == {"quantization", "num_nodes", "devices", "strategy", "default_root_dir", *sizes}
    processes = many["trainer.num_nodes"] * many["trainer.devices"]
    assert many["data.init_args.tasks_per_batch"] % processes == 0
    assert many["data.init_args.num_validation_tasks"] >= processes


def test_every_config_is_run_here() -> None:
    assert set(CONFIGS) == {*TINY, *WARMED_UP, *chain(*LARGE.values()), OFFLINE, *ELSEWHERE}


def test_a_run_leaves_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    cut = ["--data.init_args.batches_per_epoch=2", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
    quickstart = ROOT / "configs/quickstart/number_search.yaml"
    common = [f"--config={quickstart}", f"--trainer.default_root_dir={folder}", *cut]
    run(tmp_path, "fit", *common)
    written = {path.name for path in folder.iterdir()}
    assert written == {
        *("config.yaml", "metrics.jsonl", "timings.jsonl", "episodes.bin"),
        *("validation_before.json", "checkpoints", "tensorboard"),
    }
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]["batches_per_epoch"] == 2
    config = (folder / "config.yaml").read_bytes()
    run(tmp_path, "validate", *common, "--ckpt_path=last", "--data.init_args.batches_per_epoch=3")
    assert (folder / "config.yaml").read_bytes() == config, "a validation must not change what a run says it was"
    assert json.loads((folder / "validation.json").read_text())["policy_version"] == 2
    run(tmp_path, "predict", *common, "--ckpt_path=last")
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == 15 * 64
    run(tmp_path, "report", str(folder))
    assert "SocialMetaLearning on NumberSearch" in (folder / "report.html").read_text()


def test_first_lines_say_what_a_config_trains() -> None:
    for path in CONFIGS:
        assert path.read_text().startswith("# "), path
