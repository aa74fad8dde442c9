"""Warm-up rows of planner and responder: of an expert, and of annotated dialogues told again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import lit_rl.service
from lit_rl.datamodules import passes
from lit_rl.datamodules.service_demonstrations import ServiceDemonstrationDataModule
from lit_rl.datamodules.service_dialogues import AnnotatedDialogues, ScriptedDialogues, ServiceForm
from lit_rl.episodes import Episode, Rollouts
from lit_rl.methods import SupervisedFineTuning
from lit_rl.policy import Policy
from lit_rl.service import (
    LABELS,
    AnnotatedDialogue,
    AnnotatedTurn,
    ServiceScenarios,
    played_dialogue,
    service_facts,
    write_annotated,
)
from lit_rl.service.retold import RetoldWorld
from lit_rl.service.toy_shop_plans import expert_plan
from lit_rl.service.toy_shop_words import ITEMS, REPLIES
from tests.datamodules.shop import PARTIES, attach, form, shop_config
from tests.methods.worlds import trainer

PROCEDURE = str(Path(lit_rl.service.__file__).with_name("toy_shop.yaml"))
SHOP = ServiceScenarios(24)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(shop_config(*PARTIES))


def demonstrations(dialogues: Any = None, **options: Any) -> ServiceDemonstrationDataModule:
    return ServiceDemonstrationDataModule(
        dialogues or ScriptedDialogues(SHOP), **{"form": form(), "batch_size": 6, "seed": 0} | options
    )


def first_batch(data: ServiceDemonstrationDataModule, policy: Policy) -> Rollouts:
    return next(iter(attach(data, policy).train_dataloader()))


def said(batch: Rollouts, policy: Policy, party: str) -> list[str]:
    """What a party's targets say, a text for each dialogue."""
    assert batch.target_mask is not None
    number = batch.parties.index(party)
    rows = [row for row in range(len(batch)) if bool((batch.party_ids[row][batch.target_mask[row]] == number).any())]
    return [policy.tokenizer.decode(batch.input_ids[row][batch.target_mask[row]]) for row in rows]


# -- an expert ---------------------------------------------------------------------------------------------------------


def test_both_parties_learn_what_the_expert_said(policy: Policy) -> None:
    batch = first_batch(demonstrations(), policy)
    assert batch.label == "demonstrations" and batch.parties == ("planner", "responder", "customer")
    planned, replied = (said(batch, policy, party) for party in PARTIES)
    assert len(planned) == len(replied) == 6 and len(batch) == 12
    for episode, plans, replies in zip(batch.episodes, planned, replied, strict=True):
        goal = SHOP.goal(episode.index)
        skills = expert_plan(SHOP[episode.index].state, goal)  # type: ignore[attr-defined]
        chains = [chain.split() for chain in plans.split("<end>")[:-1]]
        assert [chain[0] for chain in chains] == [LABELS[skill] for skill in skills]
        assert chains[0] == [LABELS[skill] for skill in skills[:3]]
        wanted = [REPLIES[skill].format(item=ITEMS[goal.need]) for skill in skills]
        assert [reply.split() for reply in replies.split("<end>")[:-1]] == [text.split() for text in wanted]


def test_nobody_sampled_these_tokens(policy: Policy) -> None:
    batch = first_batch(demonstrations(), policy)
    assert batch.target_mask is not None and batch.target_weights is not None
    assert not bool(batch.loss_mask.any()) and bool(batch.target_mask.any(1).all())
    assert torch.equal(batch.target_weights, batch.target_mask.float())


