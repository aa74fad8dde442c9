"""Service dialogues played by `lit_rl.rollout.play`: two adapters on one base, scripts, and models as customers."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from lit_rl.constraints import ConstraintTable
from lit_rl.episodes import Episode, Rollouts
from lit_rl.local_party import LocalParty
from lit_rl.metrics.expert_skills import esndcg
from lit_rl.metrics.service import ServiceScoring
from lit_rl.parties import Party, PartyError, PolicyParty, ScriptedParty
from lit_rl.policy import Policy, PolicyConfig
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
    best_plan,
    scenario_facts,
    scripted_customer,
    scripted_responder,
    served,
    service_constraints,
    service_facts,
    toy_shop_words,
)
from lit_rl.tiny import TinyModel

SOURCE = ServiceScenarios(24)
LABELLED = SkillLabels(LABELS)
SETTINGS = SamplingSettings(max_tokens=12)
SAMPLED = {party: PolicyParty(settings=SETTINGS, adapter=party) for party in ("planner", "responder")}
CUSTOMER = ScriptedParty(scripted_customer, "customer")
EXPERTS = {"planner": ScriptedParty(ScriptedPlanner()), "responder": ScriptedParty(scripted_responder)}


@pytest.fixture(scope="module")
def policy(make_policy: Callable[..., Policy]) -> Policy:
    return make_policy()


def run(
    policy: Policy, parties: Mapping[str, Party | PolicyParty], count: int = 12, seed: int = 0, **options: Any
) -> list[Episode]:
    constrained = {name: options[name] for name in ("mode", "masks", "chain_length", "lookahead") if name in options}
    policy.constraints = ConstraintTable(service_constraints(SOURCE.procedure, policy, LABELLED, **constrained))
    options = {"prompts": ServicePrompts(style="short"), "labels": LABELLED} | options
    planned = [
        Planned(environment=ServiceDialogue(SOURCE[i], **options), index=i, task_id=f"shop-{i}", group=i)
        for i in range(count)
    ]
    return play(planned, {"customer": CUSTOMER, **parties}, policy, seed=seed).episodes


def rows(episodes: list[Episode], policy: Policy, *trained: str) -> Rollouts:
    assert policy.constraints is not None
    offsets = policy.constraints.offsets
    return Rollouts.from_episodes(
        episodes, trained=trained, parties=["planner", "responder", "customer"], constraint_offsets=offsets
    )


def same_log_probs(rollouts: Rollouts, policy: Policy, party: str) -> None:
    with torch.no_grad(), policy.acting_as(party):
        log_probs, _ = policy.log_probs(
            rollouts.input_ids, rollouts.loss_mask, temperature=1.0, constraint_states=rollouts.constraint_states
        )
    torch.testing.assert_close(log_probs, rollouts.old_log_probs, atol=2e-5, rtol=0)


def test_two_adapters_under_hard_masks(policy: Policy) -> None:
    """Gopo.md sections 11 and 12.1, 12.5: no rule is broken, every reply keeps to its constraint."""
    episodes = run(policy, SAMPLED, count=24)
    turns = [facts for episode in episodes for facts in service_facts(episode)]
    assert len(turns) > 20 and all(facts.ok and not facts.broken_rules and facts.chain for facts in turns)
    assert {len(facts.chain) for facts in turns} == {3}
    for party in ("planner", "responder"):
        rollouts = rows(episodes, policy, party)
        assert len(rollouts) == len(episodes), "a dialogue is one row of each party"
        number = rollouts.parties.index(party)
        assert (rollouts.party_ids[rollouts.loss_mask] == number).all()
        assert (rollouts.constraint_states[rollouts.loss_mask] >= 0).all()
        same_log_probs(rollouts, policy, party)
    ids = policy.tokenizer.convert_tokens_to_ids(list(LABELS.values()))
    planner = rows(episodes, policy, "planner")
    said = planner.input_ids[planner.loss_mask].unique().tolist()
    assert policy.chat.end_id in said and set(said) <= {*ids, policy.chat.end_id}, "a plan is labels and its end"


def test_without_masks_rules_and_constraints_are_broken_and_counted(policy: Policy) -> None:
    episodes = run(policy, SAMPLED, masks="none")
    turns = [facts for episode in episodes for facts in service_facts(episode)]
    assert any(facts.broken_rules for facts in turns) and any(facts.faults for facts in turns)
    assert all(len(facts.chain) == 3 for facts in turns), "plans are still chains of labels"
    broken = [rule for facts in turns for rule in facts.broken_rules]
    figures = [ServiceScoring().figures(served(episode)) for episode in episodes]
    assert sum(figure.violations for figure in figures) == len(broken)
    rollouts = rows(episodes, policy, "responder")
    assert rollouts.constraint_states is None
    same_log_probs(rollouts, policy, "responder")


@pytest.mark.parametrize("masks", ["skills", "replies"])
def test_one_of_the_two_masks(policy: Policy, masks: str) -> None:
    turns = [facts for episode in run(policy, SAMPLED, masks=masks) for facts in service_facts(episode)]
    assert any(facts.broken_rules for facts in turns) == (masks == "replies")
    assert all(facts.ok for facts in turns) == (masks == "replies")


@pytest.mark.parametrize("masks", ["hard", "none"])
def test_a_flat_policy(policy: Policy, masks: str) -> None:
    episodes = run(policy, {"responder": SAMPLED["responder"]}, mode="flat", masks=masks)
    turns = [facts for episode in episodes for facts in service_facts(episode)]
    assert all(len(facts.chain) == 1 for facts in turns)
    assert all(facts.ok and not facts.broken_rules for facts in turns) == (masks == "hard")
    rollouts = rows(episodes, policy, "responder")
    assert (rollouts.constraint_states[rollouts.loss_mask] >= 0).all()
    same_log_probs(rollouts, policy, "responder")


def test_experts_reach_the_optimum(policy: Policy) -> None:
    """The scripts' dialogues are the best plans, and each of their plans is the ideal one."""
    for episode in run(policy, EXPERTS):
        goal = SOURCE.goal(episode.index)
        assert scenario_facts(episode).scenario["goal"]["objection"] == goal.objection
        figures = ServiceScoring().figures(served(episode))
        assert figures.tse == pytest.approx(best_plan(goal, SOURCE.procedure)[1]) and figures.ordered
        assert figures.tse_compliant == figures.tse and figures.violations == 0
        assert figures.esndcg == pytest.approx(1)
        for facts in service_facts(episode):
            assert esndcg(facts.chain, facts.relevance) == pytest.approx(1)
    flat = run(policy, {"responder": ScriptedParty(ScriptedFlat())}, mode="flat")
    assert all(episode.stop_reason == "ordered" for episode in flat)


