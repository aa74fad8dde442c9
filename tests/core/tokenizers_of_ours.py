"""Tokenizers trained on a few sentences, of the kinds that large models have."""

from functools import lru_cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = (
    "your order ships today with free returns",
    "your order will ship today with free returns within seven days",
    "we offer a seven day return policy on every order",
    "the café serves naïve customers über alles, doesn't it?",
    "I can't guarantee the price; returns are free for 30 days.",
    "Please ask the customer first, and recommend item_a or item_b then.",
)


@lru_cache
def byte_level_tokenizer() -> Any:
    """As GPT-2, Llama 3 and Qwen have them: merges over bytes, a space belongs to the word behind it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end|>", "<|user|>"]
    )
    core.train_from_iterator(SENTENCES, trainer)
    core.add_tokens([AddedToken("<think so>", normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>"],
        clean_up_tokenization_spaces=False,
    )


@lru_cache
def sentence_piece_tokenizer() -> Any:
    """As Llama 2 and Mistral have them: spaces are U+2581, unknown characters are bytes like <0x0A>."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    core.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=450, special_tokens=["<unk>", "<s>", "</s>", *fallback])
    )
    # The trainer makes added tokens of the bytes, which a tokenizer of a real model does not have.
    model = models.BPE(*_vocabulary_and_merges(core), unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    plain = Tokenizer(model)
    plain.normalizer = core.normalizer
    plain.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def _vocabulary_and_merges(core: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    import json

    model = json.loads(core.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]
