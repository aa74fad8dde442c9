"""Questions whose labels a word gives away, and reward models of a few thousand weights."""

from typing import Any

from lit_rl.papers.records import AXES, QuestionRecord
from lit_rl.reward_models import BackboneConfig, ChunkTransformer, MultiObjectiveRewardModel, RewardModelConfig
from lit_rl.tiny import TinyModel

WORDS = ["judge", "paper", "of", "and", "it", "?", "[...]", "a", "b", "c", "d", "e", "f", "g", "h"]
SIGNS = {"effort": ("what", "why"), "evidence": ("claim", "table"), "grounding": ("work", "vega")}
TINY = TinyModel(
    words=[*WORDS, *(word for words in SIGNS.values() for word in words)],
    hidden_size=32,
    layers=1,
    heads=2,
    max_length=64,
)
HEAD = ChunkTransformer(
    num_chunks=8, width=16, layers=1, attention_heads=2, feedforward=16, dropout=0.1, pool_dropout=0.1
)


def record(number: int, **fields: Any) -> QuestionRecord:
    """A question with the signs of its labels in it, which are the three bits of ``number``."""
    labels = {axis: number >> place & 1 for place, axis in enumerate(AXES)}
    words = [SIGNS[axis][label] for axis, label in labels.items()]
    letter = "abcdefgh"[number // 8 % 8]
    known: dict[str, Any] = {
        "paper_id": f"paper-{number // 4}",
        "question": f"{words[0]} of it and {words[1]} and {words[2]} {letter} ?",
        "paper_text": f"paper {letter} of {letter}",
        "source": ["human", "model"][number % 2],
    }
    return QuestionRecord(**known | labels | fields)


def config(**options: Any) -> RewardModelConfig:
    known: dict[str, Any] = {"backbone": BackboneConfig(tiny=TINY), "head": HEAD, "pool_tokens": 12, "rubric": "judge"}
    return RewardModelConfig(**known | options)


def reward_model(**options: Any) -> MultiObjectiveRewardModel:
    return MultiObjectiveRewardModel(config(**options))
