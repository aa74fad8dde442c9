from typing import Any

import pytest
import torch
from lightning.pytorch.cli import LightningArgumentParser

from lit_rl.datamodules import DemonstrationDataModule, RightAnswers
from lit_rl.demonstrations import Demonstration, demonstration_rows
from lit_rl.environments import NumberSearch
from lit_rl.environments.base import Message
from lit_rl.methods import SupervisedFineTuning
from lit_rl.policy import Policy
from tests.methods.worlds import learn, learner, loaded, rollouts, trainer, weights


def demonstrations(count: int = 6) -> list[Demonstration]:
    """Dialogues of one turn or two; the first answer is a function of the number asked for."""
    found = []
    for number in range(count):
        messages = [Message("user", f"find {number}"), Message("assistant", f"ans {(number + 3) % 10}")]
        if number % 2:
            messages += [Message("user", "higher"), Message("assistant", f"ans {number} please")]
        found.append(Demonstration(str(number), tuple(messages)))
    return found


def supervised(*parties: str, **options: Any) -> SupervisedFineTuning:
    method = loaded(learner(*parties, method=SupervisedFineTuning, **options))
    assert isinstance(method, SupervisedFineTuning)
    return method


def rows(policy: Policy, party: str = "student") -> Any:
    return demonstration_rows(demonstrations(), policy, party=party, policy_version=0)


def test_the_loss_is_cross_entropy_of_the_targets() -> None:
    method = supervised(micro_batch_tokens=40)
    assert method.policy is not None
    batch = rows(method.policy)
    labels = batch.input_ids.masked_fill(~batch.target_mask, -100)
    with torch.no_grad():
        wanted = method.policy.lm(input_ids=batch.input_ids, labels=labels).loss
    running = learn(method, [batch])
    assert float(running.callback_metrics["train/loss"]) == pytest.approx(float(wanted), abs=1e-5)
    # Nobody sampled these rows: there is no reward to report and no sampler to compare with.
    logged = {name for name in running.callback_metrics if name.startswith("train/")}
    assert logged == {"train/loss", "train/entropy", "train/grad_norm", "train/learning_rate"}


def test_targets_of_weight_zero_are_not_learned() -> None:
    outcomes = []
    for leave_out in (True, False):
        method = supervised()
        assert method.policy is not None
        batch = rows(method.policy)
        long = batch.turn_ids == 1
        if leave_out:
            batch.target_weights[long] = 0.0
        else:
            batch.target_mask &= ~long
        running = learn(method, [batch])
        outcomes.append((running.callback_metrics["train/loss"], weights(method)))
    (loss, after), (same_loss, same_after) = outcomes
    torch.testing.assert_close(loss, same_loss)
    for name in after:
        torch.testing.assert_close(after[name], same_after[name], atol=1e-5, rtol=1e-4)


def test_aggregation_is_by_token_unless_another_is_asked_for() -> None:
    parser = LightningArgumentParser()
    parser.add_class_arguments(SupervisedFineTuning, "model", fail_untyped=False)
    assert parser.get_defaults()["model"]["aggregation"] == "token_mean"  # what a config that says nothing gets
    losses = []
    for aggregation in ("token_mean", "seq_mean_token_mean"):
        method = supervised(aggregation=aggregation)
        assert method.policy is not None
        losses.append(float(learn(method, [rows(method.policy)]).callback_metrics["train/loss"]))
    assert losses[0] != losses[1]


@torch.no_grad()
def answers(policy: Policy) -> list[bool]:
    """Whether the likeliest token is right, at every target."""
    batch = rows(policy)
    guesses = policy.lm(input_ids=batch.input_ids).logits[:, :-1].argmax(-1)
    right: list[bool] = (guesses == batch.input_ids[:, 1:])[batch.target_mask[:, 1:]].tolist()
    return right


@pytest.mark.parametrize("parties", [(), ("planner",)], ids=["all weights", "an adapter"])
def test_learns_a_handful_of_demonstrations(parties: tuple[str, ...]) -> None:
    """The replies of any party, not only of a student."""
    method = supervised(*parties, learning_rate=3e-2)
    assert method.policy is not None
    learn(method, [rows(method.policy, party="planner")] * 150)
    with method.policy.acting_as(parties[0] if parties else "planner"):
        right = answers(method.policy)
    assert sum(right) >= len(right) * (0.6 if parties else 1.0)  # two low-rank updates hold less


def test_validation_loss_is_that_of_the_held_out_rows() -> None:
    data = DemonstrationDataModule(RightAnswers(NumberSearch(9)), num_validation=3, batch_size=2, batches_per_epoch=2)
    method = supervised(micro_batch_tokens=20)
    running = trainer(limit_val_batches=None)
    running.fit(method, datamodule=data)
    assert method.policy is not None
    held_out = [data.demonstrations[number] for number in (6, 7, 8)]
    batch = demonstration_rows(held_out, method.policy, party="student", policy_version=0)
    assert batch.target_mask is not None
    labels = batch.input_ids.masked_fill(~batch.target_mask, -100)
    with torch.no_grad():
        wanted = float(method.policy.lm(input_ids=batch.input_ids, labels=labels).loss)
    assert float(running.callback_metrics["val/loss"]) == pytest.approx(wanted, abs=1e-5)


def test_rollouts_without_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="needs rollouts with a target_mask; use DemonstrationDataModule"):
        learn(supervised(), [rollouts([1, None])])
