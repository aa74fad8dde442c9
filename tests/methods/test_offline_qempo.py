import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor

from lit_rl.datamodules.preferences import PreferenceDataModule
from lit_rl.environments.base import Message
from lit_rl.episodes import Rollouts
from lit_rl.methods.offline_qempo import OfflineQEMPO
from lit_rl.methods.pairs import pair_micro_batches, pair_rows
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.preferences import Preference, fill_target_reference, preference_rows
from lit_rl.tiny import TinyModel
from tests.methods.worlds import in_ranks, learn, learner, loaded, moved, policy_config, rollouts, trainer, weights


def pair(number: int, scores: tuple[float, float] | None = None) -> Preference:
    """Replies whose lengths differ."""
    chosen = f"ans {(number + 3) % 10}" + " please" * (number % 3)
    prompt = (Message("user", f"find {number % 10}"),)
    return Preference(id=str(number), prompt=prompt, chosen=chosen, rejected=f"ans {number % 10} or", scores=scores)


SCORED = [pair(n, (0.3 * n, 1.0)) for n in range(7)]
PLAIN = [pair(n) for n in range(7)]


def rows(policy: Policy, pairs: Any = PLAIN) -> Rollouts:
    return preference_rows(pairs, range(len(pairs)), policy, party="student", policy_version=0)


def offline(*parties: str, **options: Any) -> OfflineQEMPO:
    method = loaded(learner(*parties, method=OfflineQEMPO, **options))
    assert isinstance(method, OfflineQEMPO)
    return method


def policy_of(method: OfflineQEMPO) -> Policy:
    assert method.policy is not None
    return method.policy


# -- worked examples ---------------------------------------------------------------------------------------------------


def spread(sums: list[float], mask: Tensor) -> Tensor:
    """Token log-probs with these sums over the rows, and something else outside the mask."""
    tokens = torch.tensor(sums)[:, None] / mask.sum(1, keepdim=True)
    return torch.where(mask, tokens, -77.0)


GOLDEN = [
    ((0.2, 0.0), 0.437488, -0.070869, 0.04),
    ((0.2, 0.1), 0.493249, -0.077872, 0.1225),
    ((0.1, 0.1), 0.620957, -0.046257, 0.4225),
    ((0.1, 0.3), 0.770957, -0.053743, 0.9025),
]


@pytest.mark.parametrize(("coefficients", "pairwise", "gradient", "regression"), GOLDEN)
def test_losses_of_one_pair(
    coefficients: tuple[float, float], pairwise: float, gradient: float, regression: float
) -> None:
    """qempo.md 10.4: responses of log-probs -12 and -15, under the reference -13 and -14.5, qualities 0.8 apart."""
    entropy, reference = coefficients
    for loss, wanted in (("pairwise", pairwise), ("regression", regression)):
        method = offline("student", entropy=entropy, reference=reference, loss=loss)
        batch = rows(policy_of(method), [pair(1, (1.0, 0.2))])
        mask = method.learned_mask(batch)
        batch.ref_log_probs = spread([-13.0, -14.5], mask)
        log_probs = spread([-12.0, -15.0], mask).requires_grad_(True)
        found = (method.step_weights(batch)(batch) * method.token_loss(batch, log_probs)).sum()
        assert found.item() == pytest.approx(wanted, abs=1e-5)
        found.backward()
        assert log_probs.grad is not None and not log_probs.grad[~mask].any()
        if loss == "pairwise":
            assert log_probs.grad[0][mask[0]].tolist() == pytest.approx([gradient] * int(mask[0].sum()), abs=1e-5)
            assert log_probs.grad[1][mask[1]].tolist() == pytest.approx([-gradient] * int(mask[1].sum()), abs=1e-5)


def test_labels() -> None:
    """Margin 0.6 at (0.2, 0): with P = sigmoid(1 - 0.2), with a label smoothed by 0.1."""
    for options, label in (({}, 1 / (1 + math.exp(-0.8))), ({"label_smoothing": 0.1}, 0.9)):
        method = offline(entropy=0.2, loss="soft_label", **options)
        batch = rows(policy_of(method), [pair(1, (1.0, 0.2))])
        log_probs = spread([-12.0, -15.0], method.learned_mask(batch))
        wanted = label * math.log1p(math.exp(-0.6)) + (1 - label) * math.log1p(math.exp(0.6))
        assert float(method.token_loss(batch, log_probs).sum()) == pytest.approx(wanted, abs=1e-5)


