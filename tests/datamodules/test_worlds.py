"""Episodes in worlds as rows with what credit needs: extras, values, limits, failures, figures of a validation."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_rl.callbacks.hierarchical_credit import HierarchicalCredit
from lit_rl.datamodules.worlds import WorldDataModule
from lit_rl.environments.base import Message
from lit_rl.environments.world_prompts import WorldPrompts
from lit_rl.episodes import Rollouts
from lit_rl.methods.hiper import HiPER
from lit_rl.policy import Policy
from lit_rl.sampling import SamplingSettings
from lit_rl.verification.plan_execute import parse_plan_execute
from lit_rl.worlds.base import Observation, Step
from tests.methods.plan_worlds import SHORT, Errand, Errands, played, policy_config, rows, said, teach_form, with_extras
from tests.methods.worlds import trainer

HEADS = ("low", "high", "switch")


@pytest.fixture(scope="module")
def policy() -> Policy:
    """Knows the form of a reply and nothing else."""
    policy = Policy(policy_config(*HEADS))
    teach_form(policy, steps=60)
    return policy


@pytest.fixture
def batch_of(policy: Policy) -> Callable[..., Rollouts]:
    def batch_of(data: WorldDataModule, **module: Any) -> Rollouts:
        known = {"policy": policy, "policy_version": 0, "needs_reference": False, "micro_batch_tokens": 4096}
        holder = SimpleNamespace(**known | module)
        data.trainer = SimpleNamespace(lightning_module=holder, state=SimpleNamespace(fn="fit"))
        return next(iter(data.train_dataloader()))

    return batch_of


def data(worlds: Any = None, **options: Any) -> WorldDataModule:
    known: dict[str, Any] = {
        "prompts": SHORT, "num_validation_tasks": 4, "tasks_per_batch": 12, "seed": 0,
        "student": SamplingSettings(max_tokens=12),
    }  # fmt: skip
    return WorldDataModule(Errands(16, limit=5) if worlds is None else worlds, **known | options)


# -- rows --------------------------------------------------------------------------------------------------------------


def test_a_row_a_turn_with_what_credit_reads(batch_of: Callable[..., Rollouts], policy: Policy) -> None:
    batch = batch_of(data())
    turns = [turn for episode in batch.episodes for turn in episode.turns]
    assert len(batch) == len(turns) > 12 and len(set(batch.group_ids.tolist())) == 12
    for name, fact in (("boundary", "boundary"), ("valid", "valid"), ("rewritten", "keep_mismatch")):
        assert batch.extras[name].tolist() == [turn.info[fact] for turn in turns]
    assert batch.extras["kept"].tolist() == [not turn.info["switch"] for turn in turns]
    numbers = batch.turn_ids.amax(1)
    assert numbers.tolist() == [turn.exchange for turn in turns]
    assert batch.extras["boundary"][numbers == 0].all() and not batch.extras["boundary"].all()
    masks = torch.stack([batch.extras[f"{block}_mask"] for block in ("switch", "subgoal", "action")])
    assert (masks.sum(0) <= 1).all() and not (masks.any(0) & ~batch.loss_mask).any(), "property 11"
    ends = batch.input_ids == policy.chat.end_id
    assert torch.equal(batch.extras["action_mask"] & ends, batch.loss_mask & ends)
    for head in HEADS:
        values = policy.values(batch.input_ids, head).detach().gather(1, batch.extras[f"read_{head}"][:, None])
        read = batch.extras["subgoal_mask"].any(1) if head == "low" else slice(None)
        torch.testing.assert_close(batch.extras[f"value_{head}"][read], values[read, 0])
    HierarchicalCredit().annotate(batch)
    kept = ~batch.extras["boundary"]
    assert batch.advantages is not None and batch.advantages.isfinite().all()
    assert not batch.loss_mask[kept].logical_and(batch.extras["subgoal_mask"][kept]).any()


def test_equal_states_are_equal_observations(batch_of: Callable[..., Rollouts]) -> None:
    batch = batch_of(data())
    seen = [turn.info["observation"] for episode in batch.episodes for turn in episode.turns]
    states = batch.extras["state"].tolist()
    assert len(set(seen)) == len(set(states)) == len(set(zip(seen, states, strict=True))) > 1


def test_options_of_masks(policy: Policy) -> None:
    episode = [played(policy, [said(True), said(False)])]
    whole, bare = with_extras(policy, episode), with_extras(policy, episode, train_eos=False, include_tags=False)
    assert [int(whole.extras[f"{block}_mask"][0].sum()) for block in ("switch", "subgoal", "action")] == [3, 3, 4]
    assert [int(bare.extras[f"{block}_mask"][0].sum()) for block in ("switch", "subgoal", "action")] == [1, 1, 1]
    assert torch.equal(whole.extras["read_low"], bare.extras["read_low"])


def test_malformed_turns(policy: Policy) -> None:
    """hiper.md 2.5: they decide nothing, keep the subgoal, and are trained as what is left of them says."""
    batch = rows(
        policy, [said(True), "<switch> KEEP </switch> take", "<switch> SWITCH </switch> <action> take </action>"]
    )
    assert batch.extras["valid"].tolist() == [True, False, False]
    assert batch.extras["boundary"].tolist() == [True, False, False]
    assert batch.extras["kept"].tolist() == [False, True, False]
    assert [turn.info["subgoal"] for turn in batch.episodes[0].turns] == ["fetch"] * 3
    begin = batch.extras["read_switch"]
    assert (batch.extras["read_low"] - begin).tolist() == [6, 3, 3]
    assert batch.extras["subgoal_mask"].sum(1).tolist() == [3, 0, 0]
    assert batch.extras["action_mask"].sum(1).tolist() == [4, 2, 4]  # with the end of turn; "take" and it


def test_a_prefill_is_not_learned() -> None:
    policy = Policy(policy_config(*HEADS, prefill={"agent": "<switch> "}))
    episode = played(policy, [said(True)])
    (turn,) = episode.turns
    # What `said` begins with is inserted, not sampled.
    episode.turns[0] = replace(
        turn,
        text="<switch> " + policy.tokenizer.decode(turn.completion_ids[1:-1]),
        completion_ids=turn.completion_ids[1:],
        log_probs=turn.log_probs[1:],
    )
    batch = with_extras(policy, [episode])
    assert [int(batch.extras[f"{block}_mask"].sum()) for block in ("switch", "subgoal", "action")] == [2, 3, 4]
    assert int(batch.extras["read_low"] - batch.extras["read_switch"]) == 5


def test_without_a_plan(batch_of: Callable[..., Rollouts]) -> None:
    batch = batch_of(data(plan=False))
    assert set(batch.extras) == {"valid", "read_switch", "state", "value_switch"}
    assert all("subgoal" not in turn.info for episode in batch.episodes for turn in episode.turns)


# -- ends --------------------------------------------------------------------------------------------------------------


def test_episodes_of_one_turn(batch_of: Callable[..., Rollouts]) -> None:
    batch = batch_of(data(Errands(16, limit=1)))
    assert len(batch) == 12 and batch.extras["boundary"].all() and batch.truncated.all()
    HierarchicalCredit(penalties=None).annotate(batch)
    assert batch.advantages is not None and batch.advantages.isfinite().all()


def test_the_value_of_what_follows_a_limit(batch_of: Callable[..., Rollouts], policy: Policy) -> None:
    worlds = Errands(16, limit=3)
    batch = batch_of(data(worlds, max_turns=2), needs_next_values=True)
    last = batch.turn_ids.amax(1) == 1
    cut = last & batch.truncated
    assert {e.stop_reason for e in batch.episodes if e.truncated} == {"max_turns"} and 0 < cut.sum() < 12
    assert not batch.extras["value_next"][~cut].any()
    for row in cut.nonzero()[:, 0].tolist():
        episode = next(e for e in batch.episodes if e.index == batch.episode_ids[row])
        last, world = episode.turns[-1].info, Errand()
        for turn in episode.turns:
            world.step(turn.info["action"])
        prompt = f"task bring taken {len(episode.turns)} now {world.seen().text} subgoal {last['subgoal'] or None}"
        ids = torch.tensor([policy.chat.opening("agent", [Message("user", prompt)]).ids])
        torch.testing.assert_close(batch.extras["value_next"][row], policy.values(ids, "switch")[0, -1].detach())
    assert "value_next" not in batch_of(data(worlds, max_turns=2)).extras


def test_what_keeping_would_have_been_worth(batch_of: Callable[..., Rollouts], policy: Policy) -> None:
    """hiper.md 4.4, "gain": against every row written out anew, one at a time."""
    batch = batch_of(data(student=SamplingSettings(max_tokens=12, temperature=0.8)), needs_keep_reads=True)
    turns = [turn for episode in batch.episodes for turn in episode.turns]
    first = [turn.exchange == 0 for turn in turns]
    keep_values, switch_probs = batch.extras["value_keep"], batch.extras["switch_prob"]
    assert keep_values.isnan().tolist() == first == switch_probs.isnan().tolist()
    switched = 0
    for row, (before, turn) in enumerate(itertools.pairwise(turns), start=1):
        if first[row]:
            continue
        ids = list(turn.prompt_ids)
        spans = parse_plan_execute(turn.text).spans
        said = turn.text[: spans["switch"][0]] if "switch" in spans else ""

        def with_reply(text: str, said: str = said, ids: list[int] = ids) -> list[int]:
            reply: list[int] = policy.tokenizer(f"{said} {text}", add_special_tokens=False)["input_ids"]
            return ids + reply

        if turn.info["boundary"]:
            row_ids = torch.tensor(
                [with_reply(f"<switch> KEEP </switch> <subgoal> {before.info['subgoal']} </subgoal>")]
            )
            torch.testing.assert_close(keep_values[row], policy.values(row_ids, "low")[0, -1].detach())
            switched += 1
        else:
            assert keep_values[row] == batch.extras["value_low"][row]
        words = policy.tokenizer("SWITCH KEEP", add_special_tokens=False)["input_ids"]
        logits = policy.lm(torch.tensor([with_reply("<switch>")])).logits[0, -1, words] / 0.8
        torch.testing.assert_close(switch_probs[row], logits.softmax(0)[0].detach())
    assert 5 < switched < len(turns) - 12
    HierarchicalCredit(switch="gain").annotate(batch)
    assert batch.advantages is not None and bool(batch.advantages.isfinite().all())
    assert "value_keep" not in batch_of(data()).extras
    with pytest.raises(ValueError, match="set data.plan to true"):
        batch_of(data(plan=False), needs_keep_reads=True)


def test_the_baseline_of_a_reply_without_a_subgoal(batch_of: Callable[..., Rollouts], policy: Policy) -> None:
    batch = batch_of(data(student=SamplingSettings(max_tokens=12, temperature=3.0)))
    stated = batch.extras["subgoal_mask"].any(1)
    assert 0 < int(stated.sum()) < len(batch)
    low, switch = batch.extras["value_low"], batch.extras["value_switch"]
    assert torch.equal(low[~stated], switch[~stated]) and bool((low[stated] != switch[stated]).all())


def test_an_episode_that_the_context_cuts(batch_of: Callable[..., Rollouts]) -> None:
    small = Policy(policy_config(*HEADS, max_length=25))
    worlds = Errands(16, limit=5)
    history = WorldPrompts(style="short", history_length=2, list_actions=False)  # 10 tokens, then 14 at least
    batch = batch_of(data(worlds, prompts=history), policy=small, needs_next_values=True)
    assert len(batch) == 12 and {episode.stop_reason for episode in batch.episodes} == {"context_full"}
    assert batch.truncated.all() and not batch.terminated.any()
    assert batch.extras["value_next"].all()
    assert all(world.closed for world in worlds.given)


@pytest.mark.parametrize("what", ["step", "reset", "reward"])
def test_a_world_that_breaks(batch_of: Callable[..., Rollouts], what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its episode is dropped and counted, or the run stops."""
    worlds = Errands(16, broken=(1, 5), raise_at=1)
    if what == "reset":
        worlds = Errands(16)
        monkeypatch.setattr(Errands, "__getitem__", lambda self, i: Broken() if i in (1, 5) else Errand())
    if what == "reward":
        worlds = Errands(16)
        monkeypatch.setattr(Errands, "__getitem__", lambda self, i: Errand(reward=float("nan")) if i == 1 else Errand())
        monkeypatch.setattr(Errand, "step", lambda self, action: Step(Observation("x"), self.reward, True))
    with pytest.warns(UserWarning, match="of this batch were dropped; the first"):
        batch = batch_of(data(worlds, on_error="drop"))
    dropped = 1 if what == "reward" else 2
    assert batch.figures["train/dropped_episodes"] == dropped and len(batch.episodes) == 12 - dropped
    assert all(episode.task_id not in ("1", "5")[:dropped] for episode in batch.episodes)
    HierarchicalCredit().annotate(batch)
    with pytest.raises(RuntimeError, match="raised"):
        batch_of(data(worlds))
    assert all(world.closed for world in worlds.given)


