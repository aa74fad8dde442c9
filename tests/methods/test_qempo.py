import itertools
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_rl.constraints import ConstraintTable, TokenConstraint
from lit_rl.datamodules import RolloutStream
from lit_rl.episodes import Rollouts
from lit_rl.methods.qempo import QEMPO
from lit_rl.objectives.max_entropy import optimum
from lit_rl.objectives.shaping import Shaping
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.rollout import fill_reference
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from tests.methods.worlds import as_sampled, learn, learner, loaded, policy_config, rollouts, trainer


def qempo(*parties: str, **options: Any) -> QEMPO:
    return QEMPO(policy_config(*parties), **{"norm_length": 4} | options)


def responses(rewards: list[float], *groups: int) -> Rollouts:
    """One response of two or three tokens for each reward; log-probs are what they are."""
    batch = rollouts(*([1] * size for size in groups or (len(rewards),)), turns=1)
    batch.rewards = torch.tensor(rewards)[:, None]
    batch.ref_log_probs = (0.5 * batch.old_log_probs - 0.3).masked_fill(~batch.loss_mask, 0.0)
    return batch


def with_sums(batch: Rollouts, sums: list[float], name: str) -> None:
    tokens = torch.tensor(sums)[:, None] / batch.loss_mask.sum(1, keepdim=True)
    setattr(batch, name, tokens.masked_fill(~batch.loss_mask, 0.0))


def by_row(batch: Rollouts, advantages: Tensor) -> list[float]:
    """The one advantage that all learned tokens of a row share; nothing else has any."""
    assert not advantages[~batch.loss_mask].any()
    rows = [advantages[b][batch.loss_mask[b]] for b in range(len(batch))]
    assert all((row == row[0]).all() for row in rows)
    return [float(row[0]) for row in rows]


# -- worked examples ---------------------------------------------------------------------------------------------------

GROUP = [
    ((0.05, 0.0), [0.583333, -0.616667, 0.85, -0.816667]),
    ((0.05, 0.02), [0.6, -0.64, 0.813333, -0.773333]),
    ((0.05, 0.05), [0.625, -0.675, 0.758333, -0.708333]),
]


@pytest.mark.parametrize(("coefficients", "wanted"), GROUP)
@pytest.mark.parametrize("given", ["options", "callback"])
def test_shaping_of_a_group(coefficients: tuple[float, float], wanted: list[float], given: str) -> None:
    """qempo.md 10.4; a coefficient that a callback wrote keeps b / a."""
    entropy, reference = coefficients
    batch = responses([1.0, 0.0, 1.0, 0.0])
    with_sums(batch, [-10.0, -12.0, -14.0, -9.0], "old_log_probs")
    with_sums(batch, [-11.0, -12.5, -13.0, -10.0], "ref_log_probs")
    scale = 1.0
    if given == "callback":
        scale, batch.extras["entropy_coefficient"] = 3.0, torch.full((4,), entropy)
    method = qempo("student", entropy=scale * entropy, reference=scale * reference)
    assert by_row(batch, method.advantages(batch)) == pytest.approx(wanted, abs=1e-5)


def test_groups_keep_to_themselves_and_are_not_divided_by_their_deviation() -> None:
    batch = responses([1.0, 0.0, 1.0, 0.0, 1.0, 5.0, 3.0], 4, 3)
    with_sums(batch, [-10.0, -12.0, -14.0, -9.0, -5.0, -5.0, -5.0], "old_log_probs")
    found = by_row(batch, qempo(entropy=0.05).advantages(batch))
    assert found == pytest.approx([*GROUP[0][1], -3.0, 3.0, 0.0], abs=1e-5)