def test_a_plan_is_scored_from_one_row_of_logits_under_its_mask(policy: Policy) -> None:
    """Plackett and Luce, by hand (gopo.md section 3): at first only a greeting or a handover may stand first."""
    batch = first_batch(demonstrations(), policy)
    row, place = 0, int(batch.target_mask[0].int().argmax())
    labels = batch.input_ids[row, place : place + 3].tolist()
    with torch.no_grad(), policy.acting_as("planner"):
        found, _ = policy.log_probs(
            batch.input_ids,
            batch.target_mask,
            constraint_states=batch.constraint_states,
        )
        logits = policy.lm(input_ids=batch.input_ids[row : row + 1, :place]).logits[0, -1]
    ids = {skill: policy.tokenizer.convert_tokens_to_ids(label) for skill, label in LABELS.items()}
    first = [ids["greet"], ids["handoff"]]
    ahead = SHOP.procedure.ahead(0, 2)  # what an admissible beginning of two skills leads to
    later = [ids[skill] for skill, may in zip(SHOP.procedure.skills, ahead, strict=True) if may]
    wanted = [float(logits[labels[0]] - logits[first].logsumexp(0))]
    for number in (1, 2):
        left = [token for token in later if token not in labels[:number]]
        wanted.append(float(logits[labels[number]] - logits[left].logsumexp(0)))
    assert found[row, place : place + 4].tolist() == pytest.approx([*wanted, 0.0], abs=1e-5)


def test_random_plans_come_in_their_share() -> None:
    policy = Policy(shop_config(*PARTIES))
    best = {}
    for share in (0.0, 0.5, 1.0):
        dialogues = ScriptedDialogues(SHOP, random_share=share)
        data = demonstrations(dialogues, batch_size=24)
        turns = [facts for episode in first_batch(data, policy).episodes for facts in service_facts(episode)]
        best[share] = sum(facts.relevance[facts.skill or ""] == 3 for facts in turns if facts.skill in facts.relevance)
        best[share] /= len(turns)
        assert not any(facts.broken_rules for facts in turns)
    assert best[0.0] == 1.0 and 0.5 < best[0.5] < 0.9 and best[1.0] < 0.5


def test_dialogues_of_one_scenario_differ() -> None:
    dialogues = ScriptedDialogues(SHOP, random_share=0.5, per_scenario=3)
    assert len(dialogues) == 72 and [dialogues.scenario(index) for index in range(4)] == [0, 0, 0, 1]
    data = attach(demonstrations(dialogues), Policy(shop_config(*PARTIES)))
    told = data.teller.episodes(range(3), data.trainer.lightning_module.policy)
    assert len({tuple(turn.text for turn in episode.turns) for episode in told}) > 1
    assert len({str(episode.turns[0].info["scenario"]["goal"]) for episode in told}) == 1


def test_a_flat_policy_learns_label_and_reply(policy: Policy) -> None:
    batch = first_batch(demonstrations(form=form(mode="flat")), policy)
    assert batch.parties == ("responder", "customer") and len(batch) == 6
    for text in said(batch, policy, "responder"):
        first = text.split("<end>")[0].split()
        assert first == ["<greet>", *REPLIES["greet"].split()]


def test_masks_are_those_of_the_form(policy: Policy) -> None:
    """Without them a reply is free, and a plan any chain of labels."""
    for masks, names in (("hard", {"skills:start", "reply:greet"}), ("none", {"skills:any", None})):
        batch = first_batch(demonstrations(form=form(masks=masks)), policy)
        turns = [turn for turn in batch.episodes[0].turns if turn.party in PARTIES]
        assert {turn.constraint for turn in turns[:2]} == names


# -- batches -----------------------------------------------------------------------------------------------------------


def test_the_order_depends_on_the_seed_alone_and_holds_out_the_last(policy: Policy) -> None:
    data = attach(demonstrations(num_validation=6, batch_size=4), policy)
    assert data.batches_per_epoch == 4 and len(data.train_dataloader()) == 4
    seen = [[episode.index for episode in batch.episodes] for batch in data.train_dataloader()]
    again = attach(demonstrations(num_validation=6, batch_size=4), policy)
    assert seen == [[episode.index for episode in batch.episodes] for batch in again.train_dataloader()]
    assert {index for batch in seen for index in batch} <= set(range(18))
    [held_out] = data.val_dataloader()
    assert sorted(e.index for batch in held_out for e in batch.episodes) == list(range(18, 24))
    assert not demonstrations().val_dataloader()


