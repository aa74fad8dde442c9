"""Dialogues to imitate: rows as a rollout would have built them, targets on the replies alone."""

from collections.abc import Callable

import pytest

from lit_rl.demonstrations import Demonstration, demonstration_rows
from lit_rl.environments.base import Message
from lit_rl.policy import Policy

DIALOGUE = (
    Message("user", "a b"),
    Message("assistant", "one two"),
    Message("user", "no", "teacher", 0),
    Message("assistant", "yes"),
)


def test_rows_by_hand(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student")
    short = Demonstration("short", DIALOGUE[:2])
    rows = demonstration_rows([Demonstration("long", DIALOGUE), short], policy, party="student", policy_version=7)
    names = policy.tokenizer.convert_ids_to_tokens(rows.input_ids[0].tolist())
    assert " ".join(names) == "<user> a b <end> <assistant> one two <end> <user> no <end> <assistant> yes <end>"
    targets = [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1]
    assert rows.target_mask is not None and rows.target_weights is not None
    assert rows.target_mask.int().tolist() == [targets, targets[:8] + [0] * 6]
    assert rows.target_weights.tolist() == rows.target_mask.float().tolist()
    assert rows.turn_ids[0].tolist() == [-1, -1, -1, -1, -1, 0, 0, 0, -1, -1, -1, -1, 1, 1]
    assert rows.attention_mask.sum(1).tolist() == [14, 8]
    assert not rows.loss_mask.any() and rows.policy_version == 7 and rows.label == "demonstrations"
    whole = policy.tokenizer.apply_chat_template([{"role": m.role, "content": m.content} for m in DIALOGUE])
    assert rows.input_ids[0].tolist() == whole["input_ids"]


def test_a_prefill_is_no_target(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student", prefill={"student": "one"})
    rows = demonstration_rows([Demonstration("d", DIALOGUE[:2])], policy, party="student", policy_version=0)
    names = policy.tokenizer.convert_ids_to_tokens(rows.input_ids[0].tolist())
    assert names[-3:] == ["one", "two", "<end>"]
    assert rows.target_mask is not None and rows.target_mask[0, -3:].tolist() == [False, True, True]
    with pytest.raises(ValueError, match="'yes' of 'student' does not begin with its prefill 'one'"):
        demonstration_rows([Demonstration("d", DIALOGUE)], policy, party="student", policy_version=0)


def test_bad_demonstrations_are_named(make_policy: Callable[..., Policy]) -> None:
    with pytest.raises(ValueError, match="Demonstration d7: no message has the role 'assistant'"):
        Demonstration("d7", DIALOGUE[:1])
    policy = make_policy("student", max_length=10)
    with pytest.raises(ValueError, match="Demonstration d7 has 14 tokens; the policy's rows hold 10"):
        demonstration_rows([Demonstration("d7", DIALOGUE)], policy, party="student", policy_version=0)


def test_what_the_party_heard_may_be_a_target_too(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student")
    rows = demonstration_rows(
        [Demonstration("d", DIALOGUE)],
        policy,
        party="student",
        policy_version=0,
        train_turns="final",
        train_feedback=True,
    )
    assert rows.target_mask is not None
    names = policy.tokenizer.convert_ids_to_tokens(rows.input_ids[0][rows.target_mask[0]].tolist())
    assert " ".join(names) == "no <end> yes <end>"
    assert rows.turn_ids[0][rows.target_mask[0]].tolist() == [0, 0, 1, 1]
    assert set(rows.party_ids[0][rows.target_mask[0]].tolist()) == {0}  # the learner's row, whoever said it
