"""One command runs both stages of REMUL, the merge and the evaluation, and finds again what is finished."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lit_rl.lightning_cli  # noqa: F401  # before the fork, so that no child has to
from lit_rl.merging import merge_adapters
from lit_rl.policy import Policy, PolicyConfig
from scripts import remul_recipe

ROOT = Path(__file__).parents[1]
IDS = torch.tensor([[3, 8, 9, 10, 5, 4]])


def recipe(folder: Path, adapters: bool) -> Path:
    """The shipped recipe, cut to a few batches, below ``folder``; with an adapter in the first stage too or without."""
    parts = yaml.safe_load((ROOT / "configs/remul/recipe.yaml").read_text())
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.max_epochs=1", "--validate_first=false"]
    few = ["--data.init_args.num_validation_tasks=4", "--data.init_args.evaluation.max_tokens=20"]
    one = {"speaker": {"rank": 2}}
    warm = f"--model.init_args.policy.path={folder / 'speaker/checkpoints/last-policy'}"
    listener = {"class_path": "lit_rl.listeners.ScriptedListener",
                "init_args": {"name": "one", "script": {"class_path": "tests.test_remul_recipe.Knows"}}}  # fmt: skip
    callbacks = [{"class_path": "lit_rl.callbacks.listener_execution.ListenerExecution",
                  "init_args": {"pool": {"listeners": [listener]}}}]  # fmt: skip
    heard = f"--trainer.callbacks={json.dumps(callbacks)}"
    first = ["--data.init_args.batches_per_epoch=2", "--data.init_args.tasks_per_batch=2", warm, heard]
    first += [f"--model.init_args.policy.adapters={json.dumps(one)}"] if adapters else []
    second = ["--data.init_args.num_problems=32", "--data.init_args.batch_size=8", "--trainer.callbacks=null"]
    second += ["--model.init_args.optimizer.init_args.lr=0.01", *([warm] if adapters else [])]
    parts["warm_up"] = [parts["warm_up"][0] | {"folder": f"{folder}/speaker"}]
    parts["warm_up"][0]["options"] = [
        *quiet,
        "--data.init_args.batches_per_epoch=12",
        "--data.init_args.num_validation=0",
    ]
    parts["stage_1"] |= {"folder": f"{folder}/first", "options": [*quiet, *few, *first]}
    parts["stage_2"] |= {"folder": f"{folder}/second", "options": [*quiet, *few, *second]}
    parts["merge"] = f"{folder}/merged"
    parts["evaluate"] |= {"folder": f"{folder}/end", "options": [*quiet[:1], *few, heard]}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(parts))
    return path


class Knows:
    """A listener that answers at once."""

    def __call__(self, question: str, prefix: str, key: int) -> str:
        return "</think> Answer : A"


def logits(config: PolicyConfig) -> torch.Tensor:
    policy = Policy(config)
    with torch.no_grad():
        found: torch.Tensor = policy.lm(input_ids=IDS).logits
    return found


def main(path: Path, monkeypatch: pytest.MonkeyPatch, *only: str) -> None:
    arguments = ["remul_recipe.py", "--config", str(path), *(("--only", *only) if only else ())]
    monkeypatch.setattr("sys.argv", arguments)
    remul_recipe.main()


@pytest.mark.parametrize("adapters", [False, True], ids=["all weights", "adapter on adapter"])
def test_from_warm_up_to_evaluation(
    adapters: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, adapters)
    merging = tmp_path / "merged_by"

    def merge(*arguments: Any) -> Path:
        merging.write_text(str(os.getpid()))
        return merge_adapters(*arguments)

    monkeypatch.setattr(remul_recipe, "merge_adapters", merge)
    with pytest.raises(SystemExit, match="error: There is no .*which the first stage writes; run stage_1"):
        main(path, monkeypatch, "stage_2")
    main(path, monkeypatch, "warm_up", "stage_1")
    with pytest.raises(SystemExit, match="error: There is no merged model"):
        main(path, monkeypatch, "evaluate")
    with pytest.raises(SystemExit, match="is not finished; run stage_2"):
        main(path, monkeypatch, "merge")
    main(path, monkeypatch)
    written = {name: (tmp_path / name).stat().st_mtime_ns for name in ("first/finished.json", "second/traces.jsonl")}
    assert json.loads((tmp_path / "end/validation_before.json").read_text())["conditions"]
    second = yaml.safe_load((tmp_path / "second/config.yaml").read_text())["model"]["init_args"]["policy"]
    assert bool(second["frozen_adapter"]) == adapters
    assert int(merging.read_text()) != os.getpid(), "or runs after it, forked by a process with threads, never end"
    # What was merged is the second stage's model, and no other's.
    merged = logits(PolicyConfig(path=str(tmp_path / "merged")))
    attached = second_stage(second, tmp_path / "second/checkpoints/last-policy/speaker")
    torch.testing.assert_close(merged, attached, atol=1e-5, rtol=0)
    main(path, monkeypatch)
    assert written == {name: (tmp_path / name).stat().st_mtime_ns for name in written}, "nothing is run twice"
    assert capsys.readouterr().out.count("==> evaluate") == 3


@torch.no_grad()
def second_stage(policy: dict[str, Any], adapter: Path) -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(policy["path"])
    for folder in [*([policy["frozen_adapter"]] if policy["frozen_adapter"] else []), adapter]:
        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    found: torch.Tensor = model(input_ids=IDS).logits
    return found


def test_what_is_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("stage_1: {config: configs/remul/tiny.yaml}\n")
    with pytest.raises(ValueError, match="has no 'warm_up'; a recipe has"):
        remul_recipe.Recipe(path)
    path.write_text("warm_up: []\nstage_1: {configuration: a}\nstage_2: {config: a}\nmerge: b\nevaluate: {config: a}\n")
    with pytest.raises(ValueError, match="is no run; it has 'config'"):
        remul_recipe.Recipe(path)
