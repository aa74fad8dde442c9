"""The configs of HiPER on models that know nothing: their training and their validation, cut to a moment."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import lit_rl.lightning_cli  # noqa: F401  # before the fork, so that no child has to
from lit_rl.environments.world_demonstrations import WorldDemonstrations
from lit_rl.tiny import TinyModel, materialize
from lit_rl.worlds import Household
from tests.forking import run_config

CONFIGS = Path(__file__).parents[2] / "configs/hiper"
SMALL = [CONFIGS / "tiny.yaml", *sorted((CONFIGS / "baselines").glob("*.yaml"))]
LARGE = [CONFIGS / "qlora.yaml", CONFIGS / "multinode.yaml"]


def read(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


def run(folder: Path, config: dict[str, Any], model: TinyModel) -> None:
    config["model"]["init_args"]["policy"]["path"] = str(materialize(model))
    run_config(config, folder)


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_small_config(path: Path, tmp_path: Path) -> None:
    config = read(path)
    data = config["data"]["init_args"]
    data |= {"num_validation_tasks": 6, "tasks_per_batch": 4, "max_turns": 3, "student": {"max_tokens": 6}}
    data |= {"group_size": 2} if "group_size" in data else {}
    run(
        tmp_path,
        config,
        TinyModel(**read(CONFIGS.parent / "warmup/household.yaml")["model"]["init_args"]["policy"]["tiny"]),
    )


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_large_config_on_a_small_model(path: Path, tmp_path: Path) -> None:
    """Model and sizes are replaced; quantization, both adapters, the prompts and all else stay."""
    shown = WorldDemonstrations(Household(size=12))
    told = [message.content for turn in range(len(shown)) for message in shown[turn].messages]
    told.append("Nothing happens.")
    words = sorted(set(re.findall(r"</?\w+>|\w+|[^\w\s]+", " ".join(told))))
    tiny = TinyModel(words=words, numbers=60, hidden_size=64, layers=1, heads=2, max_length=1024)
    config = read(path)
    config["data"]["init_args"]["worlds"]["init_args"]["size"] = 12
    config["data"]["init_args"] |= {
        **{"num_validation_tasks": 2, "tasks_per_batch": 2, "max_turns": 3},
        **{"student": {"max_tokens": 8}, "evaluation": {"max_tokens": 8}},
    }
    config["model"]["init_args"]["steps_per_batch"] = 2
    config["trainer"] |= {"accelerator": "cpu", "devices": 1}
    config["trainer"] |= {"num_nodes": 1, "strategy": "auto"} if path.stem == "multinode" else {}
    run(tmp_path, config, tiny)


def test_what_the_configs_share() -> None:
    """Baselines differ in credit and values alone, multinode in the model and where it runs."""

    def flat(node: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(node, dict | list):
            items = node.items() if isinstance(node, dict) else enumerate(node)
            return {key: value for name, part in items for key, value in flat(part, f"{prefix}{name}.").items()}
        return {prefix: node}

    def differing(path: Path, other: Path) -> set[str]:
        one, two = flat(read(path)), flat(read(other))
        return {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)}

    values = ("value", "critic", "trainer.callbacks", "default_root_dir")
    episodes = {"data.init_args.tasks_per_batch.", "data.init_args.group_size."}
    for path in SMALL[1:]:
        strange = {key for key in differing(SMALL[0], path) if not any(value in key for value in values)}
        assert strange == (episodes if path.stem == "group_credit" else set()), path
    assert {key.split(".")[-2] for key in differing(*LARGE)} == {
        *("path", "quantization", "default_root_dir", "num_nodes", "devices", "strategy")
    }


def test_every_config_is_run_here() -> None:
    assert {*CONFIGS.rglob("*.yaml")} == {*SMALL, *LARGE}