class Broken(Errand):
    def reset(self) -> Observation:
        raise OSError("no such game")


class Sleeper(Errand):
    def step(self, action: str) -> Step:
        time.sleep(5)
        return super().step(action)


def test_a_world_that_hangs(batch_of: Callable[..., Rollouts], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Errands, "__getitem__", lambda self, i: Sleeper() if i == 3 else Errand())
    began = time.monotonic()
    with pytest.warns(UserWarning, match="took longer than 0.1 seconds"):
        batch = batch_of(data(on_error="drop", step_seconds=0.1))
    assert len(batch.episodes) == 11 and time.monotonic() - began < 5


# -- validation --------------------------------------------------------------------------------------------------------


def test_figures_of_a_validation() -> None:
    method = HiPER(policy_config(*HEADS), kl_coef=0.0)
    method.configure_model()
    assert method.policy is not None
    teach_form(method.policy, steps=60)
    running = trainer(limit_val_batches=1.0)
    sampled, greedy = running.validate(method, datamodule=data(max_rows=2), verbose=False)
    logged = {**sampled, **greedy}
    names = ["success", "success_errand", "turns", "return", "valid", "switches_per_episode", "keep_ratio"]
    for condition in ("world", "world_greedy"):
        for name in names:
            assert logged[f"val/{condition}/{name}"] >= 0
    assert logged["val/world/return"] == pytest.approx(10 * logged["val/world/success"])
    assert logged["val/world/turns"] <= 5 and not any("accuracy" in name for name in logged)


# -- bad options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"conditions": ["teacher"]}, "data.conditions has 'teacher'"),
        ({"conditions": []}, "data.conditions is empty"),
        ({"max_turns": 0}, "data.max_turns is 0"),
        ({"step_seconds": 0.0}, "data.step_seconds is 0.0"),
        ({"reset_seconds": -1.0}, "data.reset_seconds is -1.0"),
        ({"on_keep_mismatch": "erase"}, "on_keep_mismatch is 'erase'"),
        ({"plan": False, "train_eos": False}, "are about plans"),
        ({"num_validation_tasks": 16}, "none is left to train on"),
    ],
)
def test_bad_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        data(**options)


def test_a_party_nobody_trains_is_refused() -> None:
    with pytest.raises(ValueError, match="data.party is 'hero', but HiPER trains"):
        data(party="hero").check_use("fit", HiPER(policy_config(), kl_coef=0.0))


def test_validation_samples_at_the_published_temperature() -> None:
    assert data().evaluation == SamplingSettings(temperature=0.4, max_tokens=12)
    assert data().group_size == 1
