from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from lit_rl.datamodules import RolloutStream
from lit_rl.episodes import Rollouts
from lit_rl.methods import Method, NonFiniteLoss, SocialMetaLearning, StaleRollouts
from lit_rl.rollout import fill_reference
from tests.methods.worlds import (
    TINY,
    as_sampled,
    dialogue,
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


class Watch(L.Callback):
    """Of every batch trained on, how far its policy was behind, and the steps taken with it."""

    def __init__(self) -> None:
        self.lags: list[int] = []
        self.steps: list[int] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.lags.append(pl_module.policy_version - batch.policy_version)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        assert trainer.global_step == pl_module.policy_version
        self.steps.append(trainer.global_step)


# -- stale batches -----------------------------------------------------------------------------------------------------


class Unsized:
    """The same batches without a length: Lightning fetches the next one before the last was learned from."""

    def __init__(self, stream: RolloutStream):
        self.stream = stream

    def __iter__(self) -> Iterator[Rollouts]:
        return iter(self.stream)


@pytest.mark.parametrize("sized", [True, False])
def test_a_stale_batch_is_never_trained_on(sized: bool) -> None:
    method, data, watch = learner(), numbers(batches_per_epoch=4), Watch()
    if not sized:
        stream = data.train_dataloader()
        data.train_dataloader = lambda: Unsized(stream)
        with pytest.raises(StaleRollouts, match="version 0 reached version 1; .* sized loader .RolloutStream"):
            trainer(callbacks=[watch]).fit(method, datamodule=data)
        assert watch.steps == [1] and method.policy_version == 1  # the first batch was fresh
    else:
        trainer(callbacks=[watch]).fit(method, datamodule=data)
        assert watch.lags == [0, 0, 0, 0]


def test_lag_that_is_allowed() -> None:
    method, data, watch = learner(allowed_lag=1), numbers(batches_per_epoch=4), Watch()
    stream = data.train_dataloader()
    data.train_dataloader = lambda: Unsized(stream)
    trainer(callbacks=[watch]).fit(method, datamodule=data)
    assert watch.lags == [0, 1, 1, 1]


def test_a_batch_of_a_later_policy_is_refused() -> None:
    method = learner()
    with pytest.raises(StaleRollouts, match="version 3 reached version 0"):
        method.refuse_stale(rollouts(*GROUPS, policy_version=3))


# -- NaN ---------------------------------------------------------------------------------------------------------------


class Poison(L.Callback):
    """From its batch number ``at`` on, NaN in the advantages of one episode."""

    def __init__(self, at: int, episode: int):
        self.at, self.episode = at, episode
        self.good: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.at:
            self.good = weights(pl_module)
            batch.advantages = pl_module.advantages(batch)
            batch.advantages[batch.episode_ids == self.episode] = torch.nan


def test_a_step_with_nan_is_refused_and_the_last_good_weights_stay() -> None:
    method, poison = learner(), Poison(at=2, episode=5)
    batch = rollouts(*GROUPS)
    with pytest.raises(NonFiniteLoss, match=r"optimizer step 3 is NaN or infinite \(in episodes \[5\]\)"):
        learn(method, [batch] * 4, callbacks=[poison])
    assert method.policy is not None and method.policy_version == 2
    kept = weights(method)
    assert all(torch.equal(kept[name], poison.good[name]) for name in kept)
    assert all(parameter.grad is None for parameter in method.policy.parameters())


# -- counting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (2, 1), (1, 3), (2, 2)])
def test_optimizer_steps_of_a_batch(steps: int, epochs: int) -> None:
    method, watch = learner(steps_per_batch=steps, epochs_per_batch=epochs), Watch()
    running = learn(method, [rollouts(*GROUPS)] * 2, callbacks=[watch])
    assert watch.steps == [steps * epochs, 2 * steps * epochs]
    assert running.callback_metrics["step"] == watch.steps[-1]


def test_max_steps_ends_in_the_middle_of_a_batch() -> None:
    method, watch = learner(epochs_per_batch=3), Watch()
    learn(method, [rollouts(*GROUPS)] * 5, max_steps=7, max_epochs=-1, callbacks=[watch])
    assert watch.steps == [3, 6, 7]


def test_max_steps_of_a_run_that_begins_with_trained_weights() -> None:
    """They count the steps of this run, not those the weights have behind them."""
    method = learner(epochs_per_batch=3)
    method.policy_version = 100
    learn(method, [rollouts(*GROUPS)] * 5, max_steps=7, max_epochs=-1)
    assert method.policy_version == 107


def test_the_scheduler_steps_with_the_optimizer() -> None:
    halve = {"lr_scheduler": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)}
    method = learner(steps_per_batch=2, learning_rate=1.0, **halve)
    running = learn(method, [rollouts(*GROUPS)] * 2)
    assert running.optimizers[0].param_groups[0]["lr"] == 0.5**4
    assert running.callback_metrics["train/learning_rate"] == 0.5**2  # of the first step of the last batch


