"""Service dialogues as batches (gopo.md 4, 10, 11): parts of rewards, conditions, masks, parties, bad input."""

from typing import Any

import pytest
import torch

from lit_rl.datamodules.service import PARTIES, ServiceDataModule
from lit_rl.datamodules.service_rows import rate_replies, service_parts, skill_segments
from lit_rl.episodes import Episode, Rollouts
from lit_rl.methods.gopo_options import PartyTraining
from lit_rl.metrics.expert_skills import esndcg
from lit_rl.metrics.reply_quality import RatedReply, RuleRater
from lit_rl.metrics.service import ServiceScoring
from lit_rl.parties import PolicyParty, ScriptedParty
from lit_rl.policy import Policy
from lit_rl.rollout import Planned
from lit_rl.sampling import SamplingSettings
from lit_rl.service import (
    ScriptedFlat,
    ScriptedPlanner,
    ServiceContext,
    ServiceScenarios,
    scripted_customer,
    scripted_responder,
    service_facts,
    spoken_episodes,
)
from tests.methods.service_batches import attached, collected, gopo, loaded, policy_config, shop

SKILLS = {
    "GREET": "greet", "ASK": "ask_need", "REC": "recommend", "POLICY": "answer_policy", "TRUST": "handle_trust",
    "COUPON": "offer_coupon", "CLOSE": "close", "HANDOFF": "handoff",
}  # fmt: skip
CUSTOMER = ScriptedParty(scripted_customer, "customer")


@pytest.fixture(scope="module")
def batch() -> Rollouts:
    return collected(gopo())


class Plan:
    """A planner who carries out these skills in order, each a plan of its own."""

    def __init__(self, words: str):
        self.skills = [SKILLS[word] for word in words.split()]

    def __call__(self, context: ServiceContext, key: int) -> str:
        return context.labels.write([self.skills.pop(0)])


@pytest.fixture(scope="module")
def free() -> tuple[ServiceDataModule, Policy]:
    """Dialogues without masks, and a policy whose tokens they are told in."""
    method = loaded(gopo())
    data = attached(shop(masks="none"), method)
    assert method.policy is not None
    data.constrain(method.policy)
    return data, method.policy


def told(
    free: tuple[ServiceDataModule, Policy], words: str, objection: Any, responder: Any = scripted_responder
) -> tuple[Rollouts, Episode]:
    """A dialogue with this plan."""
    data, policy = free
    world = data.episode(ServiceScenarios(4, objections=(objection,)), 0)
    parties = {"customer": CUSTOMER, "planner": ScriptedParty(Plan(words)), "responder": ScriptedParty(responder)}
    episodes = spoken_episodes(
        [Planned(environment=world, index=5, task_id="0", group=0)],
        parties,
        policy,
        data.labels,
        trained=["responder"],
        seed=0,
    )
    rate_replies(episodes, {5: world.dialogue}, RuleRater())
    batch = Rollouts.from_episodes(episodes, trained=["responder"], parties=PARTIES, min_exchanges=8)
    service_parts(batch, ServiceScoring())
    return batch, episodes[0]


# -- parts of rewards --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "objection", "tse", "compliant"),
    [
        ("GREET ASK REC POLICY CLOSE", "none", 0.82, 0.82),
        ("GREET ASK REC COUPON POLICY CLOSE", "price", 0.85, 0.85),
        ("GREET ASK REC TRUST POLICY CLOSE", "trust", 0.833333, 0.833333),
        ("GREET COUPON ASK REC POLICY CLOSE", "none", 0.765, 0.765),
        ("GREET ASK REC CLOSE COUPON POLICY CLOSE", "price", 0.752, 0.752),
        # The greeting is left out: S1 is broken by ASK, so that what it achieved does not count.
        ("ASK GREET REC POLICY CLOSE", "none", 0.82, 0.697),
    ],
)
def test_golden_dialogues(free: Any, words: str, objection: Any, tse: float, compliant: float) -> None:
    """Gopo.md 11; the last row by hand: P = .25 + .2 + .4 = .85, E = .64, .85 (.5 + .32) = .697."""
    batch, episode = told(free, words, objection)
    turns = len(words.split())
    felt = batch.reward_parts["engagement"][0]
    assert felt[turns:].isnan().all() and not felt[:turns].isnan().any()
    paid = batch.reward_parts["tse"][0]
    assert float(paid[turns - 1]) == pytest.approx(tse, abs=1e-6) and float(paid.sum()) == float(paid[turns - 1])
    assert float(batch.reward_parts["tse_compliant"][0].sum()) == pytest.approx(compliant, abs=1e-6)
    assert float(batch.extras["dialogue_parts"][0, 0]) == pytest.approx(tse, abs=1e-6)
    broken = [len(facts.broken_rules) for facts in service_facts(episode)]
    assert batch.reward_parts["violations"][0].tolist() == [*broken, *[0] * (8 - turns)]
    assert batch.reward_parts["followed"][0].tolist() == [*[1] * turns, *[0] * (8 - turns)]


