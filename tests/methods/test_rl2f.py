"""RL2F: the critique term beside the policy's loss, its mask and its denominators."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_rl.callbacks import TeacherCritiquePrediction
from lit_rl.datamodules import Dialogue
from lit_rl.environments import HigherLower, NumberSearch, TeacherContext
from lit_rl.environments.base import Message
from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.methods import RL2F, Method, SocialMetaLearning
from lit_rl.methods.critique import CritiqueTerm, critiques_predicted
from lit_rl.policy import Policy
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from tests.methods.worlds import (
    WORDS,
    as_sampled,
    in_ranks,
    learn,
    learner,
    loaded,
    moved,
    numbers,
    policy_config,
    rollouts,
    trainer,
    weights,
)

GROUPS = ([1, 2, None, 4], [None, 1, 3, 3])


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=1.0)


def mark(batch: Rollouts, critique_filter: Any = "all") -> Rollouts:
    callback: Any = TeacherCritiquePrediction(critique_filter)
    callback.on_train_batch_start(None, None, batch, 0)
    return batch


def change(
    batch: Rollouts, parties: tuple[str, ...] = (), method: type[Method] = RL2F, **options: Any
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What one step of plain SGD moves the weights by, and what was logged."""
    learning = loaded(learner(*parties, method=method, **{"optimizer": sgd, "max_grad_norm": None} | options))
    before = weights(learning)
    running = learn(learning, [batch])
    return moved(before, weights(learning)), dict(running.callback_metrics)


def sampled(*groups: Any, off: float = 0.1, **options: Any) -> Rollouts:
    policy = loaded(learner()).policy
    assert policy is not None
    return as_sampled(rollouts(*groups, **options), policy, off=off)


# -- golden values -----------------------------------------------------------------------------------------------------


def three_targets(*rows: list[float]) -> tuple[Rollouts, Tensor]:
    """Rows with these log-probs at their targets, and the log-probs."""
    batch = rollouts([None] * len(rows), turns=2)
    batch.target_mask = torch.zeros_like(batch.loss_mask)
    log_probs = torch.full(batch.input_ids.shape, -9.0)
    for b, row in enumerate(rows):
        batch.target_mask[b, 3 : 3 + len(row)] = True
        log_probs[b, 3 : 3 + len(row)] = torch.tensor(row)
    return batch, log_probs


def test_critique_loss_by_hand() -> None:
    """rl2f.md 15.3: the token mean, not the mean of dialogue means (1.2142525142)."""
    first, second, third = (
        torch.tensor(logits).log_softmax(0)[target].item()
        for logits, target in (([2.0, 0, 0, 0], 0), ([0.0, 1, 0, 0], 2), ([0.0, 0, 0, 0], 1))
    )
    assert (-first, -second, -third) == pytest.approx((0.3407529539, 1.7436683806, 1.3862943611), abs=1e-6)
    batch, log_probs = three_targets([first, second], [third])
    assert float(CritiqueTerm(batch, 1.0).loss(batch, log_probs).sum()) == pytest.approx(1.1569052319, abs=1e-6)
    batch, log_probs = three_targets([first, second])
    assert float(CritiqueTerm(batch, 1.0).loss(batch, log_probs).sum()) == pytest.approx(1.0422106673, abs=1e-6)
    total = 0.5 + CritiqueTerm(batch, 0.1).loss(batch, log_probs).sum()
    assert float(total) == pytest.approx(0.6042210667, abs=1e-6)
    batch.target_weights = torch.zeros_like(log_probs)  # no selected message
    assert float(CritiqueTerm(batch, 0.1).loss(batch, log_probs).sum()) == 0.0


def test_turn_advantages_without_discount() -> None:
    """rl2f.md 15.5, with the defaults of `RL2F`: solved at turns 1, 2, never, 3."""
    batch = rollouts([1, 2, None, 3], turns=3)
    advantages = learner(method=RL2F).advantages(batch)
    by_turn = [
        [round(float(advantages[b][batch.loss_mask[b] & (batch.turn_ids[b] == t)][0]), 4) for t in range(turns)]
        for b, turns in enumerate([1, 2, 3, 3])
    ]
    wanted = [[0.57735], [0.57735, 0.707107], [-1.732051, -1.414214, -1.0], [0.57735, 0.707107, 1.0]]
    for found, values in zip(by_turn, wanted, strict=True):
        assert found == pytest.approx(values, abs=1e-3)


