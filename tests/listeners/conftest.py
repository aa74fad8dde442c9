"""Models that listen: one with a word-level tokenizer, one that spells in pieces of its own."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.tiny import TinyModel

_TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
_TEXT = "is done.\nso it is true.\nso then he goes on.\nso she has the ball.\nstep one.\nhe gives it to her."
WORDS = [*"ABCDEF", "Who", "is", "it", "so", "goes", "Answer", ":", "?", ".", "<think>", "</think>", "\n"]
WORDS += [f"step{n}" for n in range(1, 25)] + [f"t{n}" for n in range(9)]


@pytest.fixture(scope="session")
def listening_model() -> TinyModel:
    return TinyModel(words=WORDS, hidden_size=32, layers=2, heads=4, max_length=256, initializer_range=0.3)


@pytest.fixture(scope="session")
def module(listening_model: TinyModel) -> Any:
    """Stands for a LightningModule with a policy of two parties that differ from the base."""
    policy = Policy(PolicyConfig(tiny=listening_model, adapters={"speaker": LoRA(rank=4), "friend": LoRA(rank=4)}))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.3 if "speaker" in name else -0.3
    return SimpleNamespace(policy=policy, device=policy.device)


@pytest.fixture(scope="session")
def spelling(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """``spelling(*tokens)``: byte-pair encoding whose pieces cross spaces and line ends, with whole ``tokens``."""
    folder = tmp_path_factory.mktemp("tokenizers")

    def make(*tokens: str) -> Any:
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False, min_frequency=1)
        core.train_from_iterator([_TEXT, *[".\nso"] * 50], trainer)
        core.add_tokens([AddedToken(token, normalized=False) for token in tokens])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=core, eos_token="<end>", pad_token="<pad>",
            additional_special_tokens=["<system>", "<user>", "<assistant>"],
        )  # fmt: skip
        tokenizer.chat_template = _TEMPLATE
        tokenizer.name_or_path = str(folder)
        return tokenizer

    return make


@pytest.fixture(scope="session")
def spelling_folder(spelling: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with that tokenizer, and think tags of its own."""
    import torch

    folder = tmp_path_factory.mktemp("spelling")
    tokenizer = spelling("[T]", "[/T]")
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, initializer_range=0.3, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
