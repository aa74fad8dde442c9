"""Dialogues of scripts kept as the policy's tokens."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from lit_rl.constraints import ConstraintTable
from lit_rl.environments.base import Reply
from lit_rl.episodes import Episode, Rollouts
from lit_rl.parties import Call, PolicyParty, ScriptedParty
from lit_rl.policy import Policy
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.service import (
    LABELS,
    ScriptedFlat,
    ScriptedPlanner,
    ServiceDialogue,
    ServicePrompts,
    ServiceScenarios,
    SkillLabels,
    scripted_customer,
    scripted_responder,
    service_constraints,
    service_facts,
    spoken_episodes,
)

SOURCE = ServiceScenarios(12)
LABELLED = SkillLabels(LABELS)
CUSTOMER = ScriptedParty(scripted_customer)
EXPERTS = {
    "customer": CUSTOMER,
    "planner": ScriptedParty(ScriptedPlanner()),
    "responder": ScriptedParty(scripted_responder),
}
TRAINED = ("planner", "responder")


@pytest.fixture(scope="module")
def policy(make_policy: Callable[..., Policy]) -> Policy:
    return make_policy()


def planned(policy: Policy, count: int = 6, **options: Any) -> list[Planned]:
    policy.constraints = ConstraintTable(service_constraints(SOURCE.procedure, policy, LABELLED, **options))
    prompts = ServicePrompts(style="short")
    dialogues = [ServiceDialogue(SOURCE[i], labels=LABELLED, prompts=prompts, **options) for i in range(count)]
    return [Planned(environment=d, index=i, task_id=f"shop-{i}", group=i) for i, d in enumerate(dialogues)]


def rows(episodes: Sequence[Episode], policy: Policy, party: str) -> Rollouts:
    assert policy.constraints is not None
    return Rollouts.from_episodes(
        episodes, trained=[party], parties=["planner", "responder", "customer"],
        constraint_offsets=policy.constraints.offsets,
    )  # fmt: skip


class Repeats:
    """Says again what a party said in dialogues that were played."""

    def __init__(self, episodes: Sequence[Episode], party: str):
        self.said: dict[int, Iterator[str]] = {e.index: iter([t.text for t in e.turns_of(party)]) for e in episodes}

    def reply(self, calls: Sequence[Call]) -> list[Reply]:
        return [Reply(text=next(self.said[call.episode])) for call in calls]


@pytest.mark.parametrize("mode", ["two_level", "flat"])
def test_what_was_sampled_and_said_again_gives_the_same_rows(policy: Policy, mode: Any) -> None:
    """Token for token, constraint states and heard spans too."""
    speakers = TRAINED if mode == "two_level" else TRAINED[1:]
    sampled = {p: PolicyParty(settings=SamplingSettings(max_tokens=12), adapter=p) for p in speakers}
    played = play(planned(policy, mode=mode), {"customer": CUSTOMER, **sampled}, policy, seed=3).episodes
    parties = {name: Repeats(played, name) for name in ("customer", *speakers)}
    again = spoken_episodes(planned(policy, mode=mode), parties, policy, LABELLED, trained=speakers, seed=3)
    for party in speakers:
        wanted, found = rows(played, policy, party), rows(again, policy, party)
        for name in ("input_ids", "loss_mask", "party_ids", "turn_ids", "constraint_states", "attention_mask"):
            assert torch.equal(getattr(wanted, name), getattr(found, name)), name
        assert bool((found.old_log_probs == 0).all())
    assert [service_facts(e) for e in played] == [service_facts(e) for e in again]
    assert [(e.stop_reason, e.terminated) for e in played] == [(e.stop_reason, e.terminated) for e in again]


def test_experts_can_be_learned_from(policy: Policy) -> None:
    """The random keys are those of a rollout, and what an expert says has a probability."""
    episodes = spoken_episodes(planned(policy), EXPERTS, policy, LABELLED, trained=TRAINED, seed=0)
    played = play(planned(policy), EXPERTS, policy, seed=0).episodes
    assert [[t.text for t in e.turns] for e in episodes] == [[t.text for t in e.turns] for e in played]
    assert all(episode.stop_reason == "ordered" for episode in episodes)
    for party in TRAINED:
        found = rows(episodes, policy, party)
        with torch.no_grad(), policy.acting_as(party):
            log_probs, _ = policy.log_probs(
                found.input_ids, found.loss_mask, temperature=1.0, constraint_states=found.constraint_states
            )
        assert bool(log_probs[found.loss_mask].isfinite().all()) and float(log_probs.sum()) < -10
    flat = planned(policy, mode="flat", masks="none")
    parties = {"customer": CUSTOMER, "responder": ScriptedParty(ScriptedFlat())}
    said = spoken_episodes(flat, parties, policy, LABELLED, trained=["responder"], seed=0)
    assert all(episode.stop_reason == "ordered" for episode in said)


def test_words_against_the_constraint_are_refused(policy: Policy) -> None:
    wrong = {**EXPERTS, "responder": ScriptedParty(lambda context, key: "welcome")}
    with pytest.raises(
        ValueError, match="'responder' says 'welcome', which the constraint 'reply:greet' forbids at '<end>'"
    ):
        spoken_episodes(planned(policy), wrong, policy, LABELLED, trained=TRAINED, seed=0)
    plans = planned(policy)
    policy.constraints = None
    with pytest.raises(ValueError, match="no token constraint 'skills:start'"):
        spoken_episodes(plans, EXPERTS, policy, LABELLED, trained=TRAINED, seed=0)