# -- gradients ---------------------------------------------------------------------------------------------------------


def test_without_weight_the_gradient_is_that_of_rl() -> None:
    """rl2f.md 16.1, to the bit; the targets are there."""
    turn = {"gamma": 1.0, "return_mode": "turn"}
    rl, _ = change(sampled(*GROUPS), method=SocialMetaLearning, **turn)
    same, metrics = change(mark(sampled(*GROUPS)), critique_coef=0.0)
    assert all(torch.equal(rl[name], same[name]) for name in rl) and any(rl[name].any() for name in rl)
    assert "train/critique_loss" not in metrics
    other, _ = change(mark(sampled(*GROUPS)))
    assert not all(torch.equal(rl[name], other[name]) for name in rl)


@pytest.mark.parametrize("parties", [(), ("student",)], ids=["all weights", "an adapter"])
def test_the_gradient_is_rl_plus_weighted_cross_entropy(parties: tuple[str, ...]) -> None:
    """The second term by transformers' own loss, on one forward with the first here."""
    batch = mark(sampled(*GROUPS))
    rl, logged = change(batch, parties, critique_coef=0.0)
    both, metrics = change(batch, parties, critique_coef=0.3)
    method = loaded(learner(*parties, method=RL2F))
    assert method.policy is not None and batch.target_mask is not None
    before = weights(method)
    labels = batch.input_ids.masked_fill(~batch.target_mask, -100)
    with method.policy.acting_as("student"):
        loss = method.policy.lm(input_ids=batch.input_ids, labels=labels).loss
        loss.backward()
    named = dict(method.policy.named_parameters())
    for name in before:
        gradient = named[name].grad
        assert gradient is not None
        wanted = rl[name] - 0.3 * gradient
        torch.testing.assert_close(both[name], wanted, atol=1e-5, rtol=1e-4)
    assert float(metrics["train/critique_loss"]) == pytest.approx(float(loss), abs=1e-5)
    assert float(metrics["train/loss"]) == pytest.approx(float(logged["train/loss"] + 0.3 * loss), abs=1e-5)
    for name in ("train/entropy", "train/approx_kl", "train/sampler_log_prob_difference", "train/clip_fraction"):
        assert float(metrics[name]) == pytest.approx(float(logged[name]), abs=1e-6)  # of what was sampled alone


