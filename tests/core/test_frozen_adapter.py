"""A second adapter on a frozen first one (remul.md, section 4.4 and property 16): both act, one learns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lit_rl.frozen_adapter import check_adapter_folder
from lit_rl.methods import SupervisedFineTuning
from lit_rl.methods.weights import check_checkpoint, saved_weights
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.sampling import SampleRequest, SamplingSettings
from lit_rl.tiny import TinyModel

IDS = torch.tensor([[3, 9, 14, 6, 7, 20, 11, 8], [3, 10, 5, 12, 30, 0, 0, 0]])
MASK = torch.tensor([[False] * 4 + [True] * 4, [False, False, True, True, True, False, False, False]])


@pytest.fixture(scope="module")
def first(make_policy: Callable[..., Policy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stage 1 exported: an adapter that differs from the base."""
    folder = tmp_path_factory.mktemp("first")
    make_policy("speaker", seed=5).save(folder)
    return folder / "speaker"


@torch.no_grad()
def logits(policy: Policy, party: str | None) -> torch.Tensor:
    with policy.acting_as(party):
        found: torch.Tensor = policy.lm(input_ids=IDS).logits
    return found


def stacked(make_policy: Callable[..., Policy], first: Path, *parties: str, **options: Any) -> Policy:
    return make_policy(*(parties or ("speaker",)), frozen_adapter=str(first), **options)


def test_a_new_adapter_changes_nothing_16(make_policy: Callable[..., Policy], first: Path) -> None:
    """At the start the second adapter is a no-op: every party, and the reference, is the first stage's policy."""
    before = make_policy("speaker", seed=5)
    policy = stacked(make_policy, first, "speaker", "other", fresh=True)
    for party in ("speaker", "other", None, "speaker"):
        assert torch.equal(logits(policy, party), logits(before, "speaker"))
    assert not torch.allclose(logits(policy, None), logits(before, None))


def test_both_act_and_parties_stay_apart(make_policy: Callable[..., Policy], first: Path, tmp_path: Path) -> None:
    policy = stacked(make_policy, first, "speaker", "other")
    found = {party: logits(policy, party) for party in ("speaker", None, "other")}
    policy.save(tmp_path)
    for party in ("speaker", "other"):  # another way: the first merged into the base, the second attached
        base = AutoModelForCausalLM.from_pretrained(policy.path, dtype=torch.float32)
        merged = PeftModel.from_pretrained(base, str(first)).merge_and_unload()
        expected = PeftModel.from_pretrained(merged, tmp_path / party).eval()(input_ids=IDS).logits
        torch.testing.assert_close(found[party], expected, atol=1e-5, rtol=0)
        assert not torch.allclose(found[party], found[None], atol=1e-3)
    assert torch.equal(logits(policy, None), found[None])


def test_the_first_adapter_is_never_trained_16(make_policy: Callable[..., Policy], first: Path) -> None:
    policy = stacked(make_policy, first, fresh=True)
    trained = set(policy.trainable_names())
    assert trained and not any("frozen" in name for name in trained)
    frozen = {name: p.detach().clone() for name, p in policy.named_parameters() if name not in trained}
    assert any(".frozen." in name for name in frozen)
    optimizer = torch.optim.AdamW(policy.parameter_groups()["speaker"], lr=1e-2)
    losses = []
    for _ in range(3):
        logits(policy, None)  # a reference pass between two steps
        with policy.acting_as("speaker"):
            assert {name for name, p in policy.named_parameters() if p.requires_grad} == trained
            loss = -policy.log_probs(IDS, MASK)[0].sum()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0] - 0.1
    for name, parameter in policy.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name]) and parameter.grad is None, name