def test_every_broken_rule_counts_and_so_does_a_reply_that_kept_to_nothing(free: Any) -> None:
    def rude(context: ServiceContext, key: int) -> str:
        return "welcome" if context.skill == "greet" else scripted_responder(context, key)

    batch, episode = told(free, "CLOSE GREET HANDOFF", "none", rude)
    broken = [facts.broken_rules for facts in service_facts(episode)]
    assert len(broken[0]) > 1
    assert batch.reward_parts["violations"][0, :3].tolist() == [len(rules) for rules in broken]
    assert batch.reward_parts["followed"][0, :3].tolist() == [1.0, 0.0, 1.0]


def test_chains_are_graded_turn_by_turn(free: Any) -> None:
    batch, episode = told(free, "GREET COUPON ASK REC POLICY CLOSE", "none")
    wanted = [esndcg(facts.chain, facts.relevance) or 0.0 for facts in service_facts(episode)]
    assert batch.reward_parts["esndcg"][0, :6].tolist() == pytest.approx(wanted)
    assert batch.reward_parts["esndcg"][0, 6:].isnan().all()
    assert 0 < wanted[0] < 1 and wanted[1] < wanted[0]
    assert float(batch.extras["dialogue_parts"][0, 1]) == pytest.approx(sum(wanted) / 6)


def test_replies_are_rated_and_compared_with_references(free: Any) -> None:
    """A wrong item is an error of fact: accuracy 1 of 5, the three other dimensions 5, so (0 + 1 + 1 + 1) / 4."""

    def wrong(context: ServiceContext, key: int) -> str:
        said = scripted_responder(context, key)
        return "i recommend the lamp" if "recommend" in said else said

    batch, episode = told(free, "GREET ASK REC HANDOFF", "none")
    item = service_facts(episode)[2].world["item"]
    assert item != "lamp" and batch.reward_parts["gre"][0, :4].tolist() == [1.0] * 4
    references = [turn.info["reference"] for turn in episode.turns if "reference" in turn.info]
    assert references == [turn.text for turn in episode.turns_of("responder")]
    batch, episode = told(free, "GREET ASK REC HANDOFF", "none", wrong)
    assert batch.reward_parts["gre"][0, :4].tolist() == [1.0, 1.0, 0.75, 1.0]
    assert batch.reward_parts["gre"][0, 4:].isnan().all()
    assert float(batch.extras["dialogue_parts"][0, 2]) == pytest.approx(3.75 / 4)
    assert [turn.info["reference"] for turn in episode.turns if "reference" in turn.info] == references


def test_what_a_rater_is_told() -> None:
    class Heard(RuleRater):
        def __init__(self) -> None:
            self.replies: list[RatedReply] = []

        def rate(self, replies: Any) -> list[Any]:
            self.replies = list(replies)
            return [None] * len(replies)

    rater = Heard()
    batch = collected(gopo(), rater=rater)
    assert batch.reward_parts["gre"].isnan().all() and batch.extras["dialogue_parts"][:, 2].isnan().all()
    assert not gopo().advantages(batch).isnan().any(), "what nobody rated has no part in the reward"
    asked = [reply for reply in rater.replies if reply.skill == "recommend"]
    assert all(len(reply.facts) == 1 for reply in asked)
    first = rater.replies[0]
    assert first.history == (batch.episodes[0].turns[0].text,), "not the plan, which is no part of the talk"
    assert first.max_words and first.required


