"""REMUL, first stage (remul.md): the rewards and advantages of 11.1, the loss of 11.2, properties 7 to 13."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.callbacks.hint_usage import HintUsageReward
from lit_rl.callbacks.listener_execution import ListenerExecution
from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.listeners import ListenerPool, ScriptedListener
from lit_rl.methods.remul import REMUL
from lit_rl.policy import Policy
from lit_rl.weight_files import check_signed
from tests.methods.worlds import learn, learner, loaded, policy_config, trainer, weights

# remul.md 11.1: the speaker's answer, and those of three listeners after three beginnings each; B is right.
GOLDEN: list[tuple[str | None, list[str]]] = [
    ("B", ["BBB", "CBB", "ABB"]),
    ("B", ["ACB", "CCB", "BAA"]),
    ("C", ["CCC", "CCC", "ACC"]),
    ("A", ["BBB", "BCB", "?BA"]),
    (None, ["BBB", "BBB", "BBB"]),
]
MATCHES, CORRECT, BALANCED = [7.0, 3.0, 8.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0], [10.0, 6.0, 8.0, 1.0, 0.0]
MATCH_ADVANTAGES = [0.8979414013, -0.2244853503, 1.1785480892, -0.7856987261, -1.0663054140]


def batch(answers: list[tuple[str | None, list[str]]], group: int = 5, gold: str = "B", length: int = 2) -> Rollouts:
    """Replies with what `ListenerExecution` and the data module write beside them; every third is a token longer."""
    episodes = []
    for index, (answer, _) in enumerate(answers):
        said = [7 + (index + place) % 9 for place in range(length + (index % 3 == 2))]
        info = {"kind": "answer", "answer": answer, "correct": answer == gold, "gold": gold}
        turn = Turn(party="speaker", exchange=0, text="", prompt_ids=[3, 8, 5, 4], completion_ids=said, new_row=True,
                    log_probs=[-2.5 - 0.1 * place for place in range(len(said))], info=info)  # fmt: skip
        episodes.append(Episode(index=index, task_id="0", group=index // group, seed=0, turns=[turn], terminated=True))
    rollouts = Rollouts.from_episodes(episodes, trained=["speaker"], parties=["speaker"])
    same = torch.tensor([[[said == answer for said in one] for one in heard] for answer, heard in answers])
    rollouts.reward_parts["listener_match"] = same.flatten(1).sum(1, keepdim=True).float()
    rollouts.reward_parts["correct"] = torch.tensor([[float(answer == gold)] for answer, _ in answers])
    return rollouts


def speaker(**options: Any) -> REMUL:
    known: dict[str, Any] = {"method": REMUL, "kl_coef": 0.0, "entropy_coef": 0.0}
    method = learner(**known | options)
    assert isinstance(method, REMUL)
    method.num_listeners = 3
    return method


def advantages(method: REMUL, rollouts: Rollouts) -> list[float]:
    """Of each reply, the same on all its tokens and 0 elsewhere."""
    found = method.advantages(rollouts)
    assert found.dtype == torch.float32 and torch.equal(found != 0, rollouts.loss_mask & (found != 0))
    rows = [set(row[mask].tolist()) for row, mask in zip(found, rollouts.loss_mask, strict=True)]
    assert all(len(values) == 1 for values in rows)
    return [values.pop() for values in rows]


@pytest.mark.parametrize(
    ("options", "rewards", "wanted"),
    [
        ({}, MATCHES, MATCH_ADVANTAGES),
        ({"reward": "correctness"}, CORRECT, [1.095443, 1.095443, -0.730295, -0.730295, -0.730295]),
        ({"reward": "balanced"}, BALANCED, [1.1470784062, 0.2294156812, 0.6882470437, -0.9176627250, -1.1470784062]),
    ],
)
def test_rewards_and_advantages_11_1(options: dict[str, Any], rewards: list[float], wanted: list[float]) -> None:
    method, rollouts = speaker(**options), batch(GOLDEN)
    assert method.rewards(rollouts)[:, 0].tolist() == rewards
    assert advantages(method, rollouts) == pytest.approx(wanted, abs=2e-6)


def test_hint_usage_is_the_reward_5() -> None:
    """As it is written, but for an answer that cannot be read."""
    method, rollouts = speaker(reward="hint"), batch(GOLDEN)
    with pytest.raises(ValueError, match="no reward_parts.'hint'.*HintUsageReward writes it"):
        method.rewards(rollouts)
    rollouts.reward_parts["hint"] = torch.tensor([[1.0], [0.0], [1.0], [0.0], [1.0]])
    assert method.rewards(rollouts)[:, 0].tolist() == [1, 0, 1, 0, 0]
    wanted = [1.095443, -0.730295, 1.095443, -0.730295, -0.730295]
    assert advantages(method, rollouts) == pytest.approx(wanted, abs=2e-6)


def test_equal_rewards_give_zeros_11_1() -> None:
    same = [("B", ["BBB", "BAA", "AAA"])] * 5  # 4 matches each
    assert speaker().rewards(batch(same))[:, 0].tolist() == [4.0] * 5
    assert advantages(speaker(), batch(same)) == [0.0] * 5


replies = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", None]), st.lists(st.text("AB?", min_size=3, max_size=3), min_size=2, max_size=2)
    ),
    min_size=4,
    max_size=4,
)


@settings(deadline=None, max_examples=60)
@given(replies, st.randoms(use_true_random=False))
def test_match_rewards_7(answers: list[tuple[str | None, list[str]]], rng: Any) -> None:
    """In 0 .. m k, which full agreement alone reaches; no order of listeners or fractions and no gold label counts."""
    method, rewards = speaker(), speaker().rewards(batch(answers))[:, 0].tolist()
    for (answer, heard), reward in zip(answers, rewards, strict=True):
        assert 0 <= reward <= 6
        assert (reward == 6) == (answer is not None and "".join(heard) == answer * 6)
    order = rng.sample(range(3), 3)
    shuffled = [(answer, ["".join(one[k] for k in order) for one in reversed(heard)]) for answer, heard in answers]
    assert method.rewards(batch(shuffled))[:, 0].tolist() == rewards
    assert method.rewards(batch(answers, gold="A"))[:, 0].tolist() == rewards


@pytest.mark.parametrize("reward", ["match", "correctness", "balanced"])
def test_an_unreadable_answer_is_paid_nothing_8(reward: str) -> None:
    rollouts = batch([(None, ["BBB"]), ("B", ["BBB"])])
    for part in rollouts.reward_parts.values():
        part[0] = 9.0  # whoever wrote it
    assert speaker(reward=reward).rewards(rollouts)[0, 0] == 0


@settings(deadline=None, max_examples=40)
@given(replies, st.integers(1, 3))
def test_balance_9(answers: list[tuple[str | None, list[str]]], pool: int) -> None:
    """What correctness adds is 0 or the number of listeners, of a single one too; or what is asked for."""
    rollouts = batch([(answer, [heard[0]] * pool) for answer, heard in answers])
    right = [answer == "B" for answer, _ in answers]
    matches = speaker().rewards(rollouts)
    for options, worth in (({}, pool), ({"balance": 0.5}, 0.5)):
        method = speaker(reward="balanced", **options)
        method.num_listeners = pool
        added = method.rewards(rollouts) - matches
        assert added[:, 0].tolist() == [worth * one for one in right]


@settings(deadline=None, max_examples=40)
@given(st.floats(-50, 50), st.floats(0.5, 20))
def test_advantages_ignore_offset_and_scale_10(offset: float, scale: float) -> None:
    answers = [("B", ["BBB"]), ("B", ["BAA"]), ("B", ["AAA"]), ("B", ["BBA"])]
    wanted = advantages(speaker(), batch(answers))
    for change, tolerance in ((lambda x: x + offset, 1e-5), (lambda x: x * scale, 1e-4)):
        rollouts = batch(answers)
        rollouts.reward_parts["listener_match"] = change(rollouts.reward_parts["listener_match"])
        assert advantages(speaker(), rollouts) == pytest.approx(wanted, abs=tolerance)


def test_loss_11_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a whole optimizer step, and whatever stands on padding and in the prompt (property 12)."""
    given = {
        "log_probs": [-0.5, -1.0, -0.2],
        "old_log_probs": [-0.7, -0.9, -0.2],
        "ref_log_probs": [-0.6, -1.1, -0.1],
        "entropy": [0.9, 1.2, 0.4],
    }

    def placed(name: str, junk: float) -> torch.Tensor:
        row = torch.full((1, 9), junk)
        row[0, 4:7] = torch.tensor(given[name])
        return row

    method = loaded(speaker(policy=policy_config("speaker"), kl_coef=0.001, entropy_coef=0.001))
    ids = torch.tensor([[3, 8, 5, 4, 9, 10, 11, 0, 0]])
    mask = torch.tensor([[False] * 4 + [True] * 3 + [False] * 2])
    one = torch.ones(1, 1)
    rollouts = Rollouts(
        parties=["speaker"], episodes=batch(GOLDEN[:1]).episodes, input_ids=ids, loss_mask=mask, rewards=one,
        attention_mask=ids > 0, party_ids=torch.where(mask, 0, -1).to(torch.int8), turn_valid=one.bool(),
        turn_ids=torch.where(mask, 0, -1).to(torch.int16), old_log_probs=placed("old_log_probs", 0.0),
        ref_log_probs=placed("ref_log_probs", 7.0), group_ids=torch.zeros(1).long(), episode_ids=torch.zeros(1).long(),
        terminated=one[:, 0].bool(), truncated=~one[:, 0].bool(), reward_parts={"listener_match": one},
        advantages=torch.full((1, 9), 0.8979414013),
    )  # fmt: skip

    def log_probs(policy: Policy, input_ids: torch.Tensor, mask: torch.Tensor, **_: Any) -> tuple[Any, Any]:
        zero = 0.0 * sum(p.sum() for p in policy.parameters() if p.requires_grad)
        outside = ~mask[:, : input_ids.shape[1]]
        found = [placed(name, 0.0)[:, : input_ids.shape[1]] for name in ("log_probs", "entropy")]
        known, entropy = ((values + zero).masked_fill(outside, 0.0) for values in found)
        return known, entropy

    monkeypatch.setattr(Policy, "log_probs", log_probs)
    running = learn(method, [rollouts], callbacks=[Writer()])
    assert float(running.callback_metrics["train/loss"]) == pytest.approx(-0.9301490720, abs=1e-6)
    assert float(running.callback_metrics["train/clip_fraction"]) == pytest.approx(1 / 3)