def test_loss_has_one_length_for_all() -> None:
    """At ratio 1 the gradient's weight is A / (rows * norm_length), whatever the length of a response is."""
    method = loaded(learner(method=QEMPO, entropy=0.3, norm_length=5))
    assert method.policy is not None
    batch = as_sampled(responses([1.0, 0.0, 0.5, 0.2]), method.policy)
    advantages = by_row(batch, method.advantages(batch))
    lengths = batch.loss_mask.sum(1).tolist()
    assert len(set(lengths)) == 2
    wanted = -sum(a * length for a, length in zip(advantages, lengths, strict=True)) / (4 * 5)
    running = learn(method, [batch])
    metrics = {name: float(value) for name, value in running.callback_metrics.items()}
    assert metrics["train/loss"] == pytest.approx(wanted, abs=1e-5)
    assert metrics["train/sequence_entropy"] == pytest.approx(-float(batch.old_log_probs.sum()) / 4, abs=1e-4)
    assert batch.ref_log_probs is not None
    divergence = float((batch.old_log_probs - batch.ref_log_probs).sum()) / 4
    assert metrics["train/sequence_kl"] == pytest.approx(divergence, abs=1e-4)
    assert metrics["train/cut_off"] == 1.0 and metrics["train/clip_fraction"] == 0.0  # none ends with <end>
    batch.input_ids[0, batch.attention_mask[0].sum() - 1] = method.policy.chat.end_id
    assert float(learn(method, [batch]).callback_metrics["train/cut_off"]) == 0.75


def test_reward_to_go_by_a_slow_loop() -> None:
    """The others' part still to come is the baseline, which past their end is their reward."""
    batch = responses([1.0, 0.0, 0.7, 0.4, 0.9], 3, 2)
    method = qempo("student", entropy=0.3, reference=0.1, credit="reward_to_go")
    found = method.advantages(batch)
    assert batch.ref_log_probs is not None and not found[~batch.loss_mask].any()
    term = 0.1 * batch.ref_log_probs - 0.3 * batch.old_log_probs
    starts = batch.loss_mask.int().argmax(1).tolist()
    assert len(set(starts)) == 1

    def to_go(row: int, token: int) -> float:
        return float(batch.rewards[row, 0]) + float(term[row, token:].sum())

    for group in (range(3), range(3, 5)):
        for row in group:
            for token in batch.loss_mask[row].nonzero().flatten().tolist():
                others = [to_go(other, token) for other in group if other != row]
                wanted = to_go(row, token) - sum(others) / len(others)
                assert float(found[row, token]) == pytest.approx(wanted, abs=1e-5)
    # The first token's is the whole shaped reward.
    first = found[:, starts[0]].tolist()
    assert first == pytest.approx(
        by_row(batch, qempo("student", entropy=0.3, reference=0.1).advantages(batch)), abs=1e-5
    )


@pytest.mark.parametrize("credit", ["sequence", "reward_to_go"])
def test_length_normalize_takes_means(credit: Any) -> None:
    options = {"entropy": 0.3, "reference": 0.1, "credit": credit}
    batch = responses([1.0, 0.0, 0.7])
    normal = qempo("student", length_normalize=True, **options).advantages(batch)
    lengths = batch.loss_mask.sum(1, keepdim=True)
    assert batch.ref_log_probs is not None
    batch.old_log_probs, batch.ref_log_probs = batch.old_log_probs / lengths, batch.ref_log_probs / lengths
    torch.testing.assert_close(normal, qempo("student", **options).advantages(batch))


OPTIONS: list[dict[str, Any]] = [
    {"entropy": 0.2},
    {"reference": 0.1},
    {"credit": "reward_to_go"},
    {"length_normalize": True},
    {"clip_low": 0.01},
    {"clip_high": 0.01},
    {"norm_length": 8},
    {"aggregation": "token_mean", "norm_length": None},
]


@pytest.mark.parametrize("changed", OPTIONS, ids=lambda options: "-".join(options))
def test_every_option_has_an_effect(changed: dict[str, Any]) -> None:
    def loss(options: dict[str, Any]) -> float:
        method = loaded(learner("student", method=QEMPO, **{"entropy": 0.3, "norm_length": 4} | options))
        assert method.policy is not None
        batch = as_sampled(responses([1.0, 0.0, 0.5, 0.2, 0.7] * 4, 10, 10), method.policy, off=0.4)
        batch.advantages = method.advantages(batch)
        log_probs, _ = method.policy.log_probs(batch.input_ids, batch.loss_mask)
        return float((method.step_weights(batch)(batch) * method.token_loss(batch, log_probs)).sum().detach())

    assert loss({}) != pytest.approx(loss(changed), abs=1e-6)