def test_a_scheduler_that_waits_for_a_metric_is_refused() -> None:
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    with pytest.raises(ValueError, match="model.lr_scheduler is ReduceLROnPlateau"):
        learn(learner(lr_scheduler=plateau), [rollouts(*GROUPS)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps_per_batch": 0}, "model.steps_per_batch is 0; it must be at least 1"),
        ({"epochs_per_batch": 0}, "model.epochs_per_batch is 0"),
        ({"micro_batch_tokens": 0}, "model.micro_batch_tokens is 0"),
        ({"allowed_lag": -1}, "model.allowed_lag is -1; it must be at least 0"),
        ({"max_grad_norm": 0.0}, "model.max_grad_norm is 0.0"),
        ({"kl_coef": 0.1}, "model.kl_coef needs a reference policy"),
        ({"norm_length": 3}, "model.norm_length goes with"),
        ({"aggregation": "seq_mean_token_sum_norm"}, "model.norm_length goes with"),
    ],
)
def test_wrong_options_are_refused_before_a_model_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learner(**options)


def test_more_steps_than_tasks_are_refused_before_a_model_is_loaded() -> None:
    method = learner(steps_per_batch=5)
    with pytest.raises(ValueError, match="model.steps_per_batch is 5, but data.tasks_per_batch is 4; every optimizer"):
        trainer().fit(method, datamodule=numbers())
    assert method.policy is None


# -- the reference policy ----------------------------------------------------------------------------------------------


def test_kl_to_the_reference_pulls_back() -> None:
    def distance(kl_coef: float) -> float:
        method = loaded(learner("student", kl_coef=kl_coef, learning_rate=3e-2, clip_low=1.0, clip_high=10.0))
        assert method.policy is not None
        batch = rollouts(*GROUPS)
        fill_reference(batch, method.policy, token_budget=10**6)
        assert batch.ref_log_probs is not None
        reference = batch.ref_log_probs.clone()
        learn(method, [batch] * 10)
        as_sampled(batch, method.policy)
        return float((batch.old_log_probs - reference).abs().sum())

    free, held = distance(0.0), distance(10.0)
    assert 0.0 < held < 0.5 * free


def test_a_reference_that_was_not_filled_is_missed() -> None:
    with pytest.raises(ValueError, match="model.kl_coef is set but the rollouts have no ref_log_probs"):
        learn(learner("student", kl_coef=0.1), [rollouts(*GROUPS)])


def test_at_the_reference_the_kl_term_changes_nothing() -> None:
    results = []
    for kl_coef in (0.0, 5.0):
        method = loaded(learner("student", kl_coef=kl_coef))
        batch = rollouts(*GROUPS)
        assert method.policy is not None
        fill_reference(batch, method.policy, token_budget=10**6)
        learn(method, [batch])
        results.append(weights(method))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