def test_the_loss_is_the_mean_over_pairs_by_a_slow_loop() -> None:
    """With a = b it is DPO's; the chosen response's mean token loss is added with its weight."""
    method = offline("student", entropy=0.3, reference=0.3, nll_coef=0.5, micro_batch_tokens=60)
    policy = policy_of(method)
    for parameter in policy.parameter_groups()["student"]:
        parameter.data += 0.2
    batch = rows(policy)
    fill_target_reference(batch, policy, token_budget=10**6)
    assert batch.target_mask is not None and batch.ref_log_probs is not None
    with policy.acting_as("student"), torch.no_grad():
        log_probs, _ = policy.log_probs(batch.input_ids, batch.target_mask)
    total = 0.0
    for w in range(0, len(batch), 2):
        ratios = (log_probs - batch.ref_log_probs).sum(1)
        total -= math.log(1 / (1 + math.exp(-0.3 * float(ratios[w] - ratios[w + 1]))))
        total -= 0.5 * float(log_probs[w].sum() / batch.target_mask[w].sum())
    running = learn(method, [batch])
    assert float(running.callback_metrics["train/loss"]) == pytest.approx(total / 7, abs=1e-5)
    logged = {name for name in running.callback_metrics if name.startswith("train/")}
    figures = {"accuracy", "margin", "chosen_log_prob", "rejected_log_prob", "nll"}
    assert logged == {f"train/{name}" for name in ("loss", "entropy", "grad_norm", "learning_rate", *figures)}


# -- pairs stay together -----------------------------------------------------------------------------------------------


def test_micro_batches_hold_whole_pairs() -> None:
    batch = rows(policy_of(offline()))
    shuffled = batch.select(torch.randperm(len(batch), generator=torch.Generator().manual_seed(0)))
    parts = list(pair_micro_batches(shuffled, 60))
    assert len(parts) > 2 and all(part.input_ids.numel() <= 60 for part in parts)
    assert sorted(g for part in parts for g in part.group_ids.tolist()) == sorted(list(range(7)) * 2)
    for part in parts:
        chosen, rejected = pair_rows(part)
        assert torch.equal(part.group_ids[chosen], part.group_ids[rejected])
    assert [len(part) for part in pair_micro_batches(batch, 1)] == [2] * 7  # one pair at least
    with pytest.raises(ValueError, match="A pair of the batch is not complete"):
        pair_rows(batch.select(torch.tensor([0, 1, 2])))


def gradient(pairs: Any, rank: int | None = None, order: Tensor | None = None, **options: Any) -> Any:
    """What SGD without clipping moves the weights by, and what was logged."""
    sgd = {"optimizer": lambda groups: torch.optim.SGD(groups, lr=1.0), "max_grad_norm": None}
    method = offline(**sgd | {"loss": "soft_label", "nll_coef": 0.1} | options)
    batch, before = rows(policy_of(method), pairs), weights(method)
    if rank is not None:
        batch = batch.select(torch.arange(10, 14) if rank else torch.arange(10))
    if order is not None:
        batch = batch.select(order)
    running = learn(method, [batch], **({} if rank is None else {"strategy": "ddp", "devices": 2}))
    return moved(before, weights(method)), dict(running.callback_metrics)


def test_micro_batches_and_order_of_rows_change_nothing() -> None:
    wanted, metrics = gradient(SCORED)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(1))
    for found, same in (gradient(SCORED, micro_batch_tokens=60), gradient(SCORED, order=order)):
        assert float(same["train/loss"]) == pytest.approx(float(metrics["train/loss"]), abs=1e-6)
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2])
def test_ranks_with_unequal_numbers_of_pairs_learn_what_one_process_does(steps: int, tmp_path: Path) -> None:
    def check(rank: int) -> None:
        torch.save(gradient(SCORED, rank=rank, steps_per_batch=steps), tmp_path / f"rank{rank}.pt")

    in_ranks(check, tmp_path)
    (first, metrics), (second, same) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    alone, wanted = gradient(SCORED, steps_per_batch=steps)
    for name in alone:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], alone[name], atol=1e-6, rtol=1e-4)
    for name in ("train/loss", "train/accuracy", "train/margin", "train/nll"):
        assert metrics[name] == same[name]
        assert float(metrics[name]) == pytest.approx(float(wanted[name]), abs=1e-5)


