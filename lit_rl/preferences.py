"""Pairs of replies of which one is preferred, as training rows."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch

from lit_rl.demonstrations import Demonstration, TargetRow, demonstration_rows
from lit_rl.environments.base import Message, Role
from lit_rl.episodes import Rollouts
from lit_rl.policy import Policy
from lit_rl.rollout import fill_reference

SIDES = ("chosen", "rejected")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """Two replies to one prompt.

    Attributes:
        id: For error messages.
        prompt: What was said before, in order.
        chosen: The reply that is preferred.
        rejected: The other one.
        scores: What the two are worth, in that order; None if nobody scored them.
    """

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    scores: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.prompt or self.prompt[-1].role == "assistant":
            raise ValueError(f"{self.id}: the prompt is empty or ends with a reply; it has to end with a request.")
        if self.scores is not None and not all(math.isfinite(score) for score in self.scores):
            raise ValueError(f"{self.id}: the scores are {self.scores}; both have to be finite numbers.")

    def rows(self, policy: Policy, party: str) -> list[TargetRow]:
        """The chosen one and the rejected one; the reply and its end of turn are the targets."""
        pair = [(side, Message("assistant", getattr(self, side))) for side in SIDES]
        said = [Demonstration(f"{self.id}, {side}", (*self.prompt, reply)) for side, reply in pair]
        return [demonstration.row(policy, party) for demonstration in said]


@dataclass(frozen=True, slots=True)
class _Made:
    """A row that is there already, for `demonstration_rows`."""

    made: TargetRow

    def row(self, policy: Policy, party: str) -> TargetRow:
        return self.made


def read_preference(prompt: Any, chosen: Any, rejected: Any, scores: Sequence[Any] | None, where: str) -> Preference:
    """A pair of what stands in a row of a data set.

    Texts are strings or lists of ``{"role", "content"}``.  A reply in message form is one message of "assistant", or
    the whole dialogue with the prompt before it (as in ``HuggingFaceH4/ultrafeedback_binarized``).

    Args:
        prompt: Of both.
        chosen: Preferred.
        rejected: Not preferred.
        scores: Of the two, or None.
        where: File and row, for error messages.

    Raises:
        ValueError: Something is no text, no list of messages, or no number.
    """
    opening = _messages(prompt, "user", f"{where}, prompt")
    replies = [
        _reply(_messages(text, "assistant", f"{where}, {side}"), opening, f"{where}, {side}")
        for side, text in zip(SIDES, (chosen, rejected), strict=True)
    ]
    pair = None if scores is None else (_number(scores[0], where), _number(scores[1], where))
    return Preference(id=where, prompt=opening, chosen=replies[0], rejected=replies[1], scores=pair)


def _messages(text: Any, role: Role, where: str) -> tuple[Message, ...]:
    """A string is one message of ``role``."""
    if isinstance(text, str):
        return (Message(role, text),)
    if not isinstance(text, list) or not text:
        raise ValueError(f"{where}: it is {str(text)[:60]!r}; give a string or a list of messages.")
    for message in text:
        roles, said = get_args(Role), message if isinstance(message, Mapping) else {}
        if said.get("role") not in roles or not isinstance(said.get("content"), str):
            raise ValueError(f"{where}: {str(message)[:60]} is not {{'role': one of {list(roles)}, 'content': text}}.")
    return tuple(Message(message["role"], message["content"]) for message in text)


def _reply(messages: tuple[Message, ...], prompt: tuple[Message, ...], where: str) -> str:
    if messages[: len(prompt)] == prompt:
        messages = messages[len(prompt) :]
    if len(messages) != 1 or messages[0].role != "assistant":
        raise ValueError(
            f"{where}: it has the roles {[message.role for message in messages]}; give one message of 'assistant', "
            "alone or behind the very messages of the prompt."
        )
    return messages[0].content


def _number(score: Any, where: str) -> float:
    try:
        return float(score)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: the score {score!r} is not a number.") from error


def preference_rows(
    preferences: Sequence[Preference],
    numbers: Sequence[int],
    policy: Policy,
    *,
    party: str,
    policy_version: int,
    drop_long: bool = False,
) -> Rollouts:
    """Two rows of each pair, the chosen one first, which share a ``group_ids``.

    ``target_mask`` is True on the reply and its end of turn; ``target_weights`` are 1 there in chosen rows and 0 in
    rejected ones, so that whoever imitates imitates what was chosen.  ``extras`` has ``chosen``, bool ``(B,)``, and
    where the pairs are scored ``score``, float32 ``(B,)``.

    Args:
        preferences: All scored, or none.
        numbers: One for each pair, different on all ranks; it is the pair's ``group_ids``.
        policy: Its tokenizer, chat template and context count.
        party: Whose replies they are.
        policy_version: Of the rows.
        drop_long: Leave pairs out that exceed the policy's context.

    Raises:
        ValueError: A row exceeds the policy's context, naming the pair; or every pair does.
    """
    pairs = [(pair, number, pair.rows(policy, party)) for pair, number in zip(preferences, numbers, strict=True)]
    if drop_long:
        pairs = [entry for entry in pairs if all(len(row.ids) <= policy.max_length for row in entry[2])]
        if not pairs:
            raise ValueError(
                f"All {len(preferences)} pairs of a batch are longer than the {policy.max_length} tokens the policy's "
                "rows hold; raise policy.max_length."
            )
    rows = [_Made(row) for *_, both in pairs for row in both]
    rollouts = demonstration_rows(rows, policy, party=party, policy_version=policy_version, train_turns="final")
    rollouts.label = "preferences"
    rollouts.group_ids = torch.tensor([number for _, number, _ in pairs]).repeat_interleave(2)
    rollouts.episode_ids = 2 * rollouts.group_ids + torch.tensor([0, 1]).repeat(len(pairs))
    rollouts.extras["chosen"] = torch.tensor([True, False]).repeat(len(pairs))
    assert rollouts.target_weights is not None
    rollouts.target_weights[1::2] = 0.0
    scores = [score for pair, *_ in pairs for score in pair.scores or ()]
    if len(scores) not in (0, 2 * len(pairs)):
        raise ValueError(f"{len(scores) // 2} of {len(pairs)} pairs of a batch have scores; score all of them or none.")
    if scores:
        rollouts.extras["score"] = torch.tensor(scores)
    return rollouts


def fill_target_reference(rollouts: Rollouts, policy: Policy, *, token_budget: int) -> None:
    """Write ``ref_log_probs`` of the targets, as `lit_rl.rollout.fill_reference` does of what was sampled."""
    scored = copy.copy(rollouts)
    assert rollouts.target_mask is not None
    scored.loss_mask = rollouts.target_mask
    fill_reference(scored, policy, token_budget=token_budget)
    rollouts.ref_log_probs = scored.ref_log_probs
