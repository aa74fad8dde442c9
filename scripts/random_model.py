"""Model folders of real shapes with random weights, written layer by layer and without network."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from lit_rl.tiny import TinyModel, materialize

# Those of Qwen2.5, and a toy that any machine can hold.
SHAPES: dict[str, dict[str, Any]] = {
    "toy": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False},
    "0.5B": {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}
    | {"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "1.5B": {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28}
    | {"num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "7B": {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    | {"num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False},
}
_INDEX = "model.safetensors.index.json"  # written last, so a folder that has it is whole


def write_model(size: str, words: list[str], folder: Path, device: torch.device) -> Path:
    """Write (or find again) a model folder of bfloat16 weights in the hub's layout, one file a layer.

    Args:
        size: A name in `SHAPES`.
        words: Words its tokenizer knows; the rest of the vocabulary is numbers.
        folder: Where folders of models lie.
        device: Where the weights are drawn; they pass through the host's memory one layer at a time.

    Raises:
        OSError: The disk has no room for it.
    """
    target = folder / f"random-{size}"
    if (target / _INDEX).exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    layers = _layers(size)
    _check_room(size, layers, target)
    _save_tokenizer(size, words, target)
    generator, total = torch.Generator(device).manual_seed(0), 0
    weight_map: dict[str, str] = {}
    for number, weights in enumerate(layers, start=1):
        file = f"model-{number:05d}-of-{len(layers):05d}.safetensors"
        drawn = {name: _random(name, shape, generator).cpu() for name, shape in weights.items()}
        save_file(drawn, target / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(drawn, file)
        total += sum(weight.nbytes for weight in drawn.values())
    _config(size).save_pretrained(target)
    (target / _INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    return target


def _config(size: str) -> Qwen2Config:
    return Qwen2Config(
        **SHAPES[size],
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        architectures=["Qwen2ForCausalLM"],
        dtype="bfloat16",
        bos_token_id=None,
        eos_token_id=None,  # the tokenizer knows
        pad_token_id=0,
    )


def _layers(size: str) -> list[dict[str, torch.Size]]:
    """Names and shapes of the weights, by layer; embedding, last norm and head are one each."""
    with torch.device("meta"):
        model = Qwen2ForCausalLM(_config(size))
    layers: dict[str, dict[str, torch.Size]] = {}
    for name, parameter in model.named_parameters():
        layer = ".".join(name.split(".")[:3])  # model.layers.7
        layers.setdefault(layer, {})[name] = parameter.shape
    return list(layers.values())


def _check_room(size: str, layers: list[dict[str, torch.Size]], folder: Path) -> None:
    needed = 2 * sum(shape.numel() for weights in layers for shape in weights.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"The random {size} model takes {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free; choose "
            "another place with --folder."
        )


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """As transformers initialises them: norms 1, all else normal."""
    if name.endswith("norm.weight"):
        return torch.ones(shape, dtype=torch.bfloat16)
    return 0.02 * torch.randn(shape, dtype=torch.bfloat16, device=generator.device, generator=generator)


def _save_tokenizer(size: str, words: list[str], folder: Path) -> None:
    """That of a tiny model with as many words."""
    tiny = TinyModel(words=words, hidden_size=2, layers=1, heads=1, max_length=32768)
    numbers = SHAPES[size]["vocab_size"] - len(tiny.vocabulary())
    tiny = TinyModel(words=words, numbers=numbers, hidden_size=2, layers=1, heads=1, max_length=32768)
    PreTrainedTokenizerFast.from_pretrained(materialize(tiny)).save_pretrained(folder)