def test_dialogues_that_were_cut_off(free: Any) -> None:
    """A plan whose reply did not come is no exchange."""
    _, episode = told(free, "GREET ASK REC HANDOFF", "none")
    cut = Episode(index=0, task_id="0", group=0, seed=0, turns=episode.turns[:5], stop_reason="context_full")
    batch = Rollouts.from_episodes([cut], trained=["responder"], parties=PARTIES, min_exchanges=8)
    service_parts(batch, ServiceScoring())
    assert batch.reward_parts["engagement"][0].isnan().tolist() == [False, *[True] * 7]
    assert float(batch.extras["dialogue_parts"][0, 0]) == 0
    nothing = Episode(index=0, task_id="0", group=0, seed=0, turns=episode.turns[:2], stop_reason="context_full")
    batch.episodes = [nothing]
    service_parts(batch, ServiceScoring())
    assert batch.extras["dialogue_parts"][0].isnan().tolist() == [False, True, True]
    assert batch.reward_parts["engagement"].isnan().all() and not batch.reward_parts["tse"].any()


# -- batches -----------------------------------------------------------------------------------------------------------


def test_a_batch_has_a_row_for_each_dialogue_and_party(batch: Rollouts) -> None:
    assert batch.parties == PARTIES and len(batch) == 12 and batch.rewards.shape == (12, 12)
    assert batch.group_ids.tolist() == [0] * 6 + [1] * 6
    who = torch.where(batch.loss_mask, batch.party_ids, -1).amax(1).tolist()
    assert who == [0, 1] * 6
    assert len({episode.task_id for episode in batch.episodes if episode.group == 0}) == 1
    assert torch.equal(batch.rewards, batch.reward_parts["tse"])
    for name, part in batch.reward_parts.items():
        assert torch.equal(part[0::2].nan_to_num(-1), part[1::2].nan_to_num(-1)), name
    assert not batch.reward_parts["violations"].any(), "masks are hard"


@pytest.mark.parametrize("pay", ["tse_compliant", "engagement"])
def test_what_is_paid(pay: Any) -> None:
    found = collected(gopo(), pay=pay)
    assert torch.equal(found.rewards, found.reward_parts[pay].nan_to_num(0.0))


def test_options_reach_the_dialogue() -> None:
    plain = collected(gopo(), masks="none")
    assert bool(plain.reward_parts["violations"].any()) and not bool(plain.reward_parts["followed"].all())
    one = collected(gopo(), chain_length=1)
    planner = one.select(torch.arange(0, len(one), 2))
    assert planner.loss_mask.sum() == 2 * planner.turn_valid.sum(), "a label and the end of turn"
    short = collected(gopo(), max_turns=2)
    assert short.rewards.shape[1] == 2
    now = collected(gopo(), lookahead=False)
    first = [service_facts(episode)[0].chain for episode in now.episodes]
    assert all(sorted(chain) == ["greet", "handoff"] for chain in first)
    short_k = collected(gopo(), scoring=ServiceScoring(cutoff=1))
    assert not torch.equal(short_k.extras["dialogue_parts"], collected(gopo()).extras["dialogue_parts"])


def test_a_flat_policy_is_rated_without_its_labels() -> None:
    method = gopo("responder", planner=PartyTraining(steps=0))
    batch = collected(method, mode="flat")
    assert len(batch) == 6
    closing = [turn for episode in batch.episodes for turn in episode.turns_of("responder")]
    assert closing[0].info["reference"].startswith(f"{shop().labels[closing[0].info['skill']]} ")
    expert = attached(shop(mode="flat"), method)
    expert.others["responder"] = ScriptedParty(ScriptedFlat())
    world = expert.episode(expert.tasks, 0)
    assert method.policy is not None
    (episode,) = spoken_episodes(
        [Planned(environment=world, index=0, task_id="0", group=0)],
        {"customer": CUSTOMER, "responder": ScriptedParty(ScriptedFlat())},
        method.policy,
        expert.labels,
        trained=["responder"],
        seed=0,
    )
    rate_replies([episode], {0: world.dialogue}, RuleRater())
    turns = episode.turns_of("responder")
    assert all(turn.info["gre"] == 1 and turn.info["reference"] == turn.text for turn in turns)