@pytest.mark.parametrize("learned", ["both", "critiques", "policy"])
def test_gradient_reaches_what_predicts_its_targets_alone(learned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """rl2f.md 16.3."""
    coefs = {"critique_coef": 0.0 if learned == "policy" else 1.0, "policy_coef": float(learned != "critiques")}
    method = loaded(learner(method=RL2F, **coefs))
    assert method.policy is not None
    kept: list[Tensor] = []
    hidden = method.policy.hidden

    def keeping(ids: Tensor) -> Tensor:
        states = hidden(ids)
        states.retain_grad()
        kept.append(states)
        return states

    monkeypatch.setattr(method.policy, "hidden", keeping)
    batch = mark(sampled(GROUPS[0]))
    learn(method, [batch])
    assert batch.target_mask is not None and kept[0].grad is not None
    predicted = {"both": batch.target_mask | batch.loss_mask, "critiques": batch.target_mask, "policy": batch.loss_mask}
    before = torch.roll(predicted[learned], -1, 1)
    grad = torch.zeros_like(before)
    order = torch.sort(batch.attention_mask.sum(1), stable=True).indices  # one micro-batch, sorted by length
    grad[order] = kept[0].grad.abs().sum(-1) > 0
    assert not grad[~before].any() and grad[torch.roll(batch.target_mask, -1, 1)].any() == (learned != "policy")


def test_longer_feedback_leaves_the_policy_loss_alone() -> None:
    """rl2f.md 16.5: the messages say everything twice; log-probs are given, so contexts do not matter."""
    losses = []
    for times in (1, 2):
        batch = rollouts(*GROUPS)
        if times == 2:
            for episode in batch.episodes:
                episode.turns[:] = [twice(turn) for turn in episode.turns]
            batch = Rollouts.from_episodes(batch.episodes, trained=["student"], parties=["student", "teacher"])
        mark(batch)
        method = learner(method=RL2F)
        batch.advantages = method.advantages(batch)
        losses.append((method.step_weights(batch)(batch) * method.token_loss(batch, batch.old_log_probs)).sum())
        assert (
            batch.target_mask is not None and int(batch.target_mask.sum()) == times * 2 * 14
        )  # the words of 14 messages
    torch.testing.assert_close(*losses)


def twice(turn: Turn) -> Turn:
    if not turn.heard:
        return turn
    (span,) = turn.heard
    prompt = turn.prompt_ids[: span.stop] + turn.prompt_ids[span.start :]
    return replace(turn, prompt_ids=prompt, heard=(replace(span, stop=2 * span.stop - span.start),))


def test_no_selected_message_is_rl_alone() -> None:
    """rl2f.md 16.6."""
    rl, _ = change(sampled([1, None, None, 1]), critique_coef=0.0)
    same, metrics = change(mark(sampled([1, None, None, 1]), "solved"))
    for name in rl:
        torch.testing.assert_close(same[name], rl[name], atol=1e-7, rtol=1e-5)
    assert math.isfinite(float(metrics["train/loss"]))


def test_single_turn_has_no_critique() -> None:
    """rl2f.md 16.13."""
    batch = mark(sampled([1, None, 1, None], turns=1))
    (rl, _), (same, _) = change(batch, critique_coef=0.0), change(batch, critique_coef=1.0)
    for name in rl:
        torch.testing.assert_close(same[name], rl[name], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("parties", [(), ("student",)], ids=["all weights", "an adapter"])
def test_rows_with_one_kind_of_token_alone(parties: tuple[str, ...]) -> None:
    """A row nobody sampled is the student's; one without targets, or without anything, is none of the critic's."""
    batch = mark(sampled(*GROUPS))
    assert batch.target_mask is not None and batch.target_weights is not None
    batch.advantages = learner(method=RL2F).advantages(batch)
    batch.loss_mask[2], batch.target_mask[3], batch.target_weights[3] = False, False, 0.0
    batch.loss_mask[6], batch.target_mask[6], batch.target_weights[6] = False, False, 0.0
    whole, metrics = change(batch, parties)
    split, same = change(batch, parties, micro_batch_tokens=30)
    critic, _ = change(batch.select(torch.tensor([2])), parties, critique_coef=1.0)
    assert any(critic[name].any() for name in critic)
    for name in whole:
        torch.testing.assert_close(split[name], whole[name], atol=1e-6, rtol=1e-4)
    for name in ("train/loss", "train/critique_loss"):
        assert float(same[name]) == pytest.approx(float(metrics[name]), abs=1e-6)


@pytest.mark.parametrize("steps", [1, 2])
def test_two_ranks_equal_one(steps: int, tmp_path: Path) -> None:
    """One has 3 rows of the step's dialogues and few critiques, the other the rest."""

    def check(rank: int) -> None:
        rows = torch.arange(3, 8) if rank else torch.arange(3)
        found = change(part(rows), steps_per_batch=steps, strategy_options={"strategy": "ddp", "devices": 2})
        torch.save(found, tmp_path / f"rank{rank}.pt")

    def part(rows: Tensor) -> Rollouts:
        batch = mark(sampled([1, 2, 1], [None, 1, 4, None, 3]))
        batch.advantages = learner(method=RL2F).advantages(batch)
        return batch.select(rows)

    def change(batch: Rollouts, strategy_options: dict[str, Any], **options: Any) -> Any:
        method = loaded(learner(method=RL2F, optimizer=sgd, learning_rate=0.1, critique_coef=0.5, **options))
        before = weights(method)
        running = learn(method, [batch], **strategy_options)
        return moved(before, weights(method)), dict(running.callback_metrics)

    in_ranks(check, tmp_path)
    (first, metrics), (second, same_metrics) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    alone, wanted = change(part(torch.arange(8)), steps_per_batch=steps, strategy_options={})
    for name in alone:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], alone[name], atol=1e-5, rtol=1e-4)
    for name in ("train/loss", "train/critique_loss"):
        assert metrics[name] == same_metrics[name]
        assert float(metrics[name]) == pytest.approx(float(wanted[name]), abs=1e-5)


