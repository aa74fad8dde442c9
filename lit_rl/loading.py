"""Loads what a policy is made of: tokenizer, base and adapters."""

from collections.abc import Sequence
from typing import Any

import torch

from lit_rl import frozen_adapter
from lit_rl.policy_config import PolicyConfig
from lit_rl.tiny import materialize


def model_path(config: PolicyConfig) -> str:
    """Folder or hub id of the base, which a tiny model is built in first."""
    return str(materialize(config.tiny)) if config.tiny is not None else str(config.path)


def load_tokenizer(path: str) -> Any:
    """The tokenizer in a model's folder or at a hub id; raises ValueError if there is none."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    try:
        # AutoTokenizer goes by the *model's* type: a Qwen2 with a tokenizer of its own would get Qwen2's splitting.
        named = get_tokenizer_config(path).get("tokenizer_class")
        own = named in ("TokenizersBackend", "PreTrainedTokenizerFast")
        return (PreTrainedTokenizerFast if own else AutoTokenizer).from_pretrained(path)
    except OSError as error:
        raise ValueError(
            f"policy.path {path!r} is neither a folder with a model and its tokenizer nor a reachable hub id: {error}"
        ) from error


def load_base(path: str, config: PolicyConfig, device: torch.device) -> Any:
    """The causal LM at ``path`` in the type and quantization of ``config``, without its adapters."""
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, config.dtype)
    options: dict[str, Any] = {"dtype": dtype}
    if config.attn_implementation:
        options["attn_implementation"] = config.attn_implementation
    if config.quantization == "nf4":
        from transformers import BitsAndBytesConfig

        options["device_map"] = {"": device}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=dtype,  # sharded strategies need storage of the computing type
        )
    model: Any = AutoModelForCausalLM.from_pretrained(path, **options)
    return model if config.quantization else model.to(device)


def with_adapters(model: Any, config: PolicyConfig) -> Any:
    """The base with a fresh LoRA adapter for every party of ``config``, and its frozen one."""
    # Without PEFT's preparation for 4 bits: it makes embeddings and norms float32, and bitsandbytes multiplies in the
    # type of what comes in, so that all would be computed in float32 whatever ``dtype`` says.
    from peft import LoraConfig, get_peft_model

    lora = {
        party: LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,  # type: ignore[arg-type]  # PEFT only divides it
            target_modules=spec.target_modules,
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        )
        for party, spec in (config.adapters or {}).items()
    }
    names: Sequence[str] = list(lora)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        wrapped = get_peft_model(model, lora[names[0]], adapter_name=names[0])
        for name in names[1:]:
            wrapped.add_adapter(name, lora[name])
    if config.frozen_adapter is not None:
        frozen_adapter.attach(wrapped, config.frozen_adapter)
    return wrapped