# -- parties -----------------------------------------------------------------------------------------------------------


class TwoParties(SocialMetaLearning):
    """Learns as student and as teacher, from dialogues in which each has rows."""

    trained_parties = ("student", "teacher")


def both_parties(teachers: int = 4) -> Rollouts:
    """Rows of the student, and of the teacher (other dialogues, with the names exchanged)."""
    mine = rollouts(*GROUPS)
    mine.party_ids = torch.where(mine.loss_mask, 0, -1).to(torch.int8)
    if not teachers:
        return mine
    theirs = Rollouts.from_episodes(
        [dialogue(100 + i, solved_at, group=7) for i, solved_at in enumerate([1, None, 2, 4][:teachers])],
        trained=["student"],
        parties=["student", "teacher"],
        min_exchanges=4,
    )
    theirs.party_ids = torch.where(theirs.loss_mask, 1, -1).to(torch.int8)
    return Rollouts.cat([mine, theirs])


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=1.0)


def gradient(batch: Rollouts, *parties: str, **options: Any) -> dict[str, Tensor]:
    method = loaded(learner(*parties, method=TwoParties, optimizer=sgd, **{"max_grad_norm": None} | options))
    before = weights(method)
    learn(method, [batch])
    return moved(before, weights(method))


def test_two_trained_parties_have_a_group_each_and_learn_from_their_own_rows() -> None:
    method = loaded(learner("student", "teacher", method=TwoParties))
    groups = method.configure_optimizers().param_groups
    assert [group["name"] for group in groups] == ["student", "teacher"]
    sums = {"aggregation": "seq_mean_token_sum_norm", "norm_length": 1}
    together = gradient(both_parties(), "student", "teacher", **sums)
    alone = gradient(both_parties(teachers=0), "student", "teacher", **sums)
    student = {name for name in together if ".student" in name}
    assert any(together[name].any() for name in student)
    assert any(together[name].any() for name in set(together) - student)
    for name in student:  # 12 rows or 8: what the teacher learns only changes the denominator
        torch.testing.assert_close(together[name] * 12, alone[name] * 8, atol=1e-5, rtol=1e-4)
    assert not any(alone[name].any() for name in set(alone) - student)


def test_micro_batches_do_not_mix_parties() -> None:
    whole, split = (gradient(both_parties(), "student", "teacher", micro_batch_tokens=n) for n in (10**6, 50))
    for name in whole:
        torch.testing.assert_close(split[name], whole[name], atol=1e-6, rtol=1e-4)


def test_each_party_clipped_by_its_own_norm() -> None:
    def norms(**options: Any) -> tuple[float, float]:
        change = gradient(both_parties(), "student", "teacher", max_grad_norm=1e-3, **options)
        student = [change[name].norm() for name in change if ".student" in name]
        teacher = [change[name].norm() for name in change if ".teacher" in name]
        return float(torch.stack(student).norm()), float(torch.stack(teacher).norm())

    assert norms(clip_each_party=True) == pytest.approx((1e-3, 1e-3), rel=1e-2)
    student, teacher = norms()
    assert student**2 + teacher**2 == pytest.approx(1e-6, rel=1e-2)


def test_tokens_of_a_party_without_adapter_are_refused() -> None:
    with pytest.raises(ValueError, match="The policy has no party 'teacher'; its adapters are \\['student'\\]"):
        gradient(both_parties(), "student")