@pytest.mark.parametrize("party", ["speaker", None])
def test_sampler_and_trainer_agree(make_policy: Callable[..., Policy], first: Path, party: str | None) -> None:
    policy = stacked(make_policy, first)
    with policy.acting_as(party):
        sampler = policy.sampler(SamplingSettings(), max_rows=2)
        for row in range(2):
            sampler.submit(SampleRequest(row=row, new_ids=IDS[row, :4].tolist(), key=row, max_tokens=8))
        said = []
        while sampler.busy:
            said += sampler.run()
        for one in said:
            ids = torch.tensor([[*IDS[one.row, :4].tolist(), *one.ids]])
            mask = torch.arange(ids.shape[1])[None] >= 4
            with torch.no_grad():
                log_probs, _ = policy.log_probs(ids, mask)
            torch.testing.assert_close(log_probs[0, 4:], torch.tensor(one.log_probs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_export_holds_both(first: Path, tmp_path: Path, quantization: Literal["nf4"] | None) -> None:
    tiny = TinyModel(words=["yes", "no"], numbers=40, hidden_size=64, layers=1, heads=4)
    one = Policy(PolicyConfig(tiny=tiny, adapters={"speaker": LoRA(rank=4)}, quantization=quantization))
    _disturb(one, 1)
    one.save(tmp_path / "one")
    frozen = str(tmp_path / "one/speaker")
    options: dict[str, Any] = {"tiny": tiny, "adapters": {"speaker": LoRA(rank=2, alpha=8)}, "seed": 3}
    two = Policy(PolicyConfig(frozen_adapter=frozen, quantization=quantization, **options))
    torch.testing.assert_close(logits(two, None), logits(one, "speaker"), atol=1e-6, rtol=0)
    _disturb(two, 2)
    two.save(tmp_path / "two")
    assert {path.parent.name for path in (tmp_path / "two").glob("*/adapter_config.json")} == {"speaker", "frozen"}
    again = Policy(PolicyConfig(frozen_adapter=str(tmp_path / "two/frozen"), quantization=quantization, **options))
    weights = load_file(tmp_path / "two/speaker/adapter_model.safetensors")
    set_peft_model_state_dict(again.model, weights, adapter_name="speaker")
    torch.testing.assert_close(logits(again, "speaker"), logits(two, "speaker"), atol=1e-6, rtol=0)
    assert torch.equal(again.frozen_fingerprint, two.frozen_fingerprint)
    assert not torch.allclose(logits(two, "speaker"), logits(two, None), atol=1e-3)


def _disturb(policy: Policy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if name in set(policy.trainable_names()) and "lora_B" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def test_a_checkpoint_is_of_one_frozen_adapter(make_policy: Callable[..., Policy], first: Path, tmp_path: Path) -> None:
    make_policy("speaker", seed=6).save(tmp_path)

    def state(policy: Policy) -> dict[str, Any]:
        method = SupervisedFineTuning(policy.config)
        method.policy = policy
        checkpoint: dict[str, Any] = {"state_dict": method.state_dict()}
        method.on_save_checkpoint(checkpoint)
        return checkpoint

    mine, plain = state(stacked(make_policy, first)), state(make_policy("speaker"))
    other = state(stacked(make_policy, tmp_path / "speaker"))
    assert not any("frozen." in name or "base_layer" in name for name in mine["state_dict"])
    check_checkpoint(mine, state(stacked(make_policy, first, seed=2))["state_dict"])
    with pytest.raises(ValueError, match="trained on another frozen adapter"):
        check_checkpoint(mine, other["state_dict"])
    with pytest.raises(ValueError, match="trained on a frozen adapter; set policy.frozen_adapter"):
        check_checkpoint(mine, plain["state_dict"])
    with pytest.raises(ValueError, match="trained without policy.frozen_adapter"):
        check_checkpoint(plain, mine["state_dict"])
    assert saved_weights(mine["state_dict"], stacked(make_policy, first)).keys() == mine["state_dict"].keys()


def test_bad_input(make_policy: Callable[..., Policy], first: Path, tmp_path: Path, tiny: TinyModel) -> None:
    with pytest.raises(ValueError, match="frozen_adapter is never trained: name the parties"):
        PolicyConfig(tiny=tiny, frozen_adapter=str(first))
    with pytest.raises(ValueError, match=r"It holds those of \['speaker'\]"):
        PolicyConfig(tiny=tiny, adapters={"speaker": LoRA()}, frozen_adapter=str(first.parent))
    with pytest.raises(ValueError, match="a party 'frozen'"):
        PolicyConfig(tiny=tiny, adapters={"frozen": LoRA()}, frozen_adapter=str(first))
    wide = TinyModel(words=["a"], numbers=3, hidden_size=64, layers=2)
    with pytest.raises(ValueError, match="does not fit the model it is to act on"):
        make_policy("speaker", tiny=wide, frozen_adapter=str(first))
    config = json.loads((first / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"no adapter_model.safetensors"):
        check_adapter_folder(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes((first / "adapter_model.safetensors").read_bytes())
    for change, message in (({"peft_type": "IA3"}, "is of type IA3"), ({"modules_to_save": ["lm_head"]}, "lm_head")):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            check_adapter_folder(tmp_path)
