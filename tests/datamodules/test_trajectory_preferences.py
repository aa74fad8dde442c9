"""Pairs of whole dialogues: which they are, what they hold, and who learns how much of them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import lit_rl.service
from lit_rl.datamodules.service_dialogues import AnnotatedDialogues, ScriptedDialogues
from lit_rl.datamodules.trajectory_preferences import TrajectoryPreferenceDataModule
from lit_rl.episodes import Rollouts
from lit_rl.objectives.joint_reward import FixedWeights
from lit_rl.parties import Party, ScriptedParty
from lit_rl.policy import Policy
from lit_rl.service import ServiceScenarios, played_dialogue, service_facts, write_annotated
from lit_rl.service.dialogue import Mode
from lit_rl.service.rated import rated
from tests.datamodules.shop import PARTIES, attach, form, shop_config

SHOP = ServiceScenarios(4)
TSE_ALONE = FixedWeights(1.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(shop_config(*PARTIES))


def preferences(policy: Policy, dialogues: Any = None, **options: Any) -> TrajectoryPreferenceDataModule:
    source = dialogues or ScriptedDialogues(SHOP, random_share=0.4, per_scenario=4)
    given = {"form": form(), "batch_size": 4, "seed": 0, **options}
    data: TrajectoryPreferenceDataModule = attach(TrajectoryPreferenceDataModule(source, **given), policy)
    return data


def first_batch(data: TrajectoryPreferenceDataModule) -> Rollouts:
    return next(iter(data.train_dataloader()))


def test_pairs_by_a_slow_loop(policy: Policy) -> None:
    """All pairs of one scenario whose returns are further apart than the gap, the better one first."""
    data = preferences(policy, weights=TSE_ALONE, min_gap=0.1)
    episodes = data.teller.episodes(range(16), policy)
    worth = [data.scoring.figures(rated(episode)).tse for episode in episodes]
    wanted = {
        (i, j)
        for i in range(16)
        for j in range(16)
        if i // 4 == j // 4 and worth[i] - worth[j] > 0.1
    }  # fmt: skip
    pairs = data.pairs(policy)
    assert len(wanted) > 4 and {(pair.chosen.index, pair.rejected.index) for pair in pairs} == wanted
    for pair in pairs:
        assert pair.returns == pytest.approx((worth[pair.chosen.index], worth[pair.rejected.index]))


def test_a_return_is_the_joint_reward(policy: Policy) -> None:
    data = preferences(policy)
    [pair, *_] = data.pairs(policy)
    found = data.scoring.figures(rated(pair.chosen))
    assert found.esndcg is not None and found.gre is not None
    assert pair.returns[0] == pytest.approx(0.5 * found.tse + 0.3 * found.esndcg + 0.2 * found.gre)


def test_rows_of_a_batch(policy: Policy) -> None:
    data = preferences(policy)
    batch = first_batch(data)
    assert len(batch) == 4 * 2 * 2 and batch.label == "preferences"  # pairs, dialogues, parties
    assert batch.target_mask is not None and not bool(batch.loss_mask.any())
    for group in range(4):
        rows = batch.group_ids == group
        chosen, worth = batch.extras["chosen"][rows], batch.extras["dialogue_return"][rows]
        assert int(rows.sum()) == 4 and int(chosen.sum()) == 2
        better, worse = worth[chosen], worth[~chosen]
        assert better[0] == better[1] and worse[0] == worse[1] and better[0] > worse[0] + 0.02
    assert len(set(batch.episode_ids.tolist())) == 8


def test_replies_weigh_what_they_are_worth(policy: Policy) -> None:
    """A responder that repeats itself is rated lower for it (gopo.md section 4.3); labels weigh 1."""

    class Stammering(ScriptedDialogues):
        def parties(self, mode: Mode) -> Mapping[str, Party]:
            def stammers(context: Any, key: int) -> str:
                text: str = context.references[context.skill]
                return "hello and hello and hello" if context.skill == "greet" else text

            return {**super().parties(mode), "responder": ScriptedParty(stammers)}

    batch = first_batch(preferences(policy, Stammering(SHOP, random_share=0.4, per_scenario=4)))
    assert batch.target_mask is not None and batch.target_weights is not None
    of_planner = (batch.party_ids == 0) & batch.target_mask
    assert bool((batch.target_weights[of_planner] == 1).all())
    assert not bool(batch.target_weights[~batch.target_mask].any())
    greeting = (batch.party_ids == 1) & batch.target_mask & (batch.turn_ids == 0)
    # Two of four word pairs are new: 3 points for fluency, 5 for accuracy, strategy and compliance: (3 + .5) / 4.
    greeted = {e.index for e in batch.episodes if service_facts(e)[0].skill == "greet"}
    rows = torch.tensor([index in greeted for index in batch.episode_ids.tolist()])
    assert batch.target_weights[greeting & rows[:, None]].tolist() == pytest.approx(
        [0.875] * int((greeting & rows[:, None]).sum())
    )
    later = (batch.party_ids == 1) & batch.target_mask & (batch.turn_ids > 0)
    assert float(batch.target_weights[later].mean()) > 0.99


def test_the_reference_is_the_base_under_the_same_masks(policy: Policy) -> None:
    data = preferences(policy)
    data.trainer.lightning_module.needs_reference = True
    for parameter in policy.parameter_groups()["planner"]:
        parameter.data += 0.1
    batch = first_batch(data)
    assert batch.ref_log_probs is not None and batch.target_mask is not None
    found = []
    for party in (None, "planner"):
        with torch.no_grad(), policy.acting_as(party):
            log_probs, _ = policy.log_probs(
                batch.input_ids, batch.target_mask, constraint_states=batch.constraint_states
            )
        found.append(log_probs)
    torch.testing.assert_close(batch.ref_log_probs, found[0])
    assert not torch.allclose(found[0], found[1])


def test_held_out_scenarios_are_not_learned_from(policy: Policy) -> None:
    data = preferences(policy, num_validation_scenarios=1)
    assert {pair.chosen.group for pair in data.pairs(policy)} == {0, 1, 2}
    [held_out] = data.val_dataloader()
    groups = {pair.chosen.group for pair in data.pairs(policy, held_out=True)}
    assert groups == {3} and sum(len(batch) for batch in held_out) == 4 * len(data.pairs(policy, held_out=True))
    assert not preferences(policy).val_dataloader()


def test_violations_cost_what_they_are_set_to(policy: Policy) -> None:
    """Without masks a planner may break rules; then the compliant dialogue is preferred."""

    class Hasty(ScriptedDialogues):
        def parties(self, mode: Mode) -> Mapping[str, Party]:
            expert: Any = super().parties(mode)["planner"]

            def plan(context: Any, key: int) -> str:
                hasty = "greet" in context.admissible and key % 2
                return "<ask> <recommend> <policy>" if hasty else expert.script(context, key)

            return {**super().parties(mode), "planner": ScriptedParty(plan)}

    source = Hasty(SHOP, per_scenario=6)
    found = {}
    for coef in (0.0, 1.0):
        data = preferences(policy, source, form=form(masks="none"), weights=TSE_ALONE, violation_coef=coef)
        found[coef] = data.pairs(policy)
    broken = {
        coef: sum(any(f.broken_rules for f in service_facts(pair.chosen)) for pair in pairs) / len(pairs)
        for coef, pairs in found.items()
    }
    assert broken[0.0] > broken[1.0]


def test_annotated_dialogues_are_compared_by_scenario_or_goal(policy: Policy, tmp_path: Path) -> None:
    shop = ServiceScenarios(24)  # every goal twice
    some = [index for index in range(24) if shop.goal(index) in (shop.goal(0), shop.goal(1), shop.goal(2))]
    told = attach(preferences(policy, ScriptedDialogues(shop, random_share=0.5)), policy).teller
    write_annotated(tmp_path / "shop.jsonl", [played_dialogue(e) for e in told.episodes(some, policy)])
    procedure = str(Path(lit_rl.service.__file__).with_name("toy_shop.yaml"))
    counts = {}
    for compare in ("scenario", "goal"):
        source = AnnotatedDialogues(str(tmp_path / "shop.jsonl"), procedure, compare=compare)
        counts[compare] = len(preferences(policy, source).pairs(policy))
    assert counts["scenario"] == 0 < counts["goal"] <= 3
    alone = AnnotatedDialogues(str(tmp_path / "shop.jsonl"), procedure)
    with pytest.raises(ValueError, match="make 0 pairs, which is less than one batch of 4"):
        preferences(policy, alone).train_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"form": form(mode="flat")},
            "data.form.mode is 'flat'; preferences are about plans, so it must be 'two_level'",
        ),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"min_gap": -1.0}, "data.min_gap is -1.0"),
        ({"violation_coef": math.inf}, "data.violation_coef inf"),
        ({"num_validation_scenarios": 4}, "data.num_validation_scenarios is 4 of 4 scenarios"),
    ],
)
def test_bad_options(policy: Policy, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preferences(policy, **options)
