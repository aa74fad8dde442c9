"""The configs of reward models on models that know nothing: their training, validation and test, cut to a moment."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import lit_rl.lightning_cli  # noqa: F401  # before the fork, so that no child has to
from lit_rl.cli import main
from lit_rl.papers.synthetic import SyntheticPapers
from lit_rl.reward_models import RUBRIC
from lit_rl.tiny import TinyModel, materialize
from tests.forking import in_child, run_config

CONFIGS = Path(__file__).parents[2] / "configs/intelli"
SMALL = [CONFIGS / "reward_tiny.yaml", *sorted((CONFIGS / "heads").glob("*.yaml"))]
LARGE = [CONFIGS / "reward_qlora.yaml", CONFIGS / "reward_paper.yaml"]


def read(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


def model_of(words: list[str]) -> str:
    return str(materialize(TinyModel(words=words, hidden_size=64, layers=1, heads=2, max_length=512)))


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_small_config(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_RL_CACHE", str(tmp_path / "cache"))
    config = read(path)
    config["model"]["init_args"]["backbone"]["path"] = model_of(SyntheticPapers.words())
    config["data"]["init_args"]["questions"]["init_args"] = {"papers": 20}
    run_config(config, tmp_path)


def test_a_run_of_a_small_config_is_validated_tested_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIT_RL_CACHE", str(tmp_path / "cache"))
    config = read(SMALL[0])
    config["model"]["init_args"]["backbone"]["path"] = model_of(SyntheticPapers.words())
    config["data"]["init_args"]["questions"]["init_args"] = {"papers": 20}
    config["trainer"] |= {"max_epochs": 1, "default_root_dir": str(tmp_path / "run"), "enable_progress_bar": False}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    for command in ("fit", "validate", "test", "predict"):
        arguments = [command, f"--config={tmp_path / 'config.yaml'}"]
        arguments += [] if command == "fit" else ["--ckpt_path=last"]

        def child(arguments: list[str] = arguments) -> None:
            raise SystemExit(main(arguments))

        assert in_child(child, tmp_path / "output.txt") == 0, (tmp_path / "output.txt").read_text()[-3000:]
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"validation.json", "test.json", "predictions.jsonl", "metrics.jsonl"} <= written
    assert "episodes.bin" not in written
    found = json.loads((tmp_path / "run/test.json").read_text())["conditions"]
    assert list(found) == ["reward_model", "majority", "source_mix", "by_source"]
    assert any((tmp_path / "run/checkpoints").glob("last-*/heads.safetensors"))


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_large_config_on_a_small_model(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model and data are replaced; quantization, heads, prompt and all else stay."""
    monkeypatch.setenv("LIT_RL_CACHE", str(tmp_path / "cache"))
    rows = [
        {"paper_id": str(n // 2), "source": "o3", "question": f"why {n} ?", "ocr_output": "a paper of a"}
        | {"low_effort": n % 2 == 0, "evidence": n % 3 == 0, "factual": True}
        for n in range(12)
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = read(path)
    words = sorted(set(re.findall(r"\w+|[^\w\s]+", f"{RUBRIC} why ? a paper of a")))
    config["model"]["init_args"]["backbone"]["path"] = model_of(words)
    data = config["data"]["init_args"]
    data["questions"]["init_args"] |= {"path": str(tmp_path / "votes.jsonl")}
    del data["test_questions"]  # of the very papers that are learned from
    config["trainer"] |= {"accelerator": "cpu"}
    run_config(config, tmp_path)


def test_what_the_configs_share() -> None:
    """The baselines differ from each other in heads, pooling and what is trained alone."""

    def flat(node: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(node, dict):
            return {key: value for name, part in node.items() for key, value in flat(part, f"{prefix}{name}.").items()}
        return {prefix: node}

    def differing(path: Path, other: Path) -> set[str]:
        one, two = flat(read(path)), flat(read(other))
        return {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)}

    allowed = (".head.", ".pool_tokens.", ".train_backbone.", "default_root_dir.")
    for path in SMALL[1:]:
        changed = differing(SMALL[0], path)
        assert len(changed) > 1 and all(any(part in key for part in allowed) for key in changed), path
    assert {key.split(".")[-2] for key in differing(*LARGE)} == {
        *("path", "quantization", "reasoning_effort", "default_root_dir")
    }
