"""A frozen base in 4 bits with adapters on it, on the CPU: load, learn, sample, save, load again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.sampling import SampleRequest, SamplingSettings
from lit_rl.stream_keys import stream_key
from lit_rl.tiny import TinyModel

TINY = TinyModel(words=["yes", "no"], numbers=40, hidden_size=64, layers=2, heads=4)
PROMPTS = [[3, 8, 9, 10, 5, 4], [3, 20, 5, 4], [3, 8, 9, 5, 4]]


def load(**options: Any) -> Policy:
    adapters = {"student": LoRA(rank=4), "teacher": LoRA(rank=4)}
    return Policy(PolicyConfig(tiny=TINY, adapters=adapters, quantization="nf4", **options))


def sample(policy: Policy, party: str | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and sampler log-probs of one reply to each prompt."""
    with policy.acting_as(party):
        sampler = policy.sampler(SamplingSettings(), max_rows=4)
        for row, prompt in enumerate(PROMPTS):
            sampler.submit(SampleRequest(row=row, new_ids=prompt, key=stream_key(row), max_tokens=10))
        said = []
        while sampler.busy:
            said += sampler.run()
    said.sort(key=lambda one: one.row)
    length = max(len(PROMPTS[one.row]) + len(one.ids) for one in said)
    ids, mask = torch.zeros(3, length, dtype=torch.int64), torch.zeros(3, length, dtype=torch.bool)
    log_probs = torch.zeros(3, length)
    for one in said:
        begin = len(PROMPTS[one.row])
        stop = begin + len(one.ids)
        ids[one.row, :stop] = torch.tensor([*PROMPTS[one.row], *one.ids])
        mask[one.row, begin:stop], log_probs[one.row, begin:stop] = True, torch.tensor(one.log_probs)
    return ids, mask, log_probs


def four_bits() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )


def bits(parameter: torch.Tensor) -> torch.Tensor:
    """As bytes: packed weights read as floats may be NaN, which equals nothing."""
    return parameter.detach().view(torch.uint8)


def unpacked(model: Any) -> Any:
    """Keep bitsandbytes from its bfloat16 product of packed weights, which some CPUs have and some have not."""
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.training = True
    return model


def test_load_learn_sample_save_reload(tmp_path: Path) -> None:
    policy = load()
    assert isinstance(policy.lm.model.layers[0].mlp.up_proj.base_layer, Linear4bit)
    trained = set(policy.trainable_names())
    frozen = {n: bits(p).clone() for n, p in policy.named_parameters() if n not in trained}
    ids, mask, _ = sample(policy, "student")
    optimizer = torch.optim.AdamW(policy.parameter_groups()["student"], lr=1e-2)
    losses = []
    for _ in range(4):
        with policy.acting_as("student"):
            loss = -policy.log_probs(ids, mask)[0].sum()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1
    for name, parameter in policy.named_parameters():
        if name in frozen:
            assert torch.equal(bits(parameter), frozen[name]), f"{name} of the base changed"
        if ".teacher." in name:
            assert parameter.grad is None or not parameter.grad.any()

    policy.save(tmp_path)
    fresh = AutoModelForCausalLM.from_pretrained(
        policy.path,
        dtype=torch.float32,
        quantization_config=four_bits(),
    )
    fresh = prepare_model_for_kbit_training(fresh, use_gradient_checkpointing=False)
    for party in ("student", "teacher"):
        loaded = PeftModel.from_pretrained(fresh, tmp_path / party, adapter_name=party)
        loaded.set_adapter(party)
        with policy.acting_as(party), torch.no_grad():
            assert torch.equal(unpacked(loaded.eval())(input_ids=ids).logits, policy.lm(input_ids=ids).logits)
        fresh = loaded.unload()


@pytest.mark.parametrize("party", ["student", "teacher", None])
def test_trainer_and_sampler_agree_in_four_bits(party: str | None) -> None:
    """Computed in float32, the quantised model's log-probs agree as those of any other."""
    policy = load()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    assert policy.head_is_exact
    ids, mask, sampled = sample(policy, party)
    with policy.acting_as(party), torch.no_grad():
        log_probs, _ = policy.log_probs(ids, mask)
    torch.testing.assert_close(log_probs, sampled, atol=1e-5, rtol=0)
    assert policy._rows_work


def test_checkpointing_in_four_bits() -> None:
    """Gradients through a checkpointed quantised model equal the plain ones, and sampling keeps its cache."""
    ids, mask, _ = sample(load(), "student")
    found = []
    for checkpointing in (False, True):
        policy = load(gradient_checkpointing=checkpointing)
        with policy.acting_as("student"):
            policy.log_probs(ids, mask)[0].sum().backward()
        found.append({n: p.grad for n, p in policy.named_parameters() if p.grad is not None and p.grad.any()})
    assert found[0].keys() == found[1].keys() and found[0]
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_gradients_are_those_of_the_dequantised_model(
    make_model: Callable[..., Any], model_folder: Path, tmp_path: Path
) -> None:
    """Without biases too (Llama), where a product that knows no backward pass would lose gradients in silence."""
    make_model("llama").save_pretrained(tmp_path / "whole")
    quantised = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", quantization_config=four_bits())
    quantised.dequantize().save_pretrained(tmp_path / "rounded")
    found = []
    cases: list[tuple[str, Literal["nf4"] | None]] = [("whole", "nf4"), ("rounded", None)]
    for folder, quantization in cases:
        AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path / folder)
        adapters = {"student": LoRA(rank=4)}
        policy = Policy(PolicyConfig(path=str(tmp_path / folder), adapters=adapters, quantization=quantization))
        ids, mask, _ = sample(policy, None)
        with policy.acting_as("student"):
            policy.log_probs(ids, mask)[0].sum().backward()
        found.append({n: p.grad for n, p in policy.named_parameters() if p.grad is not None and p.grad.any()})
    assert found[0].keys() == found[1].keys() and len(found[0]) == 2 * 7
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_are_computed_in_the_type_asked_for(dtype: str) -> None:
    """The type of keys and values is that of every product; ``bnb_4bit_compute_dtype`` alone decides nothing."""
    policy = load(dtype=dtype)
    layer = policy.lm.model.layers[1].self_attn.k_proj
    found = []
    layer.register_forward_hook(lambda _, inputs, output: found.extend([inputs[0].dtype, output.dtype]))
    with policy.acting_as("student"), torch.no_grad():
        policy.hidden(torch.tensor([[3, 8, 5]]))
    assert found == [getattr(torch, dtype)] * 2


def test_bfloat16_is_loose_and_works() -> None:
    """In bfloat16 the two sides differ by rounding alone: ratios are then not 1, but near it."""
    policy = load(dtype="bfloat16")
    ids, mask, sampled = sample(policy, "student")
    with policy.acting_as("student"), torch.no_grad():
        log_probs, _ = policy.log_probs(ids, mask)
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs, sampled, atol=5e-2, rtol=0)
