"""How tokens are drawn, and which of them are likely enough."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSettings:
    """How tokens are drawn.

    Args:
        temperature: Divides the logits; the trainer's log-probs use the same.  0 is greedy.
        top_p: Smallest set of tokens with at least this probability; 1 keeps all.
        top_k: Number of most likely tokens; 0 keeps all.
        max_tokens: Of one turn, its end-of-turn token included.
        repetition_penalty: See `lit_rl.repetition.penalise_repetition`; 1 is none.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"sampling.temperature is {self.temperature}; it must be 0 (greedy) or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling.top_p is {self.top_p}; it must lie in (0, 1].")
        if self.top_k < 0 or self.max_tokens < 1:
            raise ValueError(f"sampling: top_k {self.top_k} must be >= 0 and max_tokens {self.max_tokens} >= 1.")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"sampling.repetition_penalty is {self.repetition_penalty}; give a number above 0, 1 for none."
            )

    def check_trainable(self) -> None:
        """Raise if the trainer could not compute the same distribution again."""
        if self.temperature == 0 or self.top_p < 1 or self.top_k > 0 or self.repetition_penalty != 1:
            raise ValueError(
                f"Training rollouts with {self} cannot be scored again by the trainer: use temperature > 0, top_p = 1, "
                "top_k = 0 and repetition_penalty = 1 (a token constraint restricts the choice exactly)."
            )


def keep_likely(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set all but the most likely tokens to -inf, by number and by probability mass; ``(B, V)``."""
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(-1, descending=True)
        probs = ordered.softmax(-1)
        beyond = probs.cumsum(-1) - probs >= top_p  # the token that crosses the line stays
        logits = logits.masked_fill(beyond.scatter(1, order, beyond), -torch.inf)
    return logits
