"""Merged models have the logits of attached adapters (remul.md, section 4.4 and property 16)."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM

from lit_rl.merging import merge_adapters
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.tiny import TinyModel, materialize
from scripts import merge_adapters as merge_script

TINY = TinyModel(words=["yes", "no"], numbers=40, hidden_size=64, layers=2, heads=4)
IDS = torch.tensor([[3, 9, 14, 6, 7, 20, 11, 8]])
RANKS: list[dict[str, Any]] = [{"rank": 4, "alpha": 8.0}, {"rank": 2, "alpha": 8.0}]  # scales of 2 and 4


def trained(folder: Path, seed: int, frozen: str | None, quantization: Literal["nf4"] | None) -> Policy:
    """A policy whose adapter is far from a no-op, saved in ``folder``."""
    adapters = {"speaker": LoRA(**RANKS[seed])}
    policy = Policy(
        PolicyConfig(tiny=TINY, adapters=adapters, frozen_adapter=frozen, quantization=quantization, seed=seed)
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if ".speaker." in name and "lora_B" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    policy.save(folder)
    return policy


@torch.no_grad()
def attached(policy: Policy) -> torch.Tensor:
    with policy.acting_as("speaker"):
        found: torch.Tensor = policy.lm(input_ids=IDS).logits
    return found


@torch.no_grad()
def merged(folder: Path) -> torch.Tensor:
    found: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder)(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_two_stages_merge_to_one_model_16(tmp_path: Path, quantization: Literal["nf4"] | None) -> None:
    one = trained(tmp_path / "one", 0, None, quantization)
    frozen = str(tmp_path / "one/speaker")
    two = trained(tmp_path / "two", 1, frozen, quantization)
    output = merge_adapters(two.config, [tmp_path / "two/speaker"], tmp_path / "merged")
    torch.testing.assert_close(merged(output), attached(two), atol=1e-5, rtol=0)
    assert not torch.allclose(attached(one), attached(two), atol=1e-2)
    whole = Policy(PolicyConfig(path=str(output)))  # an ordinary model that a policy loads
    assert torch.equal(whole.lm(input_ids=IDS).logits, merged(output))
    if quantization is None:  # in any order they are one sum; from the quantized base's own weights they are not
        wrong = Policy(PolicyConfig(tiny=TINY, adapters={"speaker": LoRA()})).config
        other = merge_adapters(wrong, [tmp_path / "two/frozen", tmp_path / "two/speaker"], tmp_path / "other")
        torch.testing.assert_close(merged(other), merged(output), atol=1e-6, rtol=0)


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    trained(tmp_path / "one", 0, None, None)
    base = PolicyConfig(tiny=TINY)
    with pytest.raises(ValueError, match="no adapters are given"):
        merge_adapters(base, [], tmp_path / "merged")
    with pytest.raises(ValueError, match=r"It holds those of \['speaker'\]"):
        merge_adapters(base, [tmp_path / "one"], tmp_path / "merged")
    with pytest.raises(ValueError, match="exists; remove it"):
        merge_adapters(base, [tmp_path / "one/speaker"], tmp_path / "one")
    small = PolicyConfig(tiny=TinyModel(words=["yes"], hidden_size=32))
    with pytest.raises(ValueError, match="cannot be merged into this model"):
        merge_adapters(small, [tmp_path / "one/speaker"], tmp_path / "merged")
    assert {path.name for path in tmp_path.iterdir()} == {"one"}


def test_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    one = trained(tmp_path / "one", 0, None, "nf4")
    arguments = ["--base", str(materialize(TINY)), "--adapters", str(tmp_path / "one/speaker")]
    arguments += ["--nf4", "--output", str(tmp_path / "merged")]
    monkeypatch.setattr("sys.argv", ["merge_adapters.py", *arguments])
    merge_script.main()
    assert capsys.readouterr().out == f"Merged: {tmp_path / 'merged'}\n"
    torch.testing.assert_close(merged(tmp_path / "merged"), attached(one), atol=1e-5, rtol=0)
    with pytest.raises(SystemExit, match="error: .* exists; remove it"):
        merge_script.main()
