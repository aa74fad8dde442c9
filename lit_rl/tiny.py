"""Small real models from a few numbers: a Qwen2 of transformers with a word-level tokenizer and a chat template."""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

_TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + ' ' + message['content'] + ' ' + '<end>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
_SPECIAL = ["<pad>", "<unknown>", "<system>", "<user>", "<assistant>", "<end>"]


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """A causal LM built from a config with random weights, the same on every machine for the same numbers.

    Args:
        words: Vocabulary, one token each; text is split at spaces and around punctuation.  A word that would be split
            or lost, such as "<think>" or a line break, is kept whole.
        numbers: Also a token for each of 0 .. numbers - 1.
        hidden_size: Width of the residual stream; the gated middle layer is twice as wide.
        layers: Transformer blocks.
        heads: Attention heads; must divide ``hidden_size``.
        max_length: Longest row, in tokens.
        initializer_range: Standard deviation of the random weights.  The output head is the embedding: with a small one
            a narrow model starts close to uniform, is slow to be sure of anything, and so explores for long.
        seed: Of the random weights.
    """

    words: list[str] = field(default_factory=list)
    numbers: int = 0
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    max_length: int = 256
    initializer_range: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"tiny.hidden_size {self.hidden_size} must be a multiple of 2 x heads ({self.heads}).")
        if not self.words and not self.numbers:
            raise ValueError("tiny.words is empty and tiny.numbers is 0: the model would have no vocabulary.")

    def vocabulary(self) -> list[str]:
        """All tokens in the order of their ids, the special ones first."""
        return list(dict.fromkeys([*_SPECIAL, *self.words, *(str(n) for n in range(self.numbers))]))


def cache_folder() -> Path:
    """Where built models are kept: ``$LIT_RL_CACHE`` or ``~/.cache/lit-rl``."""
    return Path(os.environ.get("LIT_RL_CACHE") or Path.home() / ".cache" / "lit-rl")


def materialize(tiny: TinyModel) -> Path:
    """A model folder in the hub's layout (config, safetensors, tokenizer); built once, then found in the cache."""
    import transformers

    facts = json.dumps([asdict(tiny), _TEMPLATE, transformers.__version__], sort_keys=True)
    folder = cache_folder() / "tiny" / hashlib.sha256(facts.encode()).hexdigest()[:16]
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    _build(tiny, scratch)
    try:
        scratch.rename(folder)  # whole or not at all: another process may be building the same
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(scratch)
    return folder


def _build(tiny: TinyModel, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = tiny.vocabulary()
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    split = [
        word for word in words[len(_SPECIAL) :] if core.pre_tokenizer.pre_tokenize_str(word) != [(word, (0, len(word)))]
    ]
    core.add_tokens([AddedToken(word, normalized=False) for word in split])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unknown>",
        eos_token="<end>",
        additional_special_tokens=["<system>", "<user>", "<assistant>"],
        model_max_length=tiny.max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = _TEMPLATE
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=tiny.hidden_size,
        intermediate_size=2 * tiny.hidden_size,
        num_hidden_layers=tiny.layers,
        num_attention_heads=tiny.heads,
        num_key_value_heads=tiny.heads,
        max_position_embeddings=tiny.max_length,
        tie_word_embeddings=True,
        initializer_range=tiny.initializer_range,
        bos_token_id=None,
        eos_token_id=words.index("<end>"),
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(tiny.seed)
        model = Qwen2ForCausalLM(config)
    # Not `model.save_pretrained`, which writes nothing on ranks above 0, and any rank may be the first here.
    weights = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}  # tied
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