def test_scripts_play_in_place_of_the_policy() -> None:
    expert = collected(gopo("responder", planner=PartyTraining(steps=0)), planner=ScriptedParty(ScriptedPlanner()))
    assert len(expert) == 6 and bool((expert.reward_parts["esndcg"].nan_to_num(1.0) > 0.99).all())
    right = collected(gopo("planner", responder=PartyTraining(steps=0)), responder=ScriptedParty(scripted_responder))
    assert len(right) == 6 and bool((right.reward_parts["gre"].nan_to_num(1.0) == 1).all())
    base = PolicyParty(settings=SamplingSettings(max_tokens=4), adapter=None)
    heard = collected(gopo(), customer=base)
    assert all(turn.completion_ids for episode in heard.episodes for turn in episode.turns_of("customer"))
    fixed = collected(gopo(), customer=lambda cue, key: cue.lines[-1])
    assert {episode.turns[0].text for episode in fixed.episodes} == {"hi can you help me"}


def test_conditions() -> None:
    data = attached(shop(num_validation_tasks=4, validation_group_size=2), gopo())
    sampled, greedy = (next(iter(data._evaluation_stream(condition))) for condition in ("service", "service_greedy"))
    assert (sampled.label, greedy.label) == ("service", "service_greedy") and len(sampled.episodes) == 8
    assert sampled.temperature == 1.0, "as in training"

    def skills(batch: Rollouts) -> list[list[str | None]]:
        return [[facts.skill for facts in service_facts(episode)] for episode in batch.episodes]

    found = skills(greedy)
    heard = [[turn.text for turn in episode.turns_of("customer")] for episode in greedy.episodes]
    for i in range(0, 8, 2):
        if heard[i] == heard[i + 1]:
            assert found[i] == found[i + 1], "greedy plans depend on what the customer says alone"
    assert skills(sampled) != found
    assert skills(next(iter(data._evaluation_stream("service")))) == skills(sampled)


def test_constraints_are_registered_once_and_beside_others() -> None:
    method = loaded(gopo())
    policy = method.policy
    assert policy is not None
    data = attached(shop(), method)
    data.constrain(policy)
    assert policy.constraints is not None
    offsets = dict(policy.constraints.offsets)
    assert "reply:close" in offsets and any(name.startswith("skills:") for name in offsets)
    data.constrain(policy)
    assert policy.constraints.offsets == offsets
    flat = shop(mode="flat")
    flat.constrain(policy)
    assert all(policy.constraints.offsets[name] == offset for name, offset in offsets.items())
    assert any(name.startswith("flat:") for name in policy.constraints.offsets)
    with pytest.raises(ValueError, match="is the name of another automaton already"):
        shop(chain_length=2).constrain(policy)


def test_segments_are_skills_kept_on_with() -> None:
    batch = collected(gopo(policy=policy_config(rows="turn")), masks="none")
    assert batch.extras["boundary"].dtype == torch.bool
    found = skill_segments(batch)["boundary"]
    for row, index in enumerate(batch.episode_ids.tolist()):
        episode = next(e for e in batch.episodes if e.index == index)
        skills, turn = [facts.skill for facts in service_facts(episode)], int(batch.turn_ids[row].amax())
        assert bool(found[row]) == (turn == 0 or skills[turn] != skills[turn - 1])
    assert not found.all(), "some skill was kept on with"


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pay": "orders"}, "data.pay is 'orders'; it must be one of"),
        ({"mode": "one_level"}, "mode is 'one_level'; it must be one of"),
        ({"masks": "soft"}, "masks is 'soft'; it must be one of"),
        ({"max_turns": 0}, "data.max_turns is 0; it must be at least 1"),
        ({"conditions": ("world",)}, "data.conditions has 'world'; known are"),
        ({"conditions": ()}, "data.conditions is empty; name some of"),
        ({"mode": "flat", "planner": ScriptedParty(ScriptedPlanner())}, "data.planner plans, but data.mode is 'flat'"),
        (
            {"planner": ScriptedParty(ScriptedPlanner()), "responder": ScriptedParty(scripted_responder)},
            "Nobody is left to the policy",
        ),
        ({"labels": {"greet": "A"}}, "SkillLabels has labels for"),
        ({"student": SamplingSettings(temperature=0.0)}, "cannot be scored again by the trainer"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        shop(**options)


def test_a_party_without_an_adapter() -> None:
    data = attached(shop(), gopo("planner", responder=PartyTraining(steps=0)))
    with pytest.raises(ValueError, match=r"policy.adapters names \['planner'\]; name 'responder' there, or say in"):
        data.setup("fit")
    attached(shop(), gopo()).setup("fit")
    assert shop(labels=None).labels["greet"] == "A"