SOFT = {"loss": "soft_label"}
OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"entropy": 0.3}),
    ({}, {"reference": 0.1}),
    ({}, {"lam": 5.0}),
    ({"lam": 5.0}, {"lam": 5.0, "mu": 0.5}),
    ({}, SOFT),
    ({}, {"loss": "regression"}),
    (SOFT, SOFT | {"label_smoothing": 0.2}),
    ({}, {"nll_coef": 0.1}),
    ({}, {"length_normalize": True}),
]


@pytest.mark.parametrize(("usual", "other"), OPTIONS, ids=lambda options: "-".join(options) or "default")
def test_every_option_has_an_effect(usual: dict[str, Any], other: dict[str, Any]) -> None:
    def loss(options: dict[str, Any]) -> float:
        method = offline("student", **options)
        batch = rows(policy_of(method), SCORED)
        batch.ref_log_probs = 0.7 * spread(torch.linspace(-9, -5, len(batch)).tolist(), method.learned_mask(batch))
        return float(learn(method, [batch]).callback_metrics["train/loss"])

    assert loss(usual) != pytest.approx(loss(other), abs=1e-6)


def test_options_of_token_losses_do_not_exist_here() -> None:
    parser = LightningArgumentParser()
    parser.add_class_arguments(OfflineQEMPO, "model", fail_untyped=False)
    options = set(parser.get_defaults()["model"].keys())
    assert {"entropy", "nll_coef", "steps_per_batch", "max_grad_norm"} <= options
    assert not options & {"aggregation", "norm_length", "kl_coef", "kl_estimator", "entropy_coef", "critique_coef"}


# -- validation --------------------------------------------------------------------------------------------------------


def test_validation_by_hand() -> None:
    """On all held-out pairs, in batches of unequal size, before anything is learned."""
    method = offline("student", entropy=0.3, reference=0.1, loss="soft_label", micro_batch_tokens=40)
    policy = policy_of(method)
    data = PreferenceDataModule(SCORED, num_validation=5, batch_size=2)
    (result,) = trainer(limit_val_batches=None).validate(method, datamodule=data, verbose=False)
    batch = rows(policy, SCORED[2:])
    assert batch.target_mask is not None
    with torch.no_grad():
        log_probs, _ = policy.log_probs(batch.input_ids, batch.target_mask)
    chosen, rejected = log_probs.sum(1).reshape(-1, 2).unbind(1)
    margins = 0.2 * (chosen - rejected)  # the adapter has learned nothing yet: policy and reference are one
    labels = torch.tensor([pair.scores[0] - pair.scores[1] for pair in SCORED[2:]]).sigmoid()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(margins, labels)
    wanted = {"loss": losses, "accuracy": (margins > 0).float().mean(), "margin": margins.mean()}
    wanted |= {"chosen_log_prob": chosen.mean(), "rejected_log_prob": rejected.mean()}
    wanted["nll"] = -chosen.sum() / batch.target_mask[::2].sum()
    for name, value in wanted.items():
        assert result[f"val/{name}"] == pytest.approx(float(value), abs=1e-5), name


def test_responses_that_were_sampled_are_evaluated_as_such() -> None:
    method = offline()
    method.validation_step(rollouts([1, None], label="answers"), 0)
    assert method._evaluation is not None
    assert method._evaluation.compute()["answers/accuracy_turn_1"] == 0.5


# -- learning ----------------------------------------------------------------------------------------------------------

TOY = TinyModel(words=["go"], numbers=2, hidden_size=32, layers=1, heads=2, max_length=16, initializer_range=0.3)
QUALITY = {"0 0": 1.0, "0 1": 0.8, "1 0": 0.0, "1 1": 0.9}


def toy_pairs() -> list[Preference]:
    """qempo.md 10.3: every pair of the four responses."""
    said, prompt = list(QUALITY), (Message("user", "go"),)
    pairs = [(a, b) for i, a in enumerate(said) for b in said[i + 1 :]]
    return [
        Preference(id=f"{a}, {b}", prompt=prompt, chosen=a, rejected=b, scores=(QUALITY[a], QUALITY[b]))
        for a, b in pairs
    ]


