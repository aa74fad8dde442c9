"""The configs of REMUL on models that know nothing: their training and their validation, cut to a moment."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import lit_rl.lightning_cli  # noqa: F401  # before the fork, so that no child has to
from lit_rl.environments.choice_tasks import ChoiceTasks
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.tiny import TinyModel, materialize
from tests.forking import run_config

CONFIGS = Path(__file__).parents[2] / "configs/remul"
SMALL = [CONFIGS / "tiny.yaml", CONFIGS / "masked_answers.yaml"]
VARIANTS = sorted((CONFIGS / "variants").glob("*.yaml"))
LARGE = [CONFIGS / f"{name}.yaml" for name in ("qlora", "multinode", "masked_answers_qlora")]


def changed(node: Any, model: str, **given: Any) -> Any:
    """A config with every model replaced by one, and whatever else is named by what is given."""
    if isinstance(node, list):
        return [changed(item, model, **given) for item in node]
    if not isinstance(node, dict):
        return node
    kind = str(node.get("class_path", "")).rpartition(".")[2]
    if kind in given:
        return given[kind]
    found = {name: given.get(name, changed(value, model, **given)) for name, value in node.items()}
    return found | {"path": model} if isinstance(node.get("path"), str) and kind == "" else found


def tiny_of_warmup() -> TinyModel:
    warmup = yaml.safe_load((CONFIGS / "warmup.yaml").read_text())
    return TinyModel(**warmup["model"]["init_args"]["policy"]["tiny"])


def small(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = changed(yaml.safe_load(path.read_text()), str(materialize(tiny_of_warmup())))
    config["data"]["init_args"] |= {"num_validation_tasks": 8, "max_rows": 64}
    if config["model"]["class_path"].endswith("MaskedAnswerFineTuning"):
        config["model"]["init_args"]["start"] = "any"
    else:
        config["data"]["init_args"] |= {"tasks_per_batch": 2}
    return config


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_small_config(path: Path, tmp_path: Path) -> None:
    run_config(small(path), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_variant(path: Path, tmp_path: Path) -> None:
    run_config(small(path), tmp_path)


def test_variants_differ_in_reward_and_pool_alone() -> None:
    """Those of remul.md, section 5; the untrained model and the recipe have none, and one is paid for hints."""

    def flat(node: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(node, dict | list):
            items = node.items() if isinstance(node, dict) else enumerate(node)
            return {key: value for name, part in items for key, value in flat(part, f"{prefix}{name}.").items()}
        return {prefix: node}

    assert {path.stem for path in VARIANTS} == {
        *("correctness_only", "balanced", "faithfulness_only", "same_listeners", "random_listener", "hint_optimized")
    }
    usual = flat(yaml.safe_load((CONFIGS / "tiny.yaml").read_text()))
    for path in VARIANTS:
        other = flat(yaml.safe_load(path.read_text()))
        differs = {key for key in usual.keys() | other.keys() if usual.get(key) != other.get(key)}
        named = {key for key in differs if "pool" in key or key.endswith("reward.")}
        if path.stem == "hint_optimized":  # without listeners, on hinted questions, with smaller steps
            assert {key for key in differs if not key.startswith(("data.init_args.tasks.", "trainer.callbacks."))} == {
                *("model.init_args.reward.", "model.init_args.optimizer.init_args.lr.", "trainer.default_root_dir.")
            }
        else:
            assert differs - named == {"trainer.default_root_dir."}, path


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_large_config_on_a_small_model(path: Path, tmp_path: Path) -> None:
    """Models, data and sizes are replaced; quantization, adapters, the base as a listener and all else stay."""
    rows = [{"input": f"Is {n} even\nOptions:\n(A) true\n(B) not", "target": "(A)"} for n in range(12)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions: dict[str, Any] = {"path": str(tmp_path / "questions.jsonl"), "layout": "bbh"}
    words = re.findall(r"\w+|[^\w\s]+", ChoiceTasks(**questions)[0].prompt)
    tiny = TinyModel(words=[*words, "<think>", "</think>", "[THINK]", "[/THINK]", "\n", "Answer", ":"], numbers=12,
                     hidden_size=64, layers=1, heads=2, max_length=256)  # fmt: skip
    model = str(materialize(tiny))
    Policy(PolicyConfig(path=model, adapters={"speaker": LoRA(rank=2)})).save(tmp_path / "first")
    config = changed(
        yaml.safe_load(path.read_text()),
        model,
        ChoiceTasks={"class_path": "lit_rl.environments.ChoiceTasks", "init_args": questions},
        RemoteParty={
            "class_path": "lit_rl.parties.ScriptedParty",
            "init_args": {"script": {"class_path": "tests.cli.test_remul_configs.Silent"}},
        },
        FaithfulnessProbe={
            "class_path": "lit_rl.callbacks.FaithfulnessProbe",
            "init_args": {"hints": False, "forced_tokens": 4, "settings": {"temperature": 0.0, "max_tokens": 8}},
        },
        max_tokens=12,
        frozen_adapter=str(tmp_path / "first/speaker"),
    )
    config["trainer"] |= {"accelerator": "cpu", "devices": 1}
    config["trainer"] |= {"num_nodes": 1, "strategy": "auto"} if path.stem == "multinode" else {}
    data = config["data"]["init_args"]
    sources = data["tasks"]["init_args"]["sources"]
    assert len(sources) == 5
    data["tasks"] = sources[0]
    data["num_validation_tasks"] = 2
    if "answer_template" in data:
        config["model"]["init_args"]["start"] = "any"
        data["traces"]["max_tokens"] = 60  # somebody who knows nothing closes a think block in the end
    else:
        data |= {"tasks_per_batch": 2, "group_size": 2}
    run_config(config, tmp_path)


class Silent:
    """Instead of a model behind an endpoint."""

    def __call__(self, context: Any, key: int) -> str:
        return ""


def test_every_config_is_run_here() -> None:
    others = {CONFIGS / "warmup.yaml", CONFIGS / "recipe.yaml"}  # tests/cli/test_configs.py, tests/test_remul_recipe.py
    assert {*CONFIGS.rglob("*.yaml")} == {*SMALL, *VARIANTS, *LARGE, *others}
