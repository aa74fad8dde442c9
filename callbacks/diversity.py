"""How diverse the responses to held-out prompts are, and how good."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lit_rl.callbacks.held_out import HeldOut
from lit_rl.metrics.diversity import (
    AnswerDiversity,
    LexicalDiversity,
    PromptMeans,
    SemanticDiversity,
    SequenceEntropy,
    rows_by_prompt,
)
from lit_rl.metrics.embeddings import Embedding


class Diversity(HeldOut):
    """Logs ``val/LABEL/...`` (or ``test/...``) of several responses to each prompt: how they differ, how good they are.

    The figures are those of `lit_rl.metrics.diversity`: entropy, n-grams, embeddings, answers and quality; those of
    right responses alone end in ``_correct``.  Diversity compares at equal quality only (qempo.md section 3.4).  What
    is not defined (of one response, say) is not logged, and nothing is of greedy decoding.  After ``trainer.validate``
    and ``trainer.test`` the figures are printed too.

    A batch is an object with the fields of `lit_rl.episodes.Rollouts` ``episodes``, ``episode_ids``, ``rewards``,
    ``label`` and ``temperature``; a response is all that ``party`` said in an episode, and the ``info`` of its last
    turn may have ``answer`` and ``correct``.  Or it is a dict of one entry per response: ``texts``, ``group_ids``
    ``(E,)`` and, as far as they are known, ``rewards`` ``(E,)`` or ``(E, N)``, ``correct`` ``(E,)`` with ``answers``
    (None where there is none; the texts unless given), ``old_log_probs`` with ``loss_mask`` ``(E, T)``, ``truncated``
    ``(E,)``; its ``label`` is "responses" unless given.  Precision plugins may turn its log-probs into bfloat16.

    All responses to a prompt have to be in one batch.  The entropy is that of what sampled, which is the policy's own
    at temperature 1 with neither top-p nor top-k; our DataModules validate otherwise unless ``evaluation`` says so.

    Args:
        orders: Of n-grams.
        bleu_order: Longest n-grams of self-BLEU.
        vocabulary_size: Different words there can be, for the length-corrected distinct-n; None leaves it out.
        ks: Of pass@k; at most as many as there are responses to a prompt.
        embedding: Turns texts into vectors; None takes `lit_rl.metrics.embeddings.HashedNgrams`, which sees spelling.
        party: Whose responses, of episodes.
    """

    def __init__(
        self,
        *,
        orders: Sequence[int] = (1, 2, 3),
        bleu_order: int = 4,
        vocabulary_size: int | None = None,
        ks: Sequence[int] = (1,),
        embedding: Embedding | None = None,
        party: str = "student",
    ):
        self.lexical: dict[str, Any] = {"orders": orders, "bleu_order": bleu_order, "vocabulary_size": vocabulary_size}
        self.ks, self.embedding, self.party = tuple(ks), embedding, party
        LexicalDiversity(**self.lexical)  # raises if an option is out of range, and so does the next
        AnswerDiversity(self.ks)
        self._metrics: dict[str, dict[str, Any]] = {}  # by label, then by name
        self._figures: dict[str, dict[str, float]] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._print(trainer)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._print(trainer)

    def begin(self, trainer: L.Trainer) -> None:
        self._metrics, least = {}, max(2, *self.ks)
        size = getattr(getattr(trainer, "datamodule", None), "validation_group_size", least)
        if size < least:
            raise ValueError(
                f"Diversity compares the responses to a prompt, but data.validation_group_size is {size}; set it to at "
                f"least {least} (ks is {list(self.ks)}), or leave the callback out."
            )

    def add(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> None:
        if getattr(batch, "temperature", 1.0) == 0:
            return
        found = _of_dict(batch) if isinstance(batch, Mapping) else _of_episodes(batch, self.party)
        metrics = self._metrics.setdefault(found.label, {})
        for name, metric, arguments in self._updates(found):
            metrics.setdefault(name, metric).to(pl_module.device).update(*arguments)

    def _updates(self, found: "_Responses") -> list[tuple[str, Any, tuple[Any, ...]]]:
        """Which metrics the responses have the fields for: name, a new one, what to update it with."""
        texts, groups, correct = found.texts, found.group_ids, found.correct
        updates: list[tuple[str, Any, tuple[Any, ...]]] = [
            ("lexical", LexicalDiversity(**self.lexical), (texts, groups, correct)),
            ("semantic", SemanticDiversity(self.embedding), (texts, groups, correct)),
        ]
        if found.log_probs is not None:
            updates.append(("entropy", SequenceEntropy(), (found.log_probs, found.lengths, found.truncated, groups)))
        if correct is not None:
            updates.append(("answers", AnswerDiversity(self.ks), (found.answers, correct, groups, found.rewards)))
        elif found.rewards is not None:
            updates.append(("quality", _Quality(["quality"]), (found.rewards, groups)))
        return updates

    def report(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._figures = {}
        if getattr(trainer, "sanity_checking", False):
            return
        for label, metrics in self._metrics.items():
            figures = {name: float(x) for metric in metrics.values() for name, x in metric.compute().items()}
            self._figures[label] = {name: x for name, x in figures.items() if x == x}
            for name, value in self._figures[label].items():
                pl_module.log(f"{stage}/{label}/{name}", value, batch_size=1)

    def _print(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero and self._figures:
            Console().print(table_of(self._figures))


class _Quality(PromptMeans):
    """``quality`` where nobody says what is right."""

    def update(self, rewards: Tensor, group_ids: Tensor) -> None:
        for rows in rows_by_prompt(len(rewards), group_ids):
            self.add_prompt({"quality": float(rewards[rows].double().mean())})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Responses:
    """``E`` responses; what is not known is None."""

    label: str
    texts: Sequence[str]
    group_ids: Tensor  # int64 (E,)
    rewards: Tensor | None  # float (E,)
    answers: Sequence[str | None]
    correct: Tensor | None  # bool (E,)
    log_probs: Tensor | None  # float (E,), of whole responses
    lengths: Tensor
    truncated: Tensor


def _of_episodes(batch: Any, party: str) -> _Responses:
    episodes = getattr(batch, "episodes", None)
    if not episodes:
        raise ValueError(
            f"Diversity needs batches of rollouts with episodes, or dicts with texts; this one is a "
            f"{type(batch).__name__} without. Yield one of these, or leave the callback out."
        )
    turns = [episode.turns_of(party) for episode in episodes]
    if not all(turns):
        raise ValueError(f"Diversity: {party!r} says nothing in an episode; set party to one of {list(batch.parties)}.")
    row = {index: place for place, index in enumerate(batch.episode_ids.tolist())}
    rows = [row[episode.index] for episode in episodes]
    last = [said[-1].info for said in turns]
    return _Responses(
        label=batch.label,
        texts=["\n".join(turn.text for turn in said) for said in turns],
        group_ids=torch.tensor([episode.group for episode in episodes]),
        rewards=batch.rewards[rows].sum(1),
        answers=[info.get("answer") for info in last],
        correct=torch.tensor([bool(info["correct"]) for info in last]) if all("correct" in i for i in last) else None,
        log_probs=torch.tensor([sum(sum(turn.log_probs) for turn in said) for said in turns], dtype=torch.float64),
        lengths=torch.tensor([sum(len(turn.completion_ids) for turn in said) for said in turns]),
        truncated=torch.tensor([said[-1].stop_reason == "length" for said in turns]),
    )


def _of_dict(batch: Mapping[str, Any]) -> _Responses:
    missing = [name for name in ("texts", "group_ids") if name not in batch]
    if missing:
        raise ValueError(f"Diversity needs {missing[0]} of every response in a dict batch; it has {sorted(batch)}.")
    count, rewards, log_probs, mask = len(batch["texts"]), None, None, batch.get("loss_mask")
    if "rewards" in batch:
        rewards = batch["rewards"].reshape(count, -1).sum(1)
    if "old_log_probs" in batch and mask is not None:
        log_probs = batch["old_log_probs"].masked_fill(~mask, 0.0).double().sum(1)
    return _Responses(
        label=batch.get("label", "responses"),
        texts=batch["texts"],
        group_ids=batch["group_ids"],
        rewards=rewards,
        answers=batch.get("answers", batch["texts"]),
        correct=batch.get("correct"),
        log_probs=log_probs,
        lengths=torch.zeros(count, dtype=torch.int64) if mask is None else mask.sum(1),
        truncated=batch.get("truncated", torch.zeros(count, dtype=torch.bool)),
    )


def table_of(figures: Mapping[str, Mapping[str, float]]) -> Table:
    """One line a figure, one column a label."""
    table = Table(title="Diversity on held-out prompts")
    table.add_column("")
    for label in figures:
        table.add_column(label, justify="right")
    for name in dict.fromkeys(name for found in figures.values() for name in found):
        entries = [f"{found[name]:.3f}" if name in found else "" for found in figures.values()]
        table.add_row(name.replace("_", " "), *entries)
    return table
