"""The token constraints of a service dialogue: one for every name that is asked for, with the procedure's masks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lit_rl.constraints import ConstraintTable, TokenAutomaton
from lit_rl.policy import Policy
from lit_rl.service import LABELS, Procedure, ReplyRule, SkillLabels, service_constraints


@pytest.fixture(scope="module")
def policy(make_policy: Callable[..., Policy]) -> Policy:
    return make_policy()


def first_words(policy: Policy, automaton: TokenAutomaton, state: int = 0) -> set[str]:
    """The tokens allowed in a state."""
    ids = automaton.allowed(torch.tensor([state]))[0].nonzero()[:, 0].tolist()
    return set(policy.tokenizer.convert_ids_to_tokens(ids))


def after(policy: Policy, automaton: TokenAutomaton, *words: str) -> int:
    state = torch.tensor([0])
    for token in policy.tokenizer.convert_tokens_to_ids(list(words)):
        assert bool(automaton.allowed(state)[0, token])
        state = automaton.after(state, torch.tensor([token]))
    return int(state)


def test_plans_begin_with_admissible_skills(policy: Policy, procedure: Procedure, labels: SkillLabels) -> None:
    found = service_constraints(procedure, policy, labels, lookahead=False)
    assert set(found) == {f"skills:{procedure.state_name(s)}" for s in range(procedure.num_states)} | {
        f"reply:{skill}" for skill in procedure.skills
    }
    for state in range(procedure.num_states):
        chain = found[f"skills:{procedure.state_name(state)}"]
        assert first_words(policy, chain) == {LABELS[skill] for skill in procedure.admissible(state)}
    start = found["skills:start"]
    assert first_words(policy, start, after(policy, start, "<greet>")) == {"<handoff>"}
    assert first_words(policy, start, after(policy, start, "<greet>", "<handoff>")) == {"<end>"}


def test_lookahead_lets_later_skills_wait_for_earlier_ones(
    policy: Policy, procedure: Procedure, labels: SkillLabels
) -> None:
    start = service_constraints(procedure, policy, labels)["skills:start"]
    assert first_words(policy, start) == {"<greet>", "<handoff>"}
    later = first_words(policy, start, after(policy, start, "<greet>"))
    assert {"<ask>", "<recommend>", "<policy>", "<coupon>"} <= later and not later & {"<close>", "<greet>"}
    # One skill: nothing comes behind it.
    short = service_constraints(procedure, policy, labels, chain_length=1)["skills:start"]
    assert first_words(policy, short, after(policy, short, "<greet>")) == {"<end>"}


def test_replies(policy: Policy, procedure: Procedure, labels: SkillLabels) -> None:
    reply = service_constraints(procedure, policy, labels, masks="replies")["reply:answer_policy"]
    words = first_words(policy, reply)
    assert "guarantee" not in words and "<end>" not in words and "hello" in words
    assert "<end>" in first_words(policy, reply, after(policy, reply, "7", "day", "returns"))
    # 8 tokens at most: with 3 left, the phrase is due.
    assert first_words(policy, reply, after(policy, reply, *["hello"] * 5)) == {"7"}


def test_flat_replies_follow_their_label(policy: Policy, procedure: Procedure, labels: SkillLabels) -> None:
    found = service_constraints(procedure, policy, labels, mode="flat")
    assert set(found) == {f"flat:{procedure.state_name(s)}" for s in range(procedure.num_states)}
    flat = found["flat:greet+ask_need"]
    assert first_words(policy, flat) == {LABELS[s] for s in ("recommend", "answer_policy", "handle_trust",
                                                              "offer_coupon", "ask_need", "handoff")}  # fmt: skip
    assert "<end>" in first_words(policy, flat, after(policy, flat, "<policy>", "7", "day", "returns"))
    assert "<end>" not in first_words(policy, flat, after(policy, flat, "<coupon>", "7", "day", "returns"))
    (free,) = service_constraints(procedure, policy, labels, mode="flat", masks="none").values()
    assert first_words(policy, free) == set(LABELS.values())
    assert len(first_words(policy, free, after(policy, free, "<close>"))) == len(policy.tokenizer)


@pytest.mark.parametrize(
    ("masks", "kinds"),
    [
        ("hard", {"skills", "reply"}),
        ("skills", {"skills"}),
        ("replies", {"skills:any", "reply"}),
        ("none", {"skills:any"}),
    ],
)
def test_names(policy: Policy, procedure: Procedure, labels: SkillLabels, masks: Any, kinds: set[str]) -> None:
    names = set(service_constraints(procedure, policy, labels, masks=masks))
    assert {name if name.endswith(":any") else name.partition(":")[0] for name in names} == kinds


def test_states_with_one_mask_share_an_automaton(policy: Policy, procedure: Procedure, labels: SkillLabels) -> None:
    found = service_constraints(procedure, policy, labels, masks="skills", lookahead=False)
    assert len({id(automaton) for automaton in found.values()}) == len(
        {procedure.allowed(state) for state in range(procedure.num_states)}
    )
    assert ConstraintTable(found).start("skills:start") == 0


def test_what_is_refused(
    make_policy: Callable[..., Policy], policy: Policy, procedure: Procedure, labels: SkillLabels
) -> None:
    with pytest.raises(ValueError, match="must be one token"):
        service_constraints(procedure, policy, SkillLabels({skill: f"no {skill}" for skill in LABELS}))
    with pytest.raises(ValueError, match="masks is 'soft'"):
        service_constraints(procedure, policy, labels, masks="soft")
    mute = Procedure(
        id="mute",
        skills=procedure.skills,
        safe_skill="handoff",
        goal_skill="close",
        replies={"greet": ReplyRule(required=("bonjour",))},
    )
    with pytest.raises(ValueError, match="The reply of skill 'greet' in procedure 'mute': .*'bonjour' cannot be"):
        service_constraints(mute, policy, labels)
    opened = make_policy(prefill={"planner": "hello"})
    with pytest.raises(ValueError, match="policy.prefill opens the replies of 'planner' with 'hello'"):
        service_constraints(procedure, opened, labels)


def test_a_prefill_counts_as_part_of_the_reply(
    make_policy: Callable[..., Policy], procedure: Procedure, labels: SkillLabels
) -> None:
    greeted = make_policy(prefill={"responder": "hello"})
    reply = service_constraints(procedure, greeted, labels)["reply:greet"]
    assert "<end>" in first_words(greeted, reply)
