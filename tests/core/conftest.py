"""Small random models of many architectures, and policies on disk, for the tests of the core."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.tiny import TinyModel

VOCABULARY = 48
_COMMON = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_COMMON |= {"max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_MODERN = {**_COMMON, "intermediate_size": 64, "num_key_value_heads": 2}
_GEMMA = {**_MODERN, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8}

# Name -> (transformers' class prefix, arguments of its config).
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", _MODERN),
    "qwen3": ("Qwen3", {**_MODERN, "head_dim": 8}),
    "llama": ("Llama", _MODERN),
    "gpt2": ("GPT2", {**_COMMON, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "gpt_neox": ("GPTNeoX", {**_COMMON, "intermediate_size": 64}),
    "gemma2": ("Gemma2", {**_GEMMA, "attn_implementation": "eager", "final_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3ForCausalLM", {**_GEMMA, "layer_types": ["sliding_attention", "full_attention"]}),
    "mistral": ("Mistral", {**_MODERN, "sliding_window": 8}),
    "cohere": ("Cohere", {**_MODERN, "logit_scale": 0.25}),
    "granite": ("Granite", {**_MODERN, "logits_scaling": 3.0}),
    "bloom": ("Bloom", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4, "pad_token_id": 0}),
    "mamba": ("Mamba", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
}
_CONFIGS = {"gemma3": "Gemma3TextConfig"}
_WORDS = [*"abcdefghijklmnop", "one", "two", "think", "so", "yes", "no", "?", ".", ":"]


def random_model(architecture: str, seed: int = 0, spread: float = 6.0) -> Any:
    """A random causal LM in eval mode; ``spread`` widens the logits so that probabilities are far from uniform."""
    prefix, arguments = ARCHITECTURES[architecture]
    arguments = dict(arguments)
    attention = arguments.pop("attn_implementation", "sdpa" if architecture not in ("bloom", "mamba") else None)
    config = getattr(transformers, _CONFIGS.get(architecture, f"{prefix}Config"))(**arguments)
    if attention:
        config._attn_implementation = attention
    name = prefix if prefix.endswith("ForCausalLM") else {"GPT2": "GPT2LMHeadModel"}.get(prefix, f"{prefix}ForCausalLM")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, name)(config)
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | transformers.pytorch_utils.Conv1D):
                torch.nn.init.normal_(module.weight, std=spread * 0.02)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.1)
    return model.eval()


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """Builds (and keeps) one random model per architecture."""
    kept: dict[tuple[str, int], Any] = {}

    def make(architecture: str, seed: int = 0) -> Any:
        if (architecture, seed) not in kept:
            kept[architecture, seed] = random_model(architecture, seed)
        return kept[architecture, seed]

    return make


@pytest.fixture(scope="session")
def tiny() -> TinyModel:
    """A model of 64 thousand parameters that knows single letters and a few words."""
    return TinyModel(words=_WORDS, numbers=10, hidden_size=32, layers=2, heads=4, max_length=256)


@pytest.fixture(scope="session")
def make_policy(tiny: TinyModel) -> Callable[..., Policy]:
    """A policy on the tiny model, with adapters that already differ from the base unless ``fresh``."""

    def make(*parties: str, fresh: bool = False, seed: int = 1, **options: Any) -> Policy:
        adapters = {party: LoRA(rank=4, alpha=8.0) for party in parties} or None
        options = {"tiny": tiny} | options
        policy = Policy(PolicyConfig(adapters=adapters, **options))
        generator = torch.Generator().manual_seed(seed)
        if not fresh:
            for name, parameter in policy.named_parameters():
                if name in set(policy.trainable_names()) and ("lora_B" in name or not parties):
                    noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                    parameter.data += 0.1 * noise
        return policy

    return make


@pytest.fixture(scope="session")
def model_folder(tiny: TinyModel) -> Path:
    """The folder a tiny model lies in."""
    from lit_rl.tiny import materialize

    return materialize(tiny)