@pytest.mark.parametrize("steps", [1, 3])
def test_a_rank_without_rows_of_a_party(steps: int, tmp_path: Path) -> None:
    """One rank has student rows alone, in 3 steps even no rows at all; both learn what one process learns."""

    def check(rank: int) -> None:
        batch = both_parties()
        rows = torch.arange(len(batch))
        method = loaded(learner("student", "teacher", method=TwoParties, optimizer=sgd, steps_per_batch=steps))
        before = weights(method)
        mine = batch.select(rows[4:] if rank else rows[:4])
        running = learn(method, [mine], strategy="ddp", devices=2)
        torch.save((moved(before, weights(method)), dict(running.callback_metrics)), tmp_path / f"rank{rank}.pt")

    in_ranks(check, tmp_path)
    (first, metrics), (second, same_metrics) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    alone = gradient(both_parties(), "student", "teacher", max_grad_norm=1.0, steps_per_batch=steps)
    for name in alone:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], alone[name], atol=1e-6, rtol=1e-4)
    for name in ("train/loss", "train/entropy", "train/grad_norm", "train/reward", "train/accuracy_turn_4"):
        assert metrics[name] == same_metrics[name]


# -- checkpoints -------------------------------------------------------------------------------------------------------


def saved(method: Method, path: Path, **options: Any) -> dict[str, Any]:
    running = learn(method, [rollouts(*GROUPS)], **options)
    running.save_checkpoint(path)
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def test_a_checkpoint_holds_what_is_trained_by_name(tmp_path: Path) -> None:
    method = learner("student", "critic", policy=policy_config("student", "critic", value_heads=["worth"]))
    checkpoint = saved(method, tmp_path / "it.ckpt")
    assert method.policy is not None
    names = set(checkpoint["state_dict"])
    assert names == {f"policy.{name}" for name in method.policy.trainable_names()}
    assert {name.split(".")[-2] for name in names if "lora_A" in name} == {"student", "critic"}
    assert any("value_heads" in name for name in names)
    assert checkpoint["policy_version"] == 1


