from typing import Any

import pytest
import yaml

from lit_rl.reporting.run_config import HIDDEN, dig, expected_batches, facts, public_text, title, without_secrets
from tests.reporting.made_up_run import CONFIG


def config(**trainer: Any) -> dict[str, Any]:
    loaded = yaml.safe_load(CONFIG.replace("BATCHES", "100"))
    loaded["trainer"] |= trainer
    return dict(loaded)


@pytest.mark.parametrize(
    "key",
    ["api_key", "API-KEY", "openai_api_key", "hf_token", "auth_token", "token", "password", "client_secret",
     "Authorization", "aws_access_key_id"],
)  # fmt: skip
def test_secrets_are_left_out_by_name(key: str) -> None:
    hidden = {"a": [{key: "s3cret"}], "b": {key: ["s3cret", {"c": "s3cret"}]}}
    assert "s3cret" not in public_text(hidden)
    assert without_secrets(hidden) == {"a": [{key: HIDDEN}], "b": {key: HIDDEN}}


@pytest.mark.parametrize("key", ["max_tokens", "micro_batch_tokens", "eos_token", "tokenizer", "author"])
def test_other_keys_are_not(key: str) -> None:
    assert without_secrets({key: 5}) == {key: 5}


def test_secrets_are_left_out_by_their_looks() -> None:
    text = public_text(
        {"url": "redis://me:pass@host/1", "note": "use hf_abcdefghijklmnop", "list": ["sk-abcdefghijklmn"]}
    )
    assert "me:pass" not in text and "hf_abc" not in text and "sk-abc" not in text
    assert "@host/1" in text


def test_a_long_config_is_cut_off_and_says_so() -> None:
    text = public_text({"words": [f"word{i}" for i in range(30_000)]})
    assert len(text) < 101_000 and "cut off here" in text


def test_facts_of_a_run() -> None:
    found = dict(facts(config()))
    assert found == {
        "Method": "SocialMetaLearning",
        "Model": "Qwen2 of 2 layers, 64 wide, from random weights",
        "Trained": "all weights",
        "Tasks": "NumberSearch(size=15)",
        "Teacher": "HigherLower",
        "Batch": "15 problems × 16 dialogues, at most 4 turns",
        "Discount per turn": "0.7",
        "Learning rate": "0.001",
        "Hardware": "cpu · 32-true",
        "Seed": "0",
    }
    assert title(config(), "x") == "SocialMetaLearning on NumberSearch"


def test_tasks_of_reasoning_gym_are_called_by_their_names() -> None:
    def source(task: str) -> dict[str, Any]:
        return {"class_path": "lit_rl.environments.ReasoningGymTasks", "init_args": {"task": task}}

    run = config()
    run["data"]["init_args"]["tasks"] = source("gcd")
    assert title(run, "x") == "SocialMetaLearning on gcd"
    mixed = {"class_path": "lit_rl.environments.Mixture", "init_args": {"sources": [source("gcd"), source("lcm")] * 2}}
    run["data"]["init_args"]["tasks"] = mixed
    assert title(run, "x") == "SocialMetaLearning on gcd + lcm"


def test_the_learning_rate_is_that_of_the_optimizer() -> None:
    run = config()
    run["model"]["init_args"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.25}}
    assert dict(facts(run))["Learning rate"] == "0.25"


def test_facts_of_a_large_run() -> None:
    large = config(accelerator="gpu", strategy={"class_path": "lightning.FSDPStrategy"}, num_nodes=4)
    large["model"]["init_args"]["policy"] = {"path": "some/model", "adapters": {"student": {}}, "quantization": "nf4"}
    found = dict(facts(large))
    assert found["Model"] == "some/model" and found["Trained"] == "QLoRA adapters: student"
    assert found["Hardware"] == "gpu · 32-true · FSDPStrategy · 4 nodes"


@pytest.mark.parametrize("strange", [{}, {"model": None}, {"model": [1]}, {"model": {"init_args": 3}, "data": "x.Y"}])
def test_a_strange_config_has_fewer_facts(strange: dict[str, Any]) -> None:
    facts(strange)
    assert title(strange, "the folder") == "the folder"
    assert expected_batches(strange) is None


def test_dig_looks_into_init_args() -> None:
    assert dig({"a": {"init_args": {"b": {"c": 1}}}}, "a", "b", "c") == 1
    assert dig({"a": {"b": 2, "init_args": {"b": 3}}}, "a", "b") == 2
    assert dig({"a": 1}, "a", "b") is None


def test_expected_batches() -> None:
    assert expected_batches(config()) == 100
    assert expected_batches(config(max_epochs=3)) == 300
    assert expected_batches(config(max_steps=50)) == 50
    assert expected_batches(config(max_epochs=-1, max_steps=50)) == 50
    by_steps = config(max_steps=50)
    by_steps["model"]["init_args"] |= {"steps_per_batch": 2, "epochs_per_batch": 3}
    assert expected_batches(by_steps) == 9  # 6 optimizer steps a batch, the last batch cut short