def test_ranks_share_a_batch(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [episode.index for episode in first_batch(demonstrations(), policy).episodes]
    monkeypatch.setattr(passes, "world_size", lambda: 2)
    shares = []
    for number in (0, 1):
        monkeypatch.setattr(passes, "rank", lambda number=number: number)
        shares.append([episode.index for episode in first_batch(demonstrations(), policy).episodes])
    assert shares == [whole[::2], whole[1::2]]
    with pytest.raises(ValueError, match="data.batch_size is 1 for 2 processes"):
        demonstrations(batch_size=1).train_dataloader()


@pytest.mark.parametrize("parties", [(), PARTIES])
def test_a_policy_learns_from_them(parties: Sequence[str]) -> None:
    """With all weights shared, and with an adapter each; held-out dialogues are scored under their masks."""
    data = demonstrations(num_validation=6, batches_per_epoch=12)
    method = SupervisedFineTuning(shop_config(*parties), learning_rate=1e-2)
    running = trainer(limit_val_batches=1)
    running.validate(method, data, verbose=False)
    before = float(running.callback_metrics["val/loss"])
    running.fit(method, data)
    after = float(running.callback_metrics["val/loss"])
    assert after < 0.8 * before
    [held_out] = data.val_dataloader()
    batch = next(iter(held_out))
    total = count = 0.0
    assert method.policy is not None and batch.target_mask is not None
    for number, party in enumerate(PARTIES):
        mask = batch.target_mask & (batch.party_ids == number)
        with torch.no_grad(), method.policy.acting_as(party):
            log_probs, _ = method.policy.log_probs(batch.input_ids, mask, constraint_states=batch.constraint_states)
        total, count = total - float(log_probs.sum()), count + float(mask.sum())
    assert after == pytest.approx(total / count, abs=1e-4)


# -- annotated dialogues -----------------------------------------------------------------------------------------------


def told(policy: Policy, count: int = 8, share: float = 0.4) -> list[Episode]:
    data = attach(demonstrations(ScriptedDialogues(SHOP, random_share=share)), policy)
    found: list[Episode] = data.teller.episodes(range(count), policy)
    return found


def test_what_was_played_and_annotated_gives_the_same_rows(policy: Policy, tmp_path: Path) -> None:
    """Token for token, through a file: plans, replies, states of the procedure and constraints."""
    episodes = told(policy)
    write_annotated(tmp_path / "shop.jsonl", [played_dialogue(e, sop_id="toy_shop") for e in episodes])
    stored = AnnotatedDialogues(str(tmp_path / "shop.jsonl"), PROCEDURE)
    assert len(stored) == 8 and [stored.scenario(i) for i in range(8)] == list(range(8))
    again = attach(demonstrations(stored), policy).teller.episodes(range(8), policy)
    for one, other in zip(episodes, again, strict=True):
        for field in ("party", "text", "prompt_ids", "completion_ids", "constraint", "constraint_states"):
            assert [getattr(t, field) for t in one.turns] == [getattr(t, field) for t in other.turns], field
        facts = [[(f.skill, f.sop_state, f.engagement, f.milestones) for f in service_facts(e)] for e in (one, other)]
        assert facts[0] == facts[1]
        assert service_facts(one)[-1].success == service_facts(other)[-1].success


def annotated(*turns: tuple[str, str | None], **options: Any) -> AnnotatedDialogue:
    """Customer's word and skill by turn."""
    said = []
    for line, skill in turns:
        said.append(AnnotatedTurn(role="customer", text=line))
        text = REPLIES[skill].format(item="lamp") if skill in REPLIES else "hello"
        said.append(AnnotatedTurn(role="service", text=text, skill=skill))
    return AnnotatedDialogue(
        **{"dialogue_id": "7", "goal": {"item": "lamp"}, "turns": tuple(said), "ordered": True} | options
    )


SKILLS_ALONE = annotated(("hi", "greet"), ("good day", "ask_need"), ("it is for light", "recommend"))


def test_skills_alone_make_plans_by_hindsight(policy: Policy, tmp_path: Path) -> None:
    """A plan goes on with what was done next, and then with other skills; the outcome is the only milestone."""
    write_annotated(tmp_path / "shop.jsonl", [SKILLS_ALONE])
    stored = AnnotatedDialogues(str(tmp_path / "shop.jsonl"), PROCEDURE)
    [episode] = attach(demonstrations(stored, batch_size=1), policy).teller.episodes([0], policy)
    facts = service_facts(episode)
    assert [list(f.chain) for f in facts[:2]] == [
        ["greet", "ask_need", "recommend"],
        ["ask_need", "recommend", facts[1].chain[2]],
    ]
    assert [f.sop_state for f in facts] == ["start", "greet", "greet+ask_need"]
    assert [list(f.milestones) for f in facts] == [[], [], ["order"]] and facts[-1].success
    flat = attach(demonstrations(stored, batch_size=1, form=form(mode="flat")), Policy(shop_config("responder")))
    [episode] = flat.teller.episodes([0], flat.trainer.lightning_module.policy)
    assert [t.text for t in episode.turns_of("responder")][1] == "<ask> what do you need it for"


def test_an_effect_is_read_from_the_states_where_they_are_annotated() -> None:
    turns = list(SKILLS_ALONE.turns)
    for place, state in ((1, "start"), (3, "greet"), (5, "greet")):  # asking had none
        turns[place] = replace(turns[place], sop_state=state)
    world = RetoldWorld(replace(SKILLS_ALONE, turns=tuple(turns)), SHOP.procedure)
    assert [world.step(skill, "", True).effect for skill in ("greet", "ask_need", "recommend")] == [True, False, True]


def test_an_annotated_dialogue_that_breaks_a_rule_needs_a_form_without_masks(policy: Policy, tmp_path: Path) -> None:
    write_annotated(tmp_path / "shop.jsonl", [annotated(("hi", "greet"), ("good day", "recommend"))])
    stored = AnnotatedDialogues(str(tmp_path / "shop.jsonl"), PROCEDURE)
    with pytest.raises(ValueError, match="constraint 'skills:greet' forbids at '<recommend>'"):
        attach(demonstrations(stored, batch_size=1), policy).teller.episodes([0], policy)
    data = attach(demonstrations(stored, batch_size=1, form=form(masks="none")), policy)
    [episode] = data.teller.episodes([0], policy)
    assert [list(f.broken_rules) for f in service_facts(episode)] == [[], ["S2 need before recommendation"]]


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size 0"),
        ({"num_validation": 20}, "24, of which 20 are held out; that is less than one batch of 6"),
        ({"form": ServiceForm(labels={"greet": "A"})}, "SkillLabels has labels for"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        demonstrations(**options)


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="per_scenario is 0; it must be at least 1"):
        ScriptedDialogues(SHOP, per_scenario=0)
    with pytest.raises(ValueError, match="random_share is 2"):
        ScriptedDialogues(SHOP, random_share=2)
    with pytest.raises(ValueError, match="masks is 'soft'"):
        ServiceForm(masks="soft")
    for dialogue, message in (
        (annotated(("hi", None)), "turn 1 of the service: the skill None is not one of procedure 'toy_shop'"),
        (replace(SKILLS_ALONE, turns=SKILLS_ALONE.turns[1:]), "customer and service must take turns"),
        (
            replace(SKILLS_ALONE, turns=(SKILLS_ALONE.turns[0], replace(SKILLS_ALONE.turns[1], sop_state="x"))),
            "has no state 'x'",
        ),
    ):
        write_annotated(tmp_path / "bad.jsonl", [dialogue])
        with pytest.raises(ValueError, match=message):
            AnnotatedDialogues(str(tmp_path / "bad.jsonl"), PROCEDURE)


def test_a_dialogue_longer_than_the_context_is_named() -> None:
    short = Policy(shop_config(*PARTIES, max_length=40))
    with pytest.raises(ValueError, match=r"Dialogue 0: the planner's row has \d+ tokens; the policy's rows hold 40"):
        attach(demonstrations(), short).teller.episodes([0], short)