@pytest.mark.parametrize("parties", [(), ("student",), ("student", "critic")], ids=["full", "one", "two"])
def test_loading_restores_all_that_is_trained(parties: tuple[str, ...], tmp_path: Path) -> None:
    """Without parties all weights are trained; this model's head is tied to its embedding."""
    method = learner(*parties)
    saved(method, tmp_path / "it.ckpt")
    again = SocialMetaLearning.load_from_checkpoint(tmp_path / "it.ckpt", policy=policy_config(*parties))
    assert again.policy_version == 1 and again.policy is not None and method.policy is not None
    ids = torch.arange(6, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(again.policy.lm(ids).logits, method.policy.lm(ids).logits, rtol=0, atol=0)
    for party in parties:
        assert all(torch.equal(weights(again)[n], weights(method)[n]) for n in weights(method) if f".{party}" in n)


def broken(checkpoint: dict[str, Any], what: str) -> dict[str, Any]:
    state = checkpoint["state_dict"]
    name = sorted(state)[0]
    if what == "missing":
        del state[name]
    elif what == "strange":
        state["policy.model.strange"] = torch.zeros(2)
    elif what == "shape":
        state[name] = torch.zeros(1, 1)
    else:
        del checkpoint["policy_version"]
    return checkpoint


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "The checkpoint lacks 1 trained weights, the first is 'policy.*; load it with the policy"),
        ("strange", "has 1 weights that are not trained here, the first is 'policy.model.strange'"),
        ("shape", r"has shape \(1, 1\) in the checkpoint and \(2, 32\) here"),
        ("version", "The checkpoint has no policy_version"),
    ],
)
def test_a_checkpoint_that_is_not_all_of_what_is_trained_is_refused(what: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "it.ckpt"
    torch.save(broken(saved(learner("student"), path), what), path)
    method = learner("student")
    with pytest.raises(ValueError, match=message):
        trainer().fit(method, datamodule=numbers(), ckpt_path=path, weights_only=True)
    with pytest.raises(ValueError, match=message):
        SocialMetaLearning.load_from_checkpoint(path, policy=policy_config("student"))


class WithOwnWeights(SocialMetaLearning):
    """A method may have weights beside the policy."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.scale = nn.Parameter(torch.ones(3))


def test_weights_of_a_method_beside_the_policy_are_kept(tmp_path: Path) -> None:
    method = learner(method=WithOwnWeights)
    method.scale.data.fill_(2.0)
    assert "scale" in saved(method, tmp_path / "it.ckpt")["state_dict"]
    again = WithOwnWeights.load_from_checkpoint(tmp_path / "it.ckpt", policy=policy_config())
    assert torch.equal(again.scale, torch.full((3,), 2.0))


class Save(L.Callback):
    """Writes a checkpoint after so many optimizer steps."""

    def __init__(self, path: Path, steps: int):
        self.path, self.steps = path, steps

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("parties", [(), ("student",)])
def test_two_batches_a_checkpoint_and_two_more_equal_four(parties: tuple[str, ...], tmp_path: Path) -> None:
    def build() -> tuple[Method, Any]:
        warmup = {"lr_scheduler": lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=7)}
        return learner(*parties, steps_per_batch=2, length_cost=0.1, **warmup), numbers(batches_per_epoch=4)

    whole, data = build()
    path = tmp_path / "two.ckpt"
    trainer(callbacks=[Save(path, 4)]).fit(whole, datamodule=data)
    resumed, data = build()
    trainer().fit(resumed, datamodule=data, ckpt_path=path, weights_only=True)
    assert resumed.policy_version == whole.policy_version == 8
    untrained, final = weights(loaded(learner(*parties))), weights(whole)
    assert not any(torch.equal(final[name], untrained[name]) for name in final if "bias" not in name)
    assert all(torch.equal(final[name], weights(resumed)[name]) for name in final)


# -- evaluation and logging --------------------------------------------------------------------------------------------


def test_validation_measures_every_condition() -> None:
    data = numbers(size=4, conditions=("teacher", "retry_greedy"), validation_group_size=3)
    running = trainer(limit_val_batches=None)
    running.validate(learner(), datamodule=data, verbose=False)
    for condition in ("teacher", "retry_greedy"):
        wanted = {"accuracy_turn_1", "accuracy_turn_2", "gain", "malformed_share"}
        assert {f"val/{condition}/{name}" for name in wanted} <= set(running.callback_metrics)


def test_predictions_are_dialogues() -> None:
    (batch,) = trainer().predict(learner(), datamodule=numbers(size=4, conditions=("teacher",))) or []
    assert len(batch) == 4 and batch[0]["condition"] == "teacher"
    assert [turn["party"] for turn in batch[0]["turns"]][:2] == ["student", "teacher"]


def test_the_progress_bar_shows_the_last_turn_whatever_its_number() -> None:
    method = learner()
    running = trainer(limit_val_batches=None)
    running.fit(method, datamodule=numbers())
    shown = {name for name in running.progress_bar_metrics if "accuracy" in name}
    assert shown == {"train/accuracy_turn_2", "val/teacher/accuracy_turn_2"}
    assert {"train/loss", "train/reward"} <= set(running.progress_bar_metrics)


def test_the_x_axis_is_optimizer_steps(tmp_path: Path) -> None:
    logged: list[tuple[int | None, dict[str, float]]] = []

    class Memory(L.pytorch.loggers.CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            logged.append((step, dict(metrics)))

    learn(
        learner(epochs_per_batch=3), [rollouts(*GROUPS)] * 3, logger=Memory(str(tmp_path)), log_every_n_steps=1
    )  # fmt: skip
    assert [step for step, metrics in logged if "train/loss" in metrics] == [3, 6, 9]


def test_rows_per_turn_learn_too() -> None:
    """Where templates render every prompt anew, a dialogue has one row a turn; statistics count it once."""
    tiny = policy_config(tiny=TINY, rows="turn")
    running = trainer(limit_val_batches=None)
    running.fit(learner(policy=tiny, return_mode="turn"), datamodule=numbers())
    assert running.callback_metrics["train/sampler_log_prob_difference"] < 1e-5