def test_the_number_of_listeners_is_that_of_the_pool() -> None:
    """Known before a model is loaded, here as in a run without any data."""
    for mode, size in (("all", 2), ("random_one", 1)):
        listeners = [ScriptedListener(name, lambda *_: "</think> A") for name in ("one", "two")]
        method = speaker(reward="balanced")
        execution = ListenerExecution(ListenerPool(listeners=listeners, mode=mode))
        trainer(callbacks=[execution], max_epochs=0).fit(method, train_dataloaders=[])
        assert method.num_listeners == size


class Writer(L.Callback):
    """Says that it writes the part; the batches of these tests hold it already."""

    reward_parts = ("listener_match",)


def test_tokens_weigh_alike_12() -> None:
    """A mean over all tokens of the batch, not a mean of each reply's mean."""
    method, rollouts = speaker(), batch([("B", ["BBB"]), ("B", ["BBA"]), ("B", ["AAA"])], group=3)
    token_weights = method.step_weights(rollouts)(rollouts)
    assert rollouts.loss_mask.sum(1).tolist() == [2, 2, 3]
    torch.testing.assert_close(token_weights, rollouts.loss_mask / 7)


def test_padding_changes_nothing_12() -> None:
    outcomes = []
    for wider in (0, 3):
        method = loaded(speaker())
        rollouts = batch([("B", ["BBB"]), ("B", ["BAA"]), ("B", ["BBA"]), ("B", ["AAA"])], group=4)
        for name in ("input_ids", "attention_mask", "party_ids", "loss_mask", "turn_ids", "old_log_probs"):
            junk = {"input_ids": 9, "party_ids": -1, "turn_ids": -1, "old_log_probs": 3.0}.get(name, 0)
            padded = torch.nn.functional.pad(getattr(rollouts, name), (0, wider), value=junk)
            setattr(rollouts, name, padded)
        running = learn(method, [rollouts], callbacks=[Writer()])
        outcomes.append((running.callback_metrics["train/loss"], weights(method)))
    (loss, after), (same_loss, same_after) = outcomes
    torch.testing.assert_close(loss, same_loss)
    assert float(loss) != 0
    for name, tensor in after.items():
        torch.testing.assert_close(same_after[name], tensor, atol=1e-6, rtol=1e-5)


