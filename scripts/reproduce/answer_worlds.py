"""Finite sets of answers: one with many right ones, all pairs of one, and how likely a policy gives each answer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_rl.demonstrations import Demonstration, demonstration_rows
from lit_rl.environments.answer_sets import AnswerSet
from lit_rl.environments.base import Message
from lit_rl.policy import Policy
from lit_rl.preferences import Preference

FILE = "policy.json"


class Multiples(AnswerSet):
    """A number and a multiple of it, both from 1 to ``size``: worth 1 if it is one, else 0.

    The reference is narrow.  Its first number lies near ``centre``; its second one is in 40 % of cases a multiple, the
    number itself most of all, and else lies near the first.

    Args:
        size: Of 16 numbers, 50 of the 256 answers are right.
        centre: The first number said most often.
    """

    def __init__(self, size: int = 16, centre: int = 5):
        pairs = [(i, k) for i in range(1, size + 1) for k in range(1, size + 1)]
        first = _shares([0.7 ** abs(i - centre) for i in range(1, size + 1)])
        second = [_second(i, size) for i in range(1, size + 1)]
        super().__init__(
            "Multiples",
            [f"{i} {k}" for i, k in pairs],
            [float(k % i == 0) for i, k in pairs],
            [first[i - 1] * second[i - 1][k - 1] for i, k in pairs],
            prompts=["a number and a multiple"],
        )


def _shares(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def _second(first: int, size: int) -> list[float]:
    """Probabilities of 1 .. ``size`` after ``first``."""
    right = [0.4 ** (k // first) if k % first == 0 else 0.0 for k in range(1, size + 1)]
    wrong = [0.0 if k % first == 0 else 0.7 ** abs(k - first) for k in range(1, size + 1)]
    if not any(wrong):
        return _shares(right)
    return [0.4 * a + 0.6 * b for a, b in zip(_shares(right), _shares(wrong), strict=True)]


class AllPairs:
    """Every pair of different answers once, the better one chosen, with what both are worth.

    Args:
        tasks: Of the first prompt.
    """

    def __init__(self, tasks: AnswerSet):
        prompt, worth = (Message("user", tasks[0].prompt),), dict(zip(tasks.answers, tasks.rewards, strict=True))
        best_first = sorted(tasks.answers, key=worth.__getitem__, reverse=True)
        self._pairs = [
            Preference(
                id=f"{better} over {other}",
                prompt=prompt,
                chosen=better,
                rejected=other,
                scores=(worth[better], worth[other]),
            )
            for place, better in enumerate(best_first)
            for other in best_first[place + 1 :]
        ]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Preference:
        return self._pairs[index]


class PolicyFile(L.Callback):
    """At the end of a training writes ``policy.json``: the log-prob of every answer, of the policy and its reference.

    An answer is its words: whether the policy would stop after them is not asked, as in rollouts that end there.

    Args:
        tasks: Answers to its first prompt.
        party: Whose.
    """

    def __init__(self, tasks: AnswerSet, party: str = "student"):
        self.tasks, self.party = tasks, party

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = {
            name: answer_log_probs(pl_module.policy, self.tasks, party).tolist()  # type: ignore[arg-type]
            for name, party in (("policy", self.party), ("reference", None))
        }
        result: dict[str, Any] = {"answers": self.tasks.answers, "rewards": self.tasks.rewards, **found}
        (Path(trainer.default_root_dir) / FILE).write_text(json.dumps(result))


@torch.no_grad()
def answer_log_probs(policy: Policy, tasks: AnswerSet, party: str | None) -> Tensor:
    """Of every answer to the first prompt, float64 ``(N,)``; ``party`` None is the reference."""
    prompt = Message("user", tasks[0].prompt)
    answers = [Demonstration(answer, (prompt, Message("assistant", answer))) for answer in tasks.answers]
    rows = demonstration_rows(answers, policy, party=party or "reference", policy_version=0).to(policy.device)
    assert rows.target_mask is not None
    last = rows.attention_mask.sum(1, keepdim=True) - 1  # the end of the turn
    words = rows.target_mask.scatter(1, last, False)
    with policy.acting_as(party):
        log_probs, _ = policy.log_probs(rows.input_ids, words)
    return log_probs.double().sum(1).cpu()
