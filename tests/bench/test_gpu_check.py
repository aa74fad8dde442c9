"""The check for GPUs, on a CPU: random models of real shapes, a run that passes, and wrong results that are noticed."""

import argparse
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import scripts.gpu_check
import scripts.random_model
from lit_rl.policy import LoRA, Policy, PolicyConfig
from scripts.bench.case import FEEDBACK, WORDS
from scripts.gpu_check import checksums, has_gradient, main, unmeant_ways
from scripts.random_model import SHAPES, write_model

TOY = ["--device", "cpu", "--sizes", "toy", "--quick"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize(("size", "count"), [("0.5B", 494032768), ("1.5B", 1543714304), ("7B", 7615616512)])
def test_shapes_are_those_of_the_models_they_are_named_after(size: str, count: int) -> None:
    layers = scripts.random_model._layers(size)
    assert sum(shape.numel() for weights in layers for shape in weights.values()) == count
    assert len(layers) == SHAPES[size]["num_hidden_layers"] + (2 if SHAPES[size]["tie_word_embeddings"] else 3)


def test_a_written_model_loads_whole_and_is_found_again(folder: Path) -> None:
    path = write_model("toy", WORDS, folder, torch.device("cpu"))
    policy = Policy(PolicyConfig(path=str(path), dtype="bfloat16"))
    assert len(policy.tokenizer) == SHAPES["toy"]["vocab_size"] == policy.lm.config.vocab_size
    assert policy.tokenizer.unk_token_id not in policy.tokenizer(FEEDBACK)["input_ids"]
    for name, weight in policy.lm.named_parameters():
        wanted = (1.0, 0.0) if name.endswith("norm.weight") else (0.0, 0.02)
        found = (float(weight.float().mean()), float(weight.float().std()))
        assert found == pytest.approx(wanted, abs=8e-3), name
    written = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    assert write_model("toy", WORDS, folder, torch.device("cpu")) == path
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == written


def test_a_full_disk_is_named_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    with pytest.raises(OSError, match="The random 7B model takes 15.2 GB and its disk has 1.0 GB free"):
        write_model("7B", WORDS, tmp_path, torch.device("cpu"))


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("There is no NVIDIA GPU that torch can use")


def test_the_toy_passes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu_check.json"
    assert main([*TOY, "--folder", str(folder), "--out", str(out)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.rsplit("| ", 1)[1] for line in shown[2:]] == ["right |", "right |"]
    found = json.loads(out.read_text())
    assert [result["kind"] for result in found["results"]] == ["nf4", "bf16"]
    for result in found["results"]:
        assert result["wrong"] == [] and result["peak_gib"] is None
        assert 0 < result["p50"] < result["p99"] < result["max"] < 0.05
        assert min(result["sampling_tokens_per_second"], result["learning_tokens_per_second"]) > 0


def sabotage_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Policy.log_probs

    def shifted(self: Policy, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        log_probs, entropy = right(self, *arguments, **options)
        return torch.where(log_probs == 0, 0.0, log_probs - 0.1), entropy

    monkeypatch.setattr(Policy, "log_probs", shifted)


def sabotage_base(monkeypatch: pytest.MonkeyPatch) -> None:
    def bump(*arguments: Any) -> None:
        arguments[2].policy.lm.model.norm.weight.data += 1.0

    monkeypatch.setattr(scripts.gpu_check.Watch, "on_train_batch_end", bump_after(bump))


def bump_after(bump: Any) -> Any:
    right = scripts.gpu_check.Watch.on_train_batch_end

    def both(*arguments: Any) -> None:
        right(*arguments)
        bump(*arguments)

    return both


def sabotage_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))
    right = scripts.gpu_check.TalkData.collect
    monkeypatch.setattr(scripts.gpu_check.TalkData, "collect", lambda self, number: right(self, 10 * next(calls)))


def sabotage_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    right = scripts.gpu_check.has_gradient
    monkeypatch.setattr(scripts.gpu_check, "has_gradient", lambda weight: weight.shape[0] != 16 and right(weight))


@pytest.mark.parametrize(
    ("sabotage", "sentence"),
    [
        (sabotage_scores, "toy bf16: p50 of the log-prob differences is above 0.03."),
        (sabotage_base, "1 frozen weights changed, the first is model.base_model.model.model.norm.weight."),
        (sabotage_seed, "A batch played twice with one seed differs."),
        (sabotage_adapter, "14 adapter weights got no finite gradient"),
    ],
)
def test_wrong_results_are_named(
    sabotage: Any, sentence: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sabotage(monkeypatch)
    assert main([*TOY, "--kinds", "bf16", "--folder", str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "| WRONG |" in shown and sentence in shown


def test_one_that_breaks_does_not_keep_the_others_from_being_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(size: str, kind: str, *_: Any) -> dict[str, Any]:
        if kind == "nf4":
            raise RuntimeError("out of memory")
        return {"size": size, "kind": kind, "wrong": []}

    monkeypatch.setattr(scripts.gpu_check, "check", breaks)
    options = argparse.Namespace(sizes=["toy"], kinds=["nf4", "bf16"], device=torch.device("cpu"))
    results = scripts.gpu_check.check_all(folder, True, options)
    assert [result["wrong"] for result in results] == [["RuntimeError: out of memory"], []]


def test_ways_that_are_not_meant(folder: Path) -> None:
    path = str(write_model("toy", WORDS, folder, torch.device("cpu")))
    policy = Policy(PolicyConfig(path=path, adapters={"student": LoRA(rank=4)}))
    assert unmeant_ways(policy) == ["Hidden states are torch.float32, not bfloat16."]
    policy.head_is_exact, policy._rows_work = False, False
    policy.config.quantization = "nf4"
    assert len(unmeant_ways(policy)) == 4


def test_checksums_and_gradients(folder: Path) -> None:
    path = str(write_model("toy", WORDS, folder, torch.device("cpu")))
    policy = Policy(PolicyConfig(path=path, adapters={"student": LoRA(rank=4)}, dtype="bfloat16"))
    before = checksums(policy)
    assert not any("lora" in name for name in before)
    policy.lm.lm_head.weight.data[3, 4] += 1
    after = checksums(policy)
    assert [name for name in before if before[name] != after[name]] == ["model.base_model.model.lm_head.weight"]
    weight = torch.nn.Parameter(torch.zeros(2))
    assert not has_gradient(weight)
    for gradient, good in (([0.0, 0.0], False), ([1.0, float("nan")], False), ([0.0, 2.0], True)):
        weight.grad = torch.tensor(gradient)
        assert has_gradient(weight) == good