@torch.no_grad()
def toy_joint(policy: Policy, party: str | None) -> Tensor:
    """Probabilities of the four responses, of which the first is preferred in three pairs, given it is one of them."""
    batch = rows(policy, toy_pairs()[:3])
    with policy.acting_as(party):
        log_probs, _ = policy.log_probs(batch.input_ids, batch.target_mask)
    return log_probs.sum(1)[[0, 1, 3, 5]].softmax(0)


@pytest.mark.parametrize("loss", ["soft_label", "regression"])
@pytest.mark.parametrize("reference", [0.0, 0.1])
def test_losses_with_qualities_end_at_the_closed_form(loss: str, reference: float) -> None:
    """qempo.md 10.3 and 11.3, on a small transformer; with b = 0 it is the first line of the table of 10.3."""
    adapters = {"student": LoRA(rank=16, alpha=32.0)} if reference else None
    config = PolicyConfig(tiny=TOY, adapters=adapters)
    steps = 200
    decay = {"lr_scheduler": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, steps)}
    method = offline(policy=config, entropy=0.3, reference=reference, loss=loss, learning_rate=1e-2, **decay)
    policy = policy_of(method)
    batch, before = rows(policy, toy_pairs()), toy_joint(policy, "student")
    if reference:
        fill_target_reference(batch, policy, token_budget=10**6)
    learn(method, [batch] * steps)
    power = toy_joint(policy, None).pow(reference / 0.3) if reference else torch.ones(4)
    wanted = power * (torch.tensor(list(QUALITY.values())) / 0.3).exp()
    wanted = wanted / wanted.sum()
    if not reference:
        golden = torch.tensor([0.441380, 0.226612, 0.015746, 0.316262])
        torch.testing.assert_close(wanted, golden, atol=1e-5, rtol=0)
    distance = [float((joint - wanted).abs().sum() / 2) for joint in (before, toy_joint(policy, "student"))]
    assert distance[0] > 0.1 and distance[1] < 5e-3


def test_hard_labels_end_nowhere() -> None:
    """qempo.md 12: pairs that are always labelled alike push the margin without end."""
    method = offline(policy=PolicyConfig(tiny=TOY), entropy=0.3, learning_rate=1e-2)
    running = learn(method, [rows(policy_of(method), toy_pairs()[2:3])] * 150)
    assert float(running.callback_metrics["train/margin"]) > 3.0  # the qualities are 0.1 apart


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "dpo"}, "model.loss is 'dpo'; use one of"),
        ({"label_smoothing": 0.1}, "model.label_smoothing is 0.1 with loss 'pairwise'"),
        ({"loss": "soft_label", "label_smoothing": 0.5}, "model.label_smoothing is 0.5"),
        ({"nll_coef": -1.0}, "model.nll_coef is -1.0"),
        ({"entropy": 0.0}, "model.entropy is 0.0; it must be a number above 0"),
        ({"reference": 0.1}, "model.reference needs a reference policy"),
    ],
)
def test_wrong_options_are_refused_before_a_model_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OfflineQEMPO(policy_config(), **options)


def test_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="model.loss is 'regression', which needs to know what responses are worth"):
        trainer().fit(
            learner(method=OfflineQEMPO, loss="regression"), datamodule=PreferenceDataModule(PLAIN, batch_size=2)
        )
    with pytest.raises(ValueError, match="model.steps_per_batch is 3, but data.batch_size is 2"):
        trainer().fit(
            learner(method=OfflineQEMPO, steps_per_batch=3), datamodule=PreferenceDataModule(PLAIN, batch_size=2)
        )
    with pytest.raises(ValueError, match="OfflineQEMPO needs pairs of responses; use PreferenceDataModule"):
        learn(learner(method=OfflineQEMPO), [rollouts([1, None])])
    method = offline("student", reference=0.1)
    with pytest.raises(ValueError, match="model.reference is above 0 but the rollouts have no ref_log_probs"):
        learn(method, [rows(policy_of(method))])
    with pytest.raises(ValueError, match="model.loss is 'soft_label' but the pairs have no scores"):
        learn(offline(loss="soft_label"), [rows(policy_of(method))])