def test_no_advantage_no_gradient_13() -> None:
    """Equal rewards, and both coefficients 0."""
    method = loaded(speaker())
    before = weights(method)
    running = learn(method, [batch([("B", ["BBB"])] * 4, group=2)], callbacks=[Writer()])
    assert running.callback_metrics["train/grad_norm"] == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(method).items())


def test_figures_3_10() -> None:
    """Rewards as they are summed, and groups without a difference, beside the accuracy."""
    method = loaded(speaker())
    answers = [*GOLDEN, *[("B", ["BBB", "AAA", "AAA"])] * 4, ("B", ["AAA", "BBB", "AAA"])]
    logged = learn(method, [batch(answers)], callbacks=[Writer()]).callback_metrics
    assert float(logged["train/reward"]) == pytest.approx((19 + 5 * 3) / 10)
    assert float(logged["train/equal_reward_groups"]) == 0.5
    assert float(logged["train/accuracy_turn_1"]) == pytest.approx(0.7)


def test_an_export_says_who_made_it(tmp_path: Path) -> None:
    for parties in ((), ("speaker",)):
        method = loaded(speaker(policy=policy_config(*parties)))
        folder = tmp_path / str(len(parties))
        learn(method, [batch(GOLDEN)], callbacks=[Writer()])
        method.export(folder)
        check_signed(folder / "speaker" if parties else folder, method="REMUL")