def test_a_small_weight_of_the_policy() -> None:
    """The second of two stages: critiques, and a little of the policy's loss."""
    batch = mark(sampled(*GROUPS))
    whole, _ = change(batch, critique_coef=0.0)
    tenth, _ = change(batch, critique_coef=0.0, policy_coef=0.1)
    for name in whole:
        torch.testing.assert_close(tenth[name], 0.1 * whole[name], atol=1e-6, rtol=1e-4)


# -- the teacher of NumberSearch ---------------------------------------------------------------------------------------


def optimal_play(policy: Policy) -> Rollouts:
    """The 15 dialogues of a student who bisects, as training rows."""
    source, episodes = NumberSearch(15), []
    for target in range(15):
        problem, low, high, turns = source[target], 0, 14, list[Turn]()
        heard = [Message("user", problem.prompt)]
        while True:
            middle = (low + high) // 2
            said = f"ans {middle}"
            new = policy.chat.continuation("student", heard, True) if turns else policy.chat.opening("student", heard)
            ids = [*policy.chat.reply_ids("student", said), policy.chat.end_id]
            turns.append(
                Turn(party="student", exchange=len(turns), text=said, prompt_ids=list(new.ids), completion_ids=ids,
                     log_probs=[-1.0] * len(ids), heard=new.heard, new_row=not turns,
                     reward=float(middle == target), info={"correct": middle == target})
            )  # fmt: skip
            if middle == target:
                break
            hint = HigherLower()(TeacherContext(problem, source.verify(problem, said), (), 0, said), 0)
            low, high = (middle + 1, high) if hint == "higher" else (low, middle - 1)
            heard = [Message("user", hint, "teacher", len(turns) - 1)]
        episodes.append(Episode(index=target, task_id=str(target), group=0, seed=0, turns=turns, terminated=True))
    return Rollouts.from_episodes(
        episodes, trained=["student"], parties=["student", "teacher"], pad_id=0, min_exchanges=4
    )


SMALL = TinyModel(words=[*WORDS, "correct"], numbers=4, hidden_size=16, layers=1, heads=2, max_length=64)


def number_policy() -> Any:
    words = ["find", "n", "in", "ans", "higher", "lower"]
    return policy_config(tiny=TinyModel(words=words, numbers=15, hidden_size=16, layers=1, heads=2, max_length=64))


def test_hints_cost_ln_2_whoever_predicts_them() -> None:
    """rl2f.md 16.12: no critic can know what the public text does not tell, and a trained one knows all it tells."""
    method = loaded(
        learner(method=RL2F, policy=number_policy(), policy_coef=0.0, critique_coef=1.0, learning_rate=0.02)
    )
    assert method.policy is not None
    batch = mark(optimal_play(method.policy))
    assert batch.target_mask is not None
    running = learn(method, [batch] * 150)
    hints = int((batch.target_mask & (batch.input_ids != method.policy.chat.end_id)).sum())
    tokens = int(batch.target_mask.sum())
    assert tokens == 2 * hints == 2 * 34  # a word and its end, which is sure
    nats = float(running.callback_metrics["train/critique_loss"]) * tokens / hints
    assert math.log(2) - 1e-3 < nats < math.log(2) + 0.03


