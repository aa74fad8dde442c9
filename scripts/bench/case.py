"""What both sides of a comparison are given: one model folder, the prompts, the limits and the reward."""

import json
import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WORDS = ["say", "numbers", "that", "are", "even", "please", "more", "of", "them", "then", "go", "on", "and", "stop"]
NUMBERS = 108  # with the words and the special tokens, a vocabulary of 128
FEEDBACK = "please go on and say more numbers that are even"
NEVER = -30.0  # in nats, what suppresses a token for good

# Roles "user" and "tool" read alike, so that a teacher's words cost both sides the same tokens.  The names and
# arguments of tool calls stand here because TRL looks for them; no row has any, for rows are built of what was sampled.
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<' + ('user' if message['role'] == 'tool' else message['role']) + '> ' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ call['function']['name'] + ' ' + (call['function']['arguments'] | tojson) }}{% endfor %}"
    "{{ ' <end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison.

    Args:
        name: For tables.
        turns: Of the student in one dialogue; between two of them it hears `FEEDBACK`.
        max_tokens: Of one turn.
        tasks: Prompts in an iteration.
        group_size: Dialogues on one prompt.
        stop_probability: Of ending the turn, at every token; 0 makes every turn ``max_tokens`` long.
        hidden_size: Width of the model.
        layers: Of the model.
        heads: Of the model.
        learning_rate: Of AdamW, constant.
        threads: Of torch, for each side.
        trl_micro_batches: What TRL splits an iteration into; lit-rl splits by length and takes its default.
        seed: Of weights and sampling.
    """

    name: str
    turns: int = 1
    max_tokens: int = 64
    tasks: int = 16
    group_size: int = 8
    stop_probability: float = 0.0
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    learning_rate: float = 1e-6
    threads: int = 1
    trl_micro_batches: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ValueError(
                f"group_size is {self.group_size}; replies are compared within a group, so use at least 2."
            )
        if self.rows % self.trl_micro_batches:
            raise ValueError(
                f"{self.rows} dialogues cannot be split into {self.trl_micro_batches} equal micro-batches."
            )

    @property
    def rows(self) -> int:
        """Dialogues in an iteration."""
        return self.tasks * self.group_size

    def to_json(self) -> str:
        """As one argument of a command."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Case":
        """What `to_json` wrote."""
        return Case(**json.loads(text))


def prompt(number: int) -> str:
    """Task ``number`` of the run: between 6 and 20 words."""
    draw = random.Random(number)
    return " ".join(draw.choices(WORDS, k=draw.randint(6, 20)))


def score(text: str) -> float:
    """The reward of one reply: its share of even numbers."""
    words = text.split()
    return sum(word.isdigit() and int(word) % 2 == 0 for word in words) / max(1, len(words))


def build_model(case: Case, folder: Path) -> None:
    """Write the model both sides load: random weights, told how likely a turn is to end at each token."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from lit_rl.tiny import TinyModel, materialize

    transformers.utils.logging.disable_progress_bar()
    tiny = TinyModel(
        words=WORDS,
        numbers=NUMBERS,
        hidden_size=case.hidden_size,
        layers=case.layers,
        heads=case.heads,
        max_length=64 + case.turns * (case.max_tokens + 32),
        seed=case.seed,
    )
    source = materialize(tiny)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    _set_stop_probability(model, tokenizer, case.stop_probability)
    model.save_pretrained(folder)


def _set_stop_probability(model: Any, tokenizer: Any, probability: float) -> None:
    """Special tokens are never sampled, but the end of a turn with ``probability``.

    The first coordinate of every embedding is large and positive: after the last norm it is about ``sqrt(width)`` in
    every state, and works there as the bias that the tied head lacks.
    """
    import torch

    embedding = model.get_input_embeddings().weight
    scale = math.sqrt(embedding.shape[1])
    others = len(embedding) - len(tokenizer.all_special_ids)
    end = NEVER if probability == 0 else math.log(probability * others / (1 - probability))
    with torch.no_grad():
        embedding[:, 0] = 1.0 - NEVER / scale
        embedding[tokenizer.all_special_ids, 0] = 1.0
        embedding[tokenizer.eos_token_id, 0] = 1.0 + (end - NEVER) / scale
