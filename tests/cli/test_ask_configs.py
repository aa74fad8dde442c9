"""The configs of IntelliAsk on models that know nothing: their training and their validation, cut to a moment."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import lit_rl.lightning_cli  # noqa: F401  # before the fork, so that no child has to
from lit_rl.papers import GENERATION_SYSTEM, SyntheticPapers, generation_prompt
from lit_rl.reward_models import (
    RUBRIC,
    BackboneConfig,
    LinearHead,
    MultiObjectiveRewardModel,
    RewardModelConfig,
    save_reward_model,
)
from lit_rl.tiny import TinyModel, materialize
from tests.forking import run_config

CONFIGS = Path(__file__).parents[2] / "configs/intelli"
LARGE = [CONFIGS / "ask_qlora.yaml", CONFIGS / "ask_multinode.yaml"]
FEW = {"num_validation_tasks": 2, "tasks_per_batch": 2, "group_size": 2, "validation_group_size": 2}


def read(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


def reward_model(folder: Path, backbone: str) -> str:
    """One that knows nothing."""
    config = RewardModelConfig(backbone=BackboneConfig(path=backbone), head=LinearHead(), pool_tokens=4, rubric=RUBRIC)
    save_reward_model(MultiObjectiveRewardModel(config), folder / "reward")
    return str(folder / "reward")


def test_small_config(tmp_path: Path) -> None:
    config = read(CONFIGS / "ask_tiny.yaml")
    words = sorted({*SyntheticPapers.words(), *re.findall(r"\w+|[^\w\s]+", RUBRIC)})
    model = str(materialize(TinyModel(words=words, hidden_size=32, layers=1, heads=2, max_length=256)))
    config["model"]["init_args"]["policy"]["path"] = model
    config["model"]["init_args"]["steps_per_batch"] = 1
    data = config["data"]["init_args"]
    data["quality"]["init_args"]["path"] = reward_model(tmp_path, model)
    data |= FEW | {"student": {"max_tokens": 8}, "dynamic_sampling": {"prompts_per_draw": 2, "max_draws": 1}}
    run_config(config, tmp_path)
    found = json.loads((tmp_path / "run/validation_before.json").read_text())["conditions"]["answers"]
    assert {"oracle/reward", "oracle/effort", "first_page_bias", "unique_share"} <= set(found)


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_large_config_on_a_small_model(path: Path, tmp_path: Path) -> None:
    """Models, papers and sizes are replaced; quantization, adapters, prompts and all else stay."""
    papers = [{"paper_id": str(n), "text": f"gating {n} helps \f more of it"} for n in range(8)]
    (tmp_path / "papers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in papers))
    told = " ".join([RUBRIC, GENERATION_SYSTEM, generation_prompt(""), *(row["text"] for row in papers)])
    words = sorted(set(re.findall(r"\w+|[^\w\s]+", told)))
    model = str(materialize(TinyModel(words=words, hidden_size=32, layers=1, heads=2, max_length=512)))
    config = read(path)
    arguments = config["model"]["init_args"]
    arguments["policy"] |= {"path": model, "max_length": 512}
    arguments |= {"steps_per_batch": 1, "overlong_cache": 4}
    data, judge = config["data"]["init_args"], {"path": reward_model(tmp_path, model)}
    data["tasks"]["init_args"] |= {"path": str(tmp_path / "papers.jsonl"), "tokenizer": model, "max_paper_tokens": 64}
    data["quality"]["init_args"] |= judge
    config["trainer"]["callbacks"][0]["init_args"]["judges"]["reward"]["init_args"] |= judge
    data |= FEW | {"student": {"max_tokens": 8}, "dynamic_sampling": {"prompts_per_draw": 2, "max_draws": 1}}
    data |= {"evaluation": {"temperature": 1.0, "max_tokens": 8}}
    config["trainer"] |= {"accelerator": "cpu", "devices": 1}
    config["trainer"] |= {"num_nodes": 1, "strategy": "auto"} if "num_nodes" in config["trainer"] else {}
    run_config(config, tmp_path)
    found = json.loads((tmp_path / "run/validation_before.json").read_text())["conditions"]["answers"]
    assert {"reward/reward", "reward/grounding", "unique_share"} <= set(found)


def test_prompts_of_the_large_configs_are_those_of_the_tasks() -> None:
    """What the configs quote: the instruction, and what stands before a paper."""
    for path in LARGE:
        config = read(path)
        data, callback = config["data"]["init_args"], config["trainer"]["callbacks"][0]["init_args"]
        mark = data["quality"]["init_args"]["paper_after"]
        assert data["instruction"] == GENERATION_SYSTEM
        assert generation_prompt("the paper").partition(mark)[2] == "the paper"
        assert callback["judges"]["reward"]["init_args"]["paper_after"] == callback["paper_after"] == mark


def test_multinode_has_the_published_values() -> None:
    """intelli.md section 4."""
    config = read(CONFIGS / "ask_multinode.yaml")
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    names = ("clip_low", "clip_high", "dual_clip", "overlong_factor", "overlong_cache", "aggregation", "max_grad_norm")
    assert [model[name] for name in names] == [0.2, 0.28, 10.0, 1.0, 15024, "token_mean", 1.0]
    assert model["scheduler_interval"] == "rollout" and model["lr_scheduler"]["init_args"]["total_iters"] == 10
    assert model["optimizer"]["init_args"]["weight_decay"] == 0.1 and "entropy_coef" not in model
    assert (data["tasks_per_batch"], data["group_size"], data["batches_per_epoch"]) == (64, 8, 175)
    assert data["tasks_per_batch"] // model["steps_per_batch"] == 2
    assert data["dynamic_sampling"] == {"prompts_per_draw": 192, "max_draws": 2}
    assert data["student"]["max_tokens"] == 20480 and data["evaluation"]["top_p"] == 0.7
    assert data["tasks"]["init_args"]["max_paper_tokens"] <= 14000