def test_behaviour_between_expert_and_random(policy: Policy) -> None:
    def skills(share: float, seed: int = 0) -> list[list[str | None]]:
        parties = {**EXPERTS, "planner": ScriptedParty(ScriptedPlanner(share))}
        return [[f.skill for f in service_facts(episode)] for episode in run(policy, parties, seed=seed, count=24)]

    half = skills(0.5)
    assert half == skills(0.5) and half != skills(0.5, seed=1)
    orders = [sum("close" in dialogue for dialogue in skills(share)) for share in (0.0, 0.5, 1.0)]
    assert orders[0] == 24 > orders[1] > orders[2]
    with pytest.raises(ValueError, match="random_share is 2"):
        ScriptedPlanner(2)
    with pytest.raises(PartyError, match="no reference reply to skill None"):
        run(policy, {"responder": ScriptedParty(scripted_responder)}, mode="flat")


def test_the_frozen_base_is_the_customer(policy: Policy) -> None:
    """Its words are its own; what they are worth follows from the facts alone."""
    base = PolicyParty(settings=SamplingSettings(max_tokens=5), adapter=None)
    episodes = run(policy, {**EXPERTS, "customer": base})
    scripted = run(policy, EXPERTS)
    for episode, other in zip(episodes, scripted, strict=True):
        assert service_facts(episode) == service_facts(other)
        assert all(turn.completion_ids for turn in episode.turns_of("customer"))
    assert [t.text for t in episodes[0].turns] != [t.text for t in scripted[0].turns]
    mixed = run(policy, {**SAMPLED, "customer": base}, count=6)
    for episode in mixed:
        lines = [turn.text for turn in episode.turns_of("customer")]
        prompts = [policy.tokenizer.decode(turn.prompt_ids) for turn in episode.turns_of("planner")]
        assert len(lines) == len(prompts) and all(line in prompt for line, prompt in zip(lines, prompts, strict=True))


