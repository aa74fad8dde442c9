"""Diversity of the responses to a prompt, accumulated over batches and ranks (torchmetrics).

Every figure is of one prompt, then averaged over the prompts where it is defined (qempo.md section 7); sums are kept,
not texts, so all responses to a prompt must come in one ``update`` (and so on one rank).  Diversity alone says little:
report it with quality, and compare at equal quality.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_rl.metrics.embeddings import Embedding, HashedNgrams, semantic_diversity, vendi_score
from lit_rl.metrics.lexical import distinct_n, expectation_adjusted_distinct, self_bleu
from lit_rl.metrics.sampled_answers import (
    answer_entropy,
    distinct_correct,
    pass_at_k,
    sequence_entropy,
    token_entropy,
)
from lit_rl.metrics.syntactic import DependencyTree, syntactic_diversity


class PromptMeans(Metric):
    """Means over prompts of named figures; prompts where a figure is NaN do not count for it.

    Args:
        names: Of the figures.
        kwargs: Of torchmetrics' ``Metric``.
    """

    full_state_update = False

    sums: Tensor
    prompts: Tensor

    def __init__(self, names: Sequence[str], **kwargs: Any):
        super().__init__(**kwargs)
        self.names = tuple(names)
        self.add_state("sums", torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("prompts", torch.zeros(len(self.names), dtype=torch.int64), dist_reduce_fx="sum")

    def add_prompt(self, figures: Mapping[str, float]) -> None:
        """Add the figures of one prompt; a name that is missing is not defined there."""
        values = torch.tensor([figures.get(name, math.nan) for name in self.names], dtype=torch.float64)
        self.sums += values.masked_fill(values.isnan(), 0.0).to(self.sums.device)
        self.prompts += (~values.isnan()).to(self.prompts.device)

    def compute(self) -> dict[str, Tensor]:
        """Float64 numbers by name, NaN where no prompt has it."""
        return dict(zip(self.names, (self.sums / self.prompts).unbind(), strict=True))


class _OfResponses(PromptMeans):
    """Figures of responses, and with ``_correct`` behind their names those of the right ones alone."""

    def __init__(self, names: Sequence[str], **kwargs: Any):
        super().__init__([*names, *(f"{name}_correct" for name in names)], **kwargs)

    def figures(self, responses: Sequence[Any]) -> dict[str, float]:
        """Of one prompt."""
        raise NotImplementedError

    def update(self, responses: Sequence[Any], group_ids: Tensor, correct: Tensor | None = None) -> None:
        """Add responses.

        Args:
            responses: Texts, or what this metric takes, ``E`` of them.
            group_ids: Prompt of each, int64 ``(E,)``.
            correct: Whether each is right, ``(E,)``, for the figures of right ones; fewer than 2 are undefined.
        """
        for rows in rows_by_prompt(len(responses), group_ids):
            found = self.figures([responses[row] for row in rows])
            right = [] if correct is None else [responses[row] for row in rows if bool(correct[row])]
            if len(right) >= 2:
                found |= {f"{name}_correct": value for name, value in self.figures(right).items()}
            self.add_prompt(found)


class LexicalDiversity(_OfResponses):
    """``distinct_N`` for each order, ``self_bleu_N``, and ``ead_N`` where the size of the vocabulary is known.

    Args:
        orders: Of n-grams.
        bleu_order: Longest n-grams of self-BLEU.
        vocabulary_size: Different words there can be; for n-grams its n-th power is taken.  None leaves ``ead_N`` out.
        kwargs: Of torchmetrics' ``Metric``.

    Example:
        >>> metric = LexicalDiversity(orders=(1,), bleu_order=2)
        >>> metric.update(["a b", "a b", "a b", "c d"], torch.tensor([0, 0, 1, 1]))
        >>> metric.compute()["distinct_1"].item()  # (2 / 4 + 4 / 4) / 2
        0.75
    """

    def __init__(
        self,
        orders: Sequence[int] = (1, 2, 3),
        bleu_order: int = 4,
        vocabulary_size: int | None = None,
        **kwargs: Any,
    ):
        for option, value in (("bleu_order", bleu_order), ("vocabulary_size", vocabulary_size)):
            if value is not None and value < 1:
                raise ValueError(f"LexicalDiversity.{option} is {value}; it must be at least 1.")
        if not orders or min(orders) < 1:
            raise ValueError(f"LexicalDiversity.orders is {list(orders)}; give numbers of words, at least 1.")
        self.orders, self.bleu_order, self.vocabulary_size = tuple(orders), bleu_order, vocabulary_size
        names = [f"distinct_{n}" for n in self.orders] + [f"self_bleu_{bleu_order}"]
        super().__init__(names + ([f"ead_{n}" for n in self.orders] if vocabulary_size else []), **kwargs)

    def figures(self, responses: Sequence[str]) -> dict[str, float]:
        found = {f"distinct_{n}": distinct_n(responses, n) for n in self.orders}
        if self.vocabulary_size:
            found |= {
                f"ead_{n}": expectation_adjusted_distinct(responses, n, support=self.vocabulary_size**n)
                for n in self.orders
            }
        return found | {f"self_bleu_{self.bleu_order}": self_bleu(responses, self.bleu_order)}


class SemanticDiversity(_OfResponses):
    """``semantic_diversity`` and ``vendi`` of texts.

    Args:
        embedding: Turns texts into vectors; None takes `HashedNgrams`, which sees spelling alone.
        kwargs: Of torchmetrics' ``Metric``.
    """

    def __init__(self, embedding: Embedding | None = None, **kwargs: Any):
        super().__init__(["semantic_diversity", "vendi"], **kwargs)
        self.embedding = embedding or HashedNgrams()

    def figures(self, responses: Sequence[str]) -> dict[str, float]:
        embeddings = self.embedding.embed(responses)
        if embeddings.ndim != 2 or len(embeddings) != len(responses):
            raise ValueError(
                f"{type(self.embedding).__name__}.embed gave {tuple(embeddings.shape)} for {len(responses)} texts; "
                "give one row each."
            )
        return {"semantic_diversity": semantic_diversity(embeddings), "vendi": vendi_score(embeddings)}


class SyntacticDiversity(_OfResponses):
    """``syntactic_diversity`` of the dependency trees of responses, which the caller's parser made.

    Args:
        iterations: ``h`` of `lit_rl.metrics.syntactic.subtree_counts`.
        kwargs: Of torchmetrics' ``Metric``.
    """

    def __init__(self, iterations: int = 2, **kwargs: Any):
        super().__init__(["syntactic_diversity"], **kwargs)
        if iterations < 0:
            raise ValueError(f"SyntacticDiversity.iterations is {iterations}; it must be at least 0.")
        self.iterations = iterations

    def figures(self, responses: Sequence[DependencyTree]) -> dict[str, float]:
        return {"syntactic_diversity": syntactic_diversity(responses, self.iterations)}


class SequenceEntropy(PromptMeans):
    """``sequence_entropy``, ``token_entropy`` (nats), and what biases them: ``truncated_share`` and ``mean_length``."""

    def __init__(self, **kwargs: Any):
        super().__init__(["sequence_entropy", "token_entropy", "truncated_share", "mean_length"], **kwargs)

    def update(self, log_probs: Tensor, lengths: Tensor, truncated: Tensor, group_ids: Tensor) -> None:
        """Add responses.

        Args:
            log_probs: Of each under the policy that sampled it, summed over its tokens, end of turn included, float
                ``(E,)``; sampled at temperature 1 from all tokens, or it is no entropy of the policy.
            lengths: Tokens of each, int64 ``(E,)``.
            truncated: Whether it was cut off, bool ``(E,)``.
            group_ids: Prompt of each, int64 ``(E,)``.
        """
        for rows in rows_by_prompt(len(log_probs), group_ids):
            self.add_prompt(
                {
                    "sequence_entropy": sequence_entropy(log_probs[rows]),
                    "token_entropy": token_entropy(log_probs[rows], lengths[rows]),
                    "truncated_share": float(truncated[rows].double().mean()),
                    "mean_length": float(lengths[rows].double().mean()),
                }
            )


class AnswerDiversity(PromptMeans):
    """How many right answers are found, and how answers spread.

    ``distinct_correct``, ``answer_entropy`` in nats, ``effective_answers`` (its exponential), ``quality`` and
    ``pass_at_K``.

    Args:
        ks: Of pass@k; a prompt with fewer responses is an error.
        kwargs: Of torchmetrics' ``Metric``.
    """

    def __init__(self, ks: Sequence[int] = (1,), **kwargs: Any):
        if not ks or min(ks) < 1:
            raise ValueError(f"AnswerDiversity.ks is {list(ks)}; give numbers of attempts, at least 1.")
        self.ks = tuple(ks)
        names = ["distinct_correct", "answer_entropy", "effective_answers", "quality"]
        super().__init__(names + [f"pass_at_{k}" for k in self.ks], **kwargs)

    def update(
        self, answers: Sequence[str | None], correct: Tensor, group_ids: Tensor, quality: Tensor | None = None
    ) -> None:
        """Add responses.

        Args:
            answers: Of each, None where it has none; answers that mean the same must be the same text.
            correct: Whether each is right, ``(E,)``.
            group_ids: Prompt of each, int64 ``(E,)``.
            quality: What each is worth, float ``(E,)``; None takes ``correct``.
        """
        worth = correct if quality is None else quality
        for rows in rows_by_prompt(len(answers), group_ids):
            given, right = [answers[row] for row in rows], [bool(correct[row]) for row in rows]
            entropy = answer_entropy(given)
            found = {"answer_entropy": entropy, "effective_answers": math.exp(entropy)}
            found |= {
                "distinct_correct": float(distinct_correct(given, right)),
                "quality": float(worth[rows].double().mean()),
            }
            self.add_prompt(found | {f"pass_at_{k}": pass_at_k(len(rows), sum(right), k) for k in self.ks})


def rows_by_prompt(count: int, group_ids: Tensor) -> list[list[int]]:
    """Rows of each prompt, by first appearance; raises ValueError unless there are ``count`` ids."""
    if group_ids.shape != (count,):
        raise ValueError(f"There are {count} responses and {tuple(group_ids.shape)} group_ids; give one each.")
    rows: dict[int, list[int]] = {}
    for row, group in enumerate(group_ids.tolist()):
        rows.setdefault(group, []).append(row)
    return list(rows.values())