# -- options -----------------------------------------------------------------------------------------------------------


def test_variants() -> None:
    assert qempo().shaping == Shaping(0.01) and qempo(lam=4.0).shaping == Shaping.qempo(4.0)
    assert qempo("student", lam=4.0, mu=0.5).shaping == Shaping.qempo_kl(4.0, 0.5)
    assert qempo("student", entropy=0.1, reference=0.1).shaping == Shaping.rlhf(0.1)
    assert not qempo(lam=4.0).needs_reference and not qempo(lam=4.0, mu=0.0).needs_reference
    assert qempo("student", reference=0.01).needs_reference and qempo("student", kl_coef=0.1).needs_reference


def test_the_length_to_divide_by_may_come_from_the_data() -> None:
    method = QEMPO(policy_config())
    data = SimpleNamespace(student=SamplingSettings(max_tokens=37), group_size=8, tasks_per_batch=4)
    method.check_data(data)
    assert method.norm_length == 37
    with pytest.raises(ValueError, match="model.norm_length is null and the data has no student.max_tokens"):
        QEMPO(policy_config()).check_data(None)
    given = qempo()
    given.check_data(data)
    assert given.norm_length == 4


def test_sampling_that_cuts_off_is_refused_and_a_temperature_noted() -> None:
    for wrong in ({"top_p": 0.9}, {"top_k": 5}):
        data = SimpleNamespace(student=SamplingSettings(**wrong), group_size=2, tasks_per_batch=4)
        with pytest.raises(ValueError, match="data.student has top_p .* set top_p to 1 and top_k to 0"):
            qempo().check_data(data)
    data.student = SamplingSettings(temperature=0.7)
    with pytest.warns(UserWarning, match="data.student.temperature is 0.7: the entropy is that of the policy at"):
        qempo().check_data(data)
    data.student = SamplingSettings()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        qempo().check_data(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 4.0, "entropy": 0.1}, "give either lam and perhaps mu, or entropy and perhaps reference"),
        ({"mu": 0.5}, "give either lam and perhaps mu"),
        ({"lam": 0.0}, "model.lam is 0.0; it must be a number above 0"),
        ({"lam": 4.0, "mu": -1.0}, "model.mu is -1.0; it must be a number at least 0"),
        ({"entropy": -0.1}, "model.entropy is -0.1"),
        ({"reference": 0.1}, "model.reference needs a reference policy"),
        ({"lam": 4.0, "mu": 0.5}, "model.mu needs a reference policy"),
        ({"credit": "turn"}, "model.credit is 'turn'"),
        ({"clip_low": -0.1}, "clip_low is -0.1"),
        ({"norm_length": 3, "aggregation": "token_mean"}, "model.norm_length goes with"),
    ],
)
def test_wrong_options_are_refused_before_a_model_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QEMPO(policy_config(), **options)


def test_batches_that_cannot_be_shaped_are_refused() -> None:
    batch = responses([1.0, 0.0])
    batch.ref_log_probs = None
    with pytest.raises(ValueError, match="model.reference is 0.1 but the rollouts have no ref_log_probs"):
        qempo("student", reference=0.1).advantages(batch)
    with pytest.raises(ValueError, match="data.group_size is 1, but QEMPO compares"):
        qempo().check_data(SimpleNamespace(group_size=1))
    with pytest.raises(ValueError, match="alone in its group"):
        qempo().advantages(responses([1.0, 0.0], 1, 1))
    dialogues = rollouts([2, None])
    for episode in dialogues.episodes:
        episode.turns = [replace(turn, new_row=turn.party == "student") for turn in episode.turns]
    many = Rollouts.from_episodes(dialogues.episodes, trained=["student"], parties=["student", "teacher"])
    with pytest.raises(ValueError, match="but an episode of the batch has several; set policy.rows to 'dialogue'"):
        qempo().advantages(many)


# -- learning ----------------------------------------------------------------------------------------------------------

TOY = TinyModel(words=["go"], numbers=2, hidden_size=32, layers=1, heads=2, max_length=16, initializer_range=0.3)
QUALITY = torch.tensor([1.0, 0.8, 0.0, 0.9])  # of 00, 01, 10, 11