def test_another_model_is_the_customer(policy: Policy) -> None:
    tiny = TinyModel(words=toy_shop_words(), hidden_size=16, layers=1, heads=2, max_length=512, seed=5)
    customer = LocalParty(PolicyConfig(tiny=tiny), SamplingSettings(max_tokens=5), name="customer")
    episodes = run(policy, {**SAMPLED, "customer": customer}, count=4)
    assert all(episode.stop_reason in ("left", "handoff", "ordered") for episode in episodes)
    assert all(episode.turns[0].party == "customer" and episode.turns[0].text for episode in episodes)


def test_the_script_words_its_cues_by_the_random_key(policy: Policy) -> None:
    first, again, other = (run(policy, EXPERTS, seed=seed) for seed in (0, 0, 1))
    lines = [
        [turn.text for episode in episodes for turn in episode.turns_of("customer")]
        for episodes in (first, again, other)
    ]
    assert lines[0] == lines[1] != lines[2]
    assert {episode.turns[0].text for episode in first} == set(SOURCE[0].opening.lines)


def test_without_lookahead_plans_hold_what_is_admissible_now(policy: Policy) -> None:
    for parties in (SAMPLED, EXPERTS):
        episodes = run(policy, parties, lookahead=False)
        first = [service_facts(episode)[0].chain for episode in episodes]
        assert all(sorted(chain) == ["greet", "handoff"] for chain in first), "nothing else, before the greeting"
        for facts in (facts for episode in episodes for facts in service_facts(episode)):
            state = SOURCE.procedure.state_number(facts.sop_state)
            assert set(facts.chain) <= set(SOURCE.procedure.admissible(state)) and len(facts.chain) <= 3


def test_a_whole_dialogue_is_short(policy: Policy) -> None:
    """At most 200 tokens for a party, so that tiny models can hold and learn it; all replies as long as they may be."""
    episodes = run(policy, SAMPLED, count=24)
    assert max(len(service_facts(episode)) for episode in episodes) >= 6
    for party in ("planner", "responder"):
        assert rows(episodes, policy, party).attention_mask.sum(1).max() <= 200


def test_facts_survive_what_is_stored(policy: Policy) -> None:
    (episode,) = run(policy, EXPERTS, count=1)
    last = service_facts(episode)[-1]
    assert last.ended == "ordered" == episode.stop_reason and last.as_info() == dict(episode.turns[-1].info)
    assert [turn.party for turn in episode.turns[:4]] == ["customer", "planner", "responder", "customer"]
    assert set(episode.turns[1].info) == {"skill", "chain", "sop_state", "broken_rules", "relevance"}
    cut = Episode(index=9, task_id="t", group=0, seed=0, turns=episode.turns[:1])
    assert served(cut).turns == [] and not served(cut).ordered
    with pytest.raises(ValueError, match="Task t: episode 9 does not begin with a customer's scenario"):
        scenario_facts(Episode(index=9, task_id="t", group=0, seed=0, turns=episode.turns[1:]))
