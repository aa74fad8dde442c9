"""Dialogues somebody else had, or the student itself earlier, as training rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from lit_rl.environments.base import Message
from lit_rl.episodes import ROW_FIELDS, Rollouts
from lit_rl.policy import Policy

TrainTurns = Literal["all", "final"]


@dataclass(slots=True)
class TargetRow:
    """One dialogue as token ids, and what of them can be learned; all lists are of one length."""

    name: str  # for error messages
    ids: list[int]
    targets: list[bool]  # the learner's replies
    feedback: list[bool]  # what it heard from others, the problem left out
    exchanges: list[int]  # of both, -1 elsewhere


class Imitable(Protocol):
    """A dialogue that has a training row."""

    def row(self, policy: Policy, party: str) -> TargetRow:
        """The row, for a policy's tokenizer, chat template and a party's prefill."""
        ...


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

    def row(self, policy: Policy, party: str) -> TargetRow:
        """Built turn by turn as in a rollout; a reply begins with the party's prefill, which is not a target.

        Feedback is what messages say that name their ``party``.
        """
        row = TargetRow(f"Demonstration {self.id}", [], [], [], [])
        heard: list[Message] = []
        exchange = 0
        for message in self.messages:
            if message.role != "assistant":
                heard.append(message)
                continue
            new = policy.chat.continuation(party, heard, ended=True) if row.ids else policy.chat.opening(party, heard)
            said = [*policy.chat.reply_ids(party, message.content), policy.chat.end_id]
            told, when = [False] * len(new.ids), [-1] * len(new.ids)
            for span in new.heard:
                for place in range(span.start, span.stop):
                    told[place], when[place] = True, span.exchange
            row.ids += [*new.ids, *said]
            row.targets += [False] * len(new.ids) + [True] * len(said)
            row.feedback += told + [False] * len(said)
            row.exchanges += when + [exchange] * len(said)
            heard, exchange = [], exchange + 1
        return row


def demonstration_rows(
    demonstrations: Sequence[Imitable],
    policy: Policy,
    *,
    party: str,
    policy_version: int,
    train_turns: TrainTurns = "all",
    train_feedback: bool = False,
) -> Rollouts:
    """One row each, with ``target_mask`` on the replies and their end of turn.

    ``party_ids`` are the learner's on all targets, feedback included: it learns to say them.

    Args:
        demonstrations: One row each.
        policy: Its tokenizer, chat template and context count.
        party: Whose replies they are.
        policy_version: Of the rows.
        train_turns: "all" replies are targets, or the "final" one of each dialogue (arXiv 2602.16488, section 4.3, has
            all; our option).
        train_feedback: What the learner heard from others is a target too (arXiv 2602.16066, as finetuning).

    Raises:
        ValueError: A row exceeds the policy's context, naming the demonstration.
    """
    rows = [_checked(demonstration.row(policy, party), policy) for demonstration in demonstrations]
    count, length = len(rows), max(len(row.ids) for row in rows)
    fields: dict[str, Any] = {
        name: torch.zeros((count, length), dtype=dtype)
        for name, (dtype, dims) in ROW_FIELDS.items()
        if dims == "BT" and name in _FIELDS
    }
    fields["input_ids"].fill_(policy.tokenizer.pad_token_id or 0)
    fields["party_ids"].fill_(-1)
    fields["turn_ids"].fill_(-1)
    turns = 1 + max(max(row.exchanges) for row in rows)
    for b, row in enumerate(rows):
        size, mask = len(row.ids), torch.tensor(_learned(row, train_turns, train_feedback))
        spoken = mask | torch.tensor(row.targets)
        fields["input_ids"][b, :size] = torch.tensor(row.ids)
        fields["attention_mask"][b, :size] = True
        fields["target_mask"][b, :size] = mask
        fields["target_weights"][b, :size] = mask.float()
        fields["party_ids"][b, :size] = torch.where(mask, 0, -1)
        fields["turn_ids"][b, :size] = torch.where(spoken, torch.tensor(row.exchanges), -1)
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


def _learned(row: TargetRow, train_turns: TrainTurns, train_feedback: bool) -> list[bool]:
    last = max(when for when, target in zip(row.exchanges, row.targets, strict=True) if target)
    return [
        (target and (train_turns == "all" or when == last)) or (feedback and train_feedback)
        for target, feedback, when in zip(row.targets, row.feedback, row.exchanges, strict=True)
    ]


def _checked(row: TargetRow, policy: Policy) -> TargetRow:
    if len(row.ids) > policy.max_length:
        raise ValueError(
            f"{row.name} has {len(row.ids)} tokens; the policy's rows hold {policy.max_length}. Shorten it or raise "
            "policy.max_length."
        )
    return row