class Toy:
    """qempo.md 10.3: two tokens of two, then the end; sampled from the exact joint of a policy."""

    def __init__(self, policy: Policy):
        zero = TOY.vocabulary().index("0")
        allowed = torch.zeros(3, len(TOY.vocabulary()), dtype=torch.bool)
        allowed[:2, zero : zero + 2], allowed[2, policy.chat.end_id] = True, True
        states = torch.arange(1, 4).clamp(max=2)[:, None].expand_as(allowed)
        policy.constraints = ConstraintTable({"toy": TokenConstraint(allowed, states)})
        prompt = [3, TOY.vocabulary().index("go"), policy.chat.end_id, 4]
        said = [[zero + a, zero + b, policy.chat.end_id] for a, b in itertools.product((0, 1), repeat=2)]
        self.policy, self.ids = policy, torch.tensor([prompt + tokens for tokens in said])
        self.mask = torch.arange(7).expand(4, 7) >= 4
        self.states = torch.where(self.mask, torch.arange(7) - 4, -1).int()

    @torch.no_grad()
    def log_probs(self, party: str | None) -> Tensor:
        """Of the tokens of all four responses, ``(4, 7)``."""
        with self.policy.acting_as(party):
            return self.policy.log_probs(self.ids, self.mask, constraint_states=self.states)[0]

    def sample(self, count: int, seed: int, version: int, reference: bool) -> Rollouts:
        log_probs = self.log_probs("student")
        generator = torch.Generator().manual_seed(seed)
        rows = torch.multinomial(log_probs.sum(1).exp(), count, replacement=True, generator=generator)
        batch = Rollouts(
            parties=("student",),
            policy_version=version,
            input_ids=self.ids[rows],
            attention_mask=torch.ones(count, 7, dtype=torch.bool),
            party_ids=torch.where(self.mask, 0, -1).to(torch.int8)[rows],
            loss_mask=self.mask[rows],
            turn_ids=torch.where(self.mask, 0, -1).to(torch.int16)[rows],
            old_log_probs=log_probs[rows],
            constraint_states=self.states[rows],
            rewards=QUALITY[rows][:, None],
            turn_valid=torch.ones(count, 1, dtype=torch.bool),
            group_ids=torch.arange(count) // 32,
            episode_ids=torch.arange(count),
            terminated=torch.ones(count, dtype=torch.bool),
            truncated=torch.zeros(count, dtype=torch.bool),
        )
        if reference:
            fill_reference(batch, self.policy, token_budget=10**6)
        return batch


@pytest.mark.parametrize(("credit", "reference"), [("sequence", 0.0), ("reward_to_go", 0.1)])
def test_learns_the_closed_form(credit: Any, reference: float) -> None:
    """qempo.md 10.3 and 11.10 on a small transformer, whose adapter-free self is the reference."""
    config = PolicyConfig(tiny=TOY, adapters={"student": LoRA(rank=16, alpha=32.0)} if reference else None)
    steps = 100
    decay = {"lr_scheduler": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, steps), "learning_rate": 1e-2}
    options = {"entropy": 0.3, "reference": reference, "credit": credit, "norm_length": 3}
    method = loaded(learner(method=QEMPO, policy=config, **options, **decay))
    assert method.policy is not None
    toy = Toy(method.policy)
    before = toy.log_probs("student").sum(1).exp()
    stream = RolloutStream(lambda n: toy.sample(256, n, method.policy_version, method.needs_reference), steps)
    running = trainer()
    running.fit(method, train_dataloaders=stream)
    base = toy.log_probs(None).sum(1) if reference else None
    wanted = optimum(QUALITY, base, entropy=0.3, reference=reference).exp()
    if not reference:
        golden = torch.tensor([0.441380, 0.226612, 0.015746, 0.316262], dtype=torch.float64)
        torch.testing.assert_close(wanted, golden, atol=1e-5, rtol=0)
    distance = [float((p - wanted).abs().sum() / 2) for p in (before, toy.log_probs("student").sum(1).exp())]
    assert distance[0] > 0.1 and distance[1] < 0.02, distance
    assert running.callback_metrics["train/sampler_log_prob_difference"] < 1e-5