def test_what_cannot_be_learned_from_is_said(tmp_path: Path) -> None:
    rollouts = batch(GOLDEN)
    del rollouts.reward_parts["listener_match"]
    with pytest.raises(ValueError, match="no reward_parts.'listener_match'.*ListenerExecution writes it"):
        speaker().advantages(rollouts)
    method = speaker()
    with pytest.raises(ValueError, match="no callback writes: add lit_rl.callbacks.ListenerExecution"):
        trainer().fit(method, train_dataloaders=[])
    with pytest.raises(
        ValueError, match="reward='hint' needs reward_parts.'hint'.*add lit_rl.callbacks.HintUsageReward"
    ):
        trainer(callbacks=[Writer()]).fit(speaker(reward="hint"), train_dataloaders=[])
    trainer(callbacks=[HintUsageReward()], max_epochs=0).fit(speaker(reward="hint"), train_dataloaders=[])
    with pytest.raises(ValueError, match="no callback says how many listeners there are; give a number"):
        trainer(callbacks=[Writer()]).fit(speaker(reward="balanced"), train_dataloaders=[])
    assert method.policy is None  # before a model is loaded
    with pytest.raises(ValueError, match="alone in its group.* at least 2 of each task"):
        speaker().advantages(batch(GOLDEN, group=1))
    with pytest.raises(ValueError, match="data.group_size is 1"):
        speaker().check_data(type("Data", (), {"group_size": 1})())
    for options, message in (
        ({"reward": "hints"}, "model.reward is 'hints'; use one of"),
        ({"balance": 1.0}, "goes with reward='balanced'"),
        ({"reward": "balanced", "balance": -1.0}, "at least 0"),
        ({"clip_high": -0.1}, "clip_high"),
        ({"kl_coef": 0.001}, "kl_coef needs a reference policy"),
    ):
        with pytest.raises(ValueError, match=message):
            speaker(**options)
