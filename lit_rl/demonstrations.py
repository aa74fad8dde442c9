"""Dialogues somebody else had, as training rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from lit_rl.environments.base import Message
from lit_rl.episodes import ROW_FIELDS, Rollouts
from lit_rl.policy import Policy

TrainTurns = Literal["all", "final"]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One dialogue to imitate; the replies of "assistant" are the targets.

    Attributes:
        id: For error messages.
        messages: In order; at least one of "assistant".
    """

    id: str
    messages: tuple[Message, ...]

    def __post_init__(self) -> None:
        if not any(message.role == "assistant" for message in self.messages):
            raise ValueError(
                f"Demonstration {self.id}: no message has the role 'assistant', so nothing is to be learned."
            )


def demonstration_rows(
    demonstrations: Sequence[Demonstration],
    policy: Policy,
    *,
    party: str,
    policy_version: int,
    train_turns: TrainTurns = "all",
) -> Rollouts:
    """Rows built turn by turn as in a rollout, with ``target_mask`` on the replies and their end of turn.

    A reply begins with the party's prefill, which is not a target.

    Args:
        demonstrations: One row each.
        policy: Its tokenizer, chat template and context count.
        party: Whose replies they are.
        policy_version: Of the rows.
        train_turns: "all" replies are targets, or the "final" one of each dialogue (arXiv 2602.16488, section 4.3, has
            all; our option).

    Raises:
        ValueError: A row exceeds the policy's context, naming the demonstration.
    """
    rows = [_row(demonstration, policy, party) for demonstration in demonstrations]
    if train_turns == "final":
        rows = [(ids, [turn == max(when) for turn in when], when) for ids, _, when in rows]
    count, length = len(rows), max(len(ids) for ids, _, _ in rows)
    fields: dict[str, Any] = {
        name: torch.zeros((count, length), dtype=dtype)
        for name, (dtype, dims) in ROW_FIELDS.items()
        if dims == "BT" and name in _FIELDS
    }
    fields["input_ids"].fill_(policy.tokenizer.pad_token_id or 0)
    fields["party_ids"].fill_(-1)
    fields["turn_ids"].fill_(-1)
    turns = 1 + max(max(when) for _, _, when in rows)
    for b, (ids, targets, when) in enumerate(rows):
        size, mask = len(ids), torch.tensor(targets)
        fields["input_ids"][b, :size] = torch.tensor(ids)
        fields["attention_mask"][b, :size] = True
        fields["target_mask"][b, :size] = mask
        fields["target_weights"][b, :size] = mask.float()
        fields["party_ids"][b, :size] = torch.where(mask, 0, -1)
        fields["turn_ids"][b, :size] = torch.tensor(when)
    return Rollouts(
        parties=(party,),
        policy_version=policy_version,
        label="demonstrations",
        rewards=torch.zeros(count, turns),
        turn_valid=torch.ones(count, turns, dtype=torch.bool),
        group_ids=torch.arange(count),
        episode_ids=torch.arange(count),
        terminated=torch.ones(count, dtype=torch.bool),
        truncated=torch.zeros(count, dtype=torch.bool),
        **fields,
    )


_FIELDS: tuple[str, ...] = ("input_ids", "attention_mask", "party_ids", "loss_mask", "turn_ids", "old_log_probs")
_FIELDS += ("target_mask", "target_weights")


def _row(demonstration: Demonstration, policy: Policy, party: str) -> tuple[list[int], list[bool], list[int]]:
    """Token ids, which of them are targets, and the exchange of each target."""
    ids: list[int] = []
    targets: list[bool] = []
    when: list[int] = []
    heard: list[Message] = []
    exchange = 0
    for message in demonstration.messages:
        if message.role != "assistant":
            heard.append(message)
            continue
        new = policy.chat.continuation(party, heard, ended=True) if ids else policy.chat.opening(party, heard)
        said = [*policy.chat.reply_ids(party, message.content), policy.chat.end_id]
        ids += [*new.ids, *said]
        targets += [False] * len(new.ids) + [True] * len(said)
        when += [-1] * len(new.ids) + [exchange] * len(said)
        heard, exchange = [], exchange + 1
    if len(ids) > policy.max_length:
        raise ValueError(
            f"Demonstration {demonstration.id} has {len(ids)} tokens; the policy's rows hold {policy.max_length}. "
            "Shorten it or raise policy.max_length."
        )
    return ids, targets, when