@torch.no_grad()
def test_exact_critiques_are_what_greedy_decoding_says() -> None:
    method = loaded(learner(method=RL2F))
    policy = method.policy
    assert policy is not None
    batch = mark(rollouts(*GROUPS))
    assert batch.target_mask is not None and batch.target_weights is not None
    for b, spot in ((1, 0), (2, 2)):  # two messages that are just what the model would say
        for place in (batch.target_mask[b] & (batch.turn_ids[b] == spot)).nonzero().flatten().tolist():
            batch.input_ids[b, place] = policy.lm(input_ids=batch.input_ids[b : b + 1]).logits[0, place - 1].argmax()
    exact, messages = critiques_predicted(policy, batch)
    slow = 0
    for b in range(len(batch)):
        for exchange in range(4):
            where = (batch.target_mask[b] & (batch.turn_ids[b] == exchange)).nonzero().flatten()
            logits = policy.lm(input_ids=batch.input_ids[b : b + 1]).logits[0].argmax(-1)
            slow += len(where) > 0 and bool((logits[where - 1] == batch.input_ids[b, where]).all())
    assert (int(exact), int(messages)) == (slow, 14) and slow >= 2
    assert critiques_predicted(policy, batch, token_budget=1)[0] == exact
    batch.target_weights[1] = 0.0
    assert int(critiques_predicted(policy, batch)[1]) == 13


def test_trains_on_its_own_dialogues() -> None:
    """With its callback, on rollouts as a DataModule plays them."""
    method, data = learner(method=RL2F), numbers(student=SamplingSettings(max_tokens=3))
    running = trainer(callbacks=[TeacherCritiquePrediction()], limit_val_batches=None)
    running.fit(method, datamodule=data)
    assert 0 < float(running.callback_metrics["train/critique_loss"]) < 5
    assert running.callback_metrics["train/sampler_log_prob_difference"] < 1e-5


def test_validation_measures_self_correction_critiques_and_plasticity() -> None:
    """rl2f.md sections 7, 8 and 11, by condition."""
    conditions = ("teacher", "shuffled", "self_crit", "shuffled_crit", "false_criticism")
    data = numbers(
        size=3,
        conditions=conditions,
        validation_group_size=20,
        dialogue=Dialogue(max_turns=2, accept_message="correct"),
        evaluation=SamplingSettings(max_tokens=1),
    )
    method = learner(method=RL2F, policy=policy_config(tiny=SMALL, prefill={"student": "ans "}))
    running = trainer(limit_val_batches=None, callbacks=[TeacherCritiquePrediction()])
    running.validate(method, datamodule=data, verbose=False)
    found = {name.removeprefix("val/"): float(x) for name, x in running.callback_metrics.items()}
    for condition in ("self_crit", "shuffled_crit"):
        assert 0 < found[f"{condition}/acc_last_turn_1"] == pytest.approx(found[f"{condition}/accuracy_turn_1"])
        assert found[f"{condition}/acc_last_turn_2"] <= found[f"{condition}/accuracy_turn_2"]
    assert found["self_crit/acc_self"] <= found["self_crit/accuracy_turn_2"]
    assert 1 <= found["self_crit/attempts_used"] <= 2 and 0 <= found["self_crit/verdict_accuracy"] <= 1
    assert "shuffled_crit/acc_self" not in found and "teacher/acc_last_turn_1" not in found
    assert found["self_crit/accuracy_turn_1"] == pytest.approx(found["teacher/accuracy_turn_1"])  # the same noise
    contrast = found["teacher/correction_rate"] - found["shuffled/correction_rate"]
    assert found["teacher/feedback_contrast"] == pytest.approx(contrast)
    assert found["teacher/correction_rate"] == pytest.approx(found["teacher/correction_rate_turn_2"])
    assert found["teacher/tokens_ratio_turn_2"] == 1.0  # each attempt is one token
    assert 0 < found["false_criticism/over_compliance"] <= 1
    assert 1 < found["teacher/critique_nll"] < 5 and 0 <= found["teacher/critique_exact"] < 1
    assert not {"self_crit/critique_nll", "teacher/over_compliance"} & set(found)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_a_callback_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="critique_coef is set but .* add lit_rl.callbacks.TeacherCritiquePrediction"):
        learn(learner(method=RL2F), [rollouts(*GROUPS)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critique_coef": -0.1}, "model.critique_coef is -0.1; it must be at least 0"),
        ({"policy_coef": -1.0}, "model.policy_coef is -1.0 and model.critique_coef 0.1; they are weights"),
        ({"policy_coef": 0.0, "critique_coef": 0.0}, "of which one at least must be above 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learner(method=RL2F, **options)
