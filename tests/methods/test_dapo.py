"""DAPO: shaped rewards, cut-off responses, optimizer steps, skipped batches, and runs with dynamic sampling."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.callbacks import Checkpoints, EpisodeLog, MetricsFile, RunState
from lit_rl.datamodules import CompletionDataModule, RolloutStream
from lit_rl.dynamic_sampling import DynamicSampling
from lit_rl.environments import NumberSearch, Problem
from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.group_rewards import RewardCensus, raw_rewards
from lit_rl.methods.dapo import DAPO
from lit_rl.methods.qempo import QEMPO
from lit_rl.sampling import SamplingSettings
from tests.methods.worlds import TINY, as_sampled, in_ranks, learn, learner, loaded, moved, policy_config, trainer
from tests.methods.worlds import rollouts as dialogues
from tests.methods.worlds import weights as weights_of

END = TINY.vocabulary().index("<end>")
LIMITS = {"max_length": 16, "overlong_cache": 4}


def dapo(**options: Any) -> Any:
    return learner(method=DAPO, **LIMITS | options)


@pytest.fixture(scope="module")
def model() -> Any:
    """For what a loaded policy is needed for but not changed."""
    return loaded(dapo()).policy


def responses(rewards: Sequence[float], lengths: Sequence[int], groups: Sequence[int], ends: bool = True) -> Rollouts:
    """One response each, whose last token ends it unless it has 16 and ``ends`` is False."""
    episodes = []
    for index, (reward, length, group) in enumerate(zip(rewards, lengths, groups, strict=True)):
        said = [10 + (index + place) % 7 for place in range(length)]
        if ends or length < 16:
            said[-1] = END
        turn = Turn(party="student", exchange=0, text="", prompt_ids=[3, 7, 5, 4], completion_ids=said, new_row=True,
                    log_probs=[-2.0 - 0.1 * (place % 3) for place in range(length)], reward=float(reward))  # fmt: skip
        episodes.append(Episode(index=index, task_id=str(group), group=group, seed=0, turns=[turn], terminated=True))
    return Rollouts.from_episodes(episodes, trained=["student"], parties=["student"])


def advantages(method: Any, batch: Rollouts, policy: Any) -> list[float]:
    """Of each row; all its learned tokens share it, and nothing else has any."""
    method.policy = policy
    method.shape(batch)
    found = method.advantages(batch)
    assert not found[~batch.loss_mask].any()
    rows = [found[row][batch.loss_mask[row]] for row in range(len(batch))]
    assert all((row == row[:1]).all() for row in rows)
    return [float(row[0]) if len(row) else 0.0 for row in rows]


# -- golden values -----------------------------------------------------------------------------------------------------

A = ([3, 0, 1, 0], [14, 10, 12, 16])
B = ([0, 0, 0, 0], [13, 5, 16, 9])
SHAPED_A = [1.2558266963, -0.4186088988, 0.2511653393, -1.0883831368]
PLAIN_A = [1.4142125624, -0.7071062812, 0.0, -0.7071062812]
PHANTOM_B = [0.1320673569, 0.6603367844, -1.4527409257, 0.6603367844]


def both() -> Rollouts:
    return responses(A[0] + B[0], A[1] + B[1], [0] * 4 + [1] * 4)


def first_loss(batch: Rollouts, **options: Any) -> float:
    """Of the first optimizer step on a batch, whose ratios are 1."""
    method = loaded(dapo(**options))
    running = learn(method, [as_sampled(batch, method.policy)])
    metrics = {name: float(value) for name, value in running.callback_metrics.items()}
    for name in ("clip_fraction", "clip_high_fraction", "clip_low_fraction", "clip_dual_fraction"):
        assert metrics[f"train/{name}"] == 0
    assert abs(metrics["train/approx_kl_k1"]) < 1e-5
    return metrics["train/loss"]


def test_shaped_rewards_make_the_advantages(model: Any) -> None:
    """intelli.md 10.6"""
    batch = responses(*A, [7] * 4)
    assert advantages(dapo(), batch, model) == pytest.approx(SHAPED_A, abs=1e-6)
    assert batch.reward_parts["overlong"][:, 0].tolist() == [-0.5, 0, 0, -1]
    assert batch.rewards[:, 0].tolist() == [3, 0, 1, 0], "raw rewards stay"
    assert batch.figures["train/overlong_punishment"] == -1.5 / 4
    plain = advantages(dapo(overlong_factor=0.0, overlong_cache=None), responses(*A, [7] * 4), model)
    assert plain == pytest.approx(PLAIN_A, abs=1e-6)
    centred = advantages(dapo(scale="none"), responses(*A, [7] * 4), model)
    assert centred == pytest.approx([2.5 - 0.625, -0.625, 1 - 0.625, -1 - 0.625])


@pytest.mark.parametrize(
    ("rows", "options", "loss"),
    [
        ("a", {}, 0.0193204107),
        ("a", {"overlong_factor": 0.0, "overlong_cache": None}, -0.0271963954),
        ("both", {}, 0.1398623742),  # of phantom advantages: what the filter is there for
        ("a", {"aggregation": "seq_mean_token_mean"}, 0.0),
    ],
)
def test_loss_of_the_first_step(rows: str, options: dict[str, Any], loss: float) -> None:
    """intelli.md 10.6 and 5.6: the advantages' mean weighed by lengths, or of rows, which is 0."""
    batch = responses(*A, [0] * 4) if rows == "a" else both()
    assert first_loss(batch, **options) == pytest.approx(loss, abs=2e-5)


def test_a_group_with_zero_advantages_changes_the_scale(model: Any) -> None:
    """intelli.md 10.6: group b without shaping."""
    method, batch = dapo(), both()
    found = advantages(method, batch, model)
    assert found == pytest.approx(SHAPED_A + PHANTOM_B, abs=1e-6)
    lengths = A[1] + B[1]
    loss = -sum(a * n for a, n in zip(SHAPED_A + [0.0] * 4, lengths, strict=True)) / sum(lengths)
    assert loss == pytest.approx(0.0105753827, abs=1e-9)
    batch.reward_parts["overlong"][4:] = 0.0
    weigh = method.step_weights(batch)
    given = method.advantages(batch)
    assert -float((weigh(batch) * given).sum()) == pytest.approx(0.0105753827, abs=1e-6)


def test_groups_are_filtered_by_raw_rewards(model: Any) -> None:
    """intelli.md 10.6: b is dropped although shaping tells its rows apart; a cancelled difference is kept."""
    batch = both()
    cancelled = responses([1, 0.5], [14, 12], [2, 2])  # shaped to .5 and .5
    for rollouts, wanted in ((batch, [0]), (cancelled, [2])):
        assert RewardCensus(0.0).add(raw_rewards(rollouts, rollouts.rewards))[0] == wanted
        advantages(dapo(), rollouts, model)
        assert RewardCensus(0.0).add(raw_rewards(rollouts, rollouts.rewards))[0] == wanted, "shaping changed it"
    assert advantages(dapo(), responses([1, 0.5], [14, 12], [2, 2]), model) == [0.0, 0.0]


@given(
    rows=st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 16)), min_size=2, max_size=6),
    shift=st.sampled_from([-2.0, 0.5]),
    seed=st.integers(0, 5),
)
@settings(max_examples=25, deadline=None)
def test_advantages_of_a_group(model: Any, rows: list[tuple[float, int]], shift: float, seed: int) -> None:
    """Mean zero, the same whatever is added to all, and in whatever order; a neighbour changes nothing."""
    rewards, lengths = [list(column) for column in zip(*rows, strict=True)]
    found = advantages(dapo(), responses(rewards, lengths, [0] * len(rows)), model)
    assert sum(found) == pytest.approx(0, abs=1e-4)
    moved_all = [reward + shift for reward in rewards]
    assert advantages(dapo(), responses(moved_all, lengths, [0] * len(rows)), model) == pytest.approx(found, abs=1e-4)
    beside = responses(rewards + [9.0, 1.0], lengths + [3, 16], [4] * len(rows) + [1, 1])
    order = torch.randperm(len(beside), generator=torch.Generator().manual_seed(seed))
    mixed = advantages(dapo(), beside.select(order), model)
    back = [mixed[order.tolist().index(row)] for row in range(len(rows))]
    assert back == pytest.approx(found, abs=1e-5)


# -- responses that were cut off ---------------------------------------------------------------------------------------


def test_cut_off_responses_teach_nothing_but_are_compared_with() -> None:
    """intelli.md 5.5: their tokens leave sum and denominator; their rewards stay in the baseline, unless asked."""
    unshaped = {"overlong_factor": 0.0, "overlong_cache": None, "filter_truncated": True}
    lengths = [16, 4, 8, 16]
    method = loaded(dapo(**unshaped))
    batch = responses([0, 1, 0, 1], lengths, [0] * 4, ends=False)
    learned = advantages(method, batch, method.policy)
    half = 0.8660239038  # intelli.md 10.4: 1, 1, 0, 0
    assert learned == pytest.approx([0, half, -half, 0], abs=1e-6)
    assert batch.loss_mask.sum(1).tolist() == [0, 4, 8, 0]
    assert batch.figures["train/truncated_share"] == 0.5
    alone = dapo(exclude_from_baseline=True, **unshaped)
    some = 0.7071057812  # 1, 0
    again = responses([0, 1, 0, 1], lengths, [0] * 4, ends=False)
    assert advantages(alone, again, method.policy) == pytest.approx([0, some, -some, 0], abs=1e-6)
    ended = responses([0, 1, 0, 1], lengths, [0] * 4)
    assert advantages(dapo(**unshaped), ended, method.policy) == pytest.approx([-half, half, -half, half], abs=1e-6)
    loss = first_loss(responses([0, 1, 0, 1], lengths, [0] * 4, ends=False), **unshaped)
    assert loss == pytest.approx(half * (8 - 4) / 12, abs=2e-5)


def test_each_turn_is_a_response_of_its_own() -> None:
    batch = dialogues([2, 3], [None, 1])
    method: Any = loaded(dapo(max_length=3, overlong_cache=2, filter_truncated=True))
    method.shape(batch)
    spoken = [[len(t.completion_ids) for t in e.turns if t.party == "student"] for e in batch.episodes]
    wanted = [[-max(0.0, (length - 1) / 2) for length in row] + [0.0] * (4 - len(row)) for row in spoken]
    assert batch.reward_parts["overlong"].tolist() == wanted
    assert batch.extras["truncated"].tolist() == [[n == 3 for n in row] + [False] * (4 - len(row)) for row in spoken]
    assert batch.loss_mask.sum(1).tolist() == [sum(n for n in row if n < 3) for row in spoken]


# -- options -----------------------------------------------------------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {"scale": "none"},
    {"overlong_factor": 0.5},
    {"overlong_factor": 0.0, "overlong_cache": None},
    {"overlong_cache": 8},
    {"overlong_cache": None},
    {"max_length": 17},
    {"filter_truncated": True},
    {"filter_truncated": True, "exclude_from_baseline": True},
    {"clip_low": 0.01},
    {"clip_high": 0.2},
    {"dual_clip": 1.05},
    {"aggregation": "seq_mean_token_mean"},
]


def loss_off_policy(model: Any, options: dict[str, Any]) -> float:
    method = dapo(**options)
    method.policy = model
    batch = responses([1, 0, 0.5, 0.2, 1, 0, 0, 0.3], [16, 5, 13, 9, 2, 16, 7, 15], [0] * 4 + [1] * 4, ends=False)
    as_sampled(batch, model, off=0.4)
    method.shape(batch)
    batch.advantages = method.advantages(batch)
    log_probs, _ = model.log_probs(batch.input_ids, batch.loss_mask)
    return float((method.step_weights(batch)(batch) * method.token_loss(batch, log_probs)).sum().detach())


def test_every_option_has_an_effect(model: Any) -> None:
    losses = [loss_off_policy(model, options) for options in [{}, *OPTIONS]]
    assert len({round(loss, 6) for loss in losses}) == len(losses), losses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "mean"}, "model.scale is 'mean'; it must be 'std' or 'none'"),
        ({"overlong_factor": -1.0}, "model.overlong_factor is -1.0"),
        ({"overlong_factor": 0.0}, "model.overlong_cache is 4, but model.overlong_factor is 0"),
        ({"overlong_cache": 17}, "model.overlong_cache is 17, but responses have at most 16 tokens"),
        ({"overlong_cache": 0}, "model.overlong_cache is 0"),
        ({"exclude_from_baseline": True}, "model.exclude_from_baseline goes with model.filter_truncated"),
        ({"max_length": 0}, "model.max_length is 0"),
        ({"clip_high": -0.1}, "clip_high -0.1"),
        ({"dual_clip": 1.0}, "dual_clip is 1.0"),
        ({"scheduler_interval": "epoch"}, "model.scheduler_interval is 'epoch'; it must be 'step' or 'rollout'"),
    ],
)
def test_wrong_options_are_refused_before_a_model_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dapo(**options)


def test_the_limit_may_come_from_the_data() -> None:
    data = SimpleNamespace(student=SamplingSettings(max_tokens=20), group_size=8, tasks_per_batch=4)
    method = DAPO(policy_config())
    method.check_data(data)
    assert method.max_length == 20
    with pytest.raises(ValueError, match="overlong_cache is 30, but responses have at most 20 tokens"):
        DAPO(policy_config(), overlong_cache=30).check_data(data)
    with pytest.raises(ValueError, match="model.max_length is null and the data has no student.max_tokens"):
        DAPO(policy_config()).check_data(None)
    DAPO(policy_config(), overlong_factor=0.0).check_data(None)  # nothing is measured by it


def test_no_reference_is_needed() -> None:
    assert not dapo().needs_reference


def test_several_rows_of_an_episode_are_refused() -> None:
    batch = dialogues([2, None])
    for episode in batch.episodes:
        episode.turns = [t for t in episode.turns if t.party == "student"]
    made = [
        Episode(index=e.index, task_id="", group=e.group, seed=0, turns=[_row(turn) for turn in e.turns])
        for e in batch.episodes
    ]
    many = Rollouts.from_episodes(made, trained=["student"], parties=["student"])
    with pytest.raises(ValueError, match="but an episode of the batch has several; set policy.rows to 'dialogue'"):
        dapo().shape(many)


def _row(turn: Turn) -> Turn:
    return Turn(party="student", exchange=turn.exchange, text="", prompt_ids=[3], completion_ids=turn.completion_ids,
                log_probs=turn.log_probs, new_row=True)  # fmt: skip


# -- optimizer steps and skipped batches -------------------------------------------------------------------------------


def halved(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)


@pytest.mark.parametrize(("interval", "rate"), [("step", 0.5**8), ("rollout", 0.5**2)])
def test_when_the_scheduler_steps(interval: Any, rate: float) -> None:
    """intelli.md 5.6: N G / mini-batch updates a rollout, of which the published schedules count one."""
    method = dapo(steps_per_batch=4, scheduler_interval=interval, lr_scheduler=halved, learning_rate=1.0)
    batch = responses([1, 0] * 4, [5, 9, 2, 12] * 2, [0, 0, 1, 1, 2, 2, 3, 3])
    running = learn(method, [batch, batch])
    assert running.optimizers[0].param_groups[0]["lr"] == rate
    assert method.policy_version == 8 == running.global_step


class States(L.Callback):
    """What a run is made of, before and after every batch."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._look(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self._look(trainer, pl_module)

    def _look(self, trainer: L.Trainer, module: Any) -> None:
        optimizer = [
            value.clone() if isinstance(value, Tensor) else value
            for state in trainer.optimizers[0].state.values()
            for value in state.values()
        ]
        scheduler = trainer.lr_scheduler_configs[0].scheduler.state_dict()
        self.seen.append((weights_of(module), optimizer, scheduler, module.policy_version, trainer.global_step))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("interval", ["step", "rollout"])
def test_a_skipped_batch_moves_nothing(interval: Any, tmp_path: Path) -> None:
    """intelli.md 10.7: parameters, optimizer state and scheduler are bit-identical."""
    method = dapo(scheduler_interval=interval, lr_scheduler=halved, steps_per_batch=2)
    full = responses([1, 0] * 2, [5, 9, 2, 12], [0, 0, 1, 1])

    def collect(number: int) -> Rollouts:
        batch = full.select(torch.arange(4))
        batch.policy_version = method.policy_version
        batch = batch.without_rows() if number == 1 else batch
        batch.figures = {"sampling/skipped": float(number == 1)}
        return batch

    states, last = States(), MetricsFile()
    running = trainer(tmp_path, callbacks=[EpisodeLog(), states, last])
    running.fit(method, train_dataloaders=RolloutStream(collect, 3))
    assert same(states.seen[2], states.seen[3]), "the second batch"
    assert not same(states.seen[0], states.seen[1]) and not same(states.seen[4], states.seen[5])
    assert method.policy_version == 4 == running.global_step and last.batches == 3
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert ['"sampling/skipped": 1.0' in line.replace('":1.0', '": 1.0') for line in lines] == [False, True, False]


def test_figures_of_a_step(model: Any) -> None:
    """intelli.md 5.2 and 10.2: shares of tokens by cause, and the mean of log pi_old less log pi."""
    method = dapo()
    method.policy = model
    batch = responses([1, 0], [4, 2], [0, 0])
    batch.advantages = torch.where(batch.loss_mask, torch.tensor([[1.0], [-1.0]]), 0.0)
    ratios = torch.zeros_like(batch.old_log_probs)
    ratios[0, 4:8], ratios[1, 4:6] = torch.tensor([1.5, 1.3, 1.0, 0.5]), torch.tensor([0.5, 12.0])
    log_probs = (batch.old_log_probs + ratios.clamp(min=1e-9).log()).masked_fill(~batch.loss_mask, 0.0)
    found = {name: float(total / count) for name, (total, count) in method.step_figures(batch, log_probs).items()}
    moved = -sum(math.log(ratio) for ratio in (1.5, 1.3, 1.0, 0.5, 0.5, 12.0)) / 6
    assert found == pytest.approx(
        {"clip_fraction": 4 / 6, "clip_high_fraction": 2 / 6, "clip_low_fraction": 1 / 6, "clip_dual_fraction": 1 / 6,
         "approx_kl_k1": moved},
        rel=1e-5,
    )  # fmt: skip


def test_a_rank_without_rows_takes_the_steps_of_the_others(tmp_path: Path) -> None:
    batch = responses([1, 0] * 2, [5, 9, 2, 12], [0, 0, 1, 1])

    def moves(mine: Rollouts, **options: Any) -> dict[str, Tensor]:
        method = loaded(dapo(optimizer=sgd, steps_per_batch=2))
        before = weights_of(method)
        learn(method, [mine, mine], **options)
        assert method.policy_version == 4
        return moved(before, weights_of(method))

    def check(rank: int) -> None:
        found = moves(batch.without_rows() if rank else batch, strategy="ddp", devices=2)
        torch.save(found, tmp_path / f"rank{rank}.pt")

    in_ranks(check, tmp_path)
    one, other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    for name, wanted in moves(batch).items():
        assert torch.equal(one[name], other[name])
        torch.testing.assert_close(one[name], wanted, atol=1e-6, rtol=1e-4)
    assert any(bool(change.any()) for change in one.values())


# -- with data ---------------------------------------------------------------------------------------------------------


def by_length(problem: Problem, completion: str) -> float:
    """Pays a word that the policy says now and then, once at the most."""
    return float(any(word in ("ans", "find", "higher") for word in completion.split()))


def rarely(problem: Problem, completion: str) -> float:
    words = completion.split()
    return float("ans" in words and "or" in words)


def never(problem: Problem, completion: str) -> float:
    return 0.0


def data(quality: Callable[[Problem, str], float] = by_length, **options: Any) -> CompletionDataModule:
    known: dict[str, Any] = {
        "validation_tasks": NumberSearch(3),
        "tasks_per_batch": 3,
        "group_size": 3,
        "batches_per_epoch": 3,
        "student": SamplingSettings(max_tokens=6),
        "dynamic_sampling": DynamicSampling(prompts_per_draw=4, max_draws=2),
    }
    return CompletionDataModule(NumberSearch(10), quality=quality, **known | options)


def method_for_data(**options: Any) -> Any:
    return learner(method=DAPO, **{"overlong_cache": 3} | options)


class Groups(L.Callback):
    """Which problems every batch was about, and whether they were paid differently."""

    def __init__(self, data: Any) -> None:
        self.data, self.tasks, self.groups = data, [], []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        groups = sorted(set(batch.group_ids.tolist()))
        self.groups.append(groups)
        self.tasks.append([self.data._order[group] for group in groups])
        for group in groups:
            assert len(set(batch.rewards[batch.group_ids == group].sum(1).tolist())) > 1
            assert (batch.group_ids == group).sum() == self.data.group_size


def test_a_run_learns_from_groups_that_differ_and_draws_on() -> None:
    given = data()
    seen, method = Groups(given), method_for_data(steps_per_batch=3)
    running = trainer(callbacks=[seen])
    running.fit(method, datamodule=given)
    assert [len(groups) for groups in seen.groups] == [3, 3, 3] and method.policy_version == 9
    assert all(len(set(tasks)) == 3 for tasks in seen.tasks)
    firsts = [groups[0] for groups in seen.groups]
    assert firsts[0] < 4 <= firsts[1] and seen.groups[0][-1] < firsts[1], "every draw takes up where the last ended"
    metrics = running.callback_metrics
    assert metrics["sampling/draws"] >= 1 and 0 < metrics["sampling/kept_share"] <= 1
    assert metrics["train/sampler_log_prob_difference"] < 1e-5


def test_any_method_may_have_it() -> None:
    given = data()
    seen = Groups(given)
    trainer(callbacks=[seen]).fit(learner(method=QEMPO), datamodule=given)
    assert sum(map(len, seen.groups)) == 9


def test_a_run_that_is_never_paid_skips_and_then_ends(tmp_path: Path) -> None:
    given = data(never, dynamic_sampling=DynamicSampling(prompts_per_draw=4, max_draws=1, max_consecutive_skips=3))
    method, states = method_for_data(lr_scheduler=halved), States()
    running = trainer(tmp_path, callbacks=[states, EpisodeLog(), MetricsFile(), Checkpoints()])
    with pytest.raises(RuntimeError, match="In 3 batches in a row no group had different rewards"):
        running.fit(method, datamodule=given)
    assert len(states.seen) == 4 and all(same(states.seen[0], state) for state in states.seen)
    assert method.policy_version == 0


class Listening(L.Callback):
    reward_parts = ("listener_match",)


def test_rewards_that_are_written_later_are_refused_at_setup() -> None:
    method = method_for_data()
    with pytest.raises(ValueError, match=r"but Listening writes \['listener_match'\] later; leave one of the two out"):
        trainer(callbacks=[Listening()]).fit(method, datamodule=data())
    assert method.policy is None, "before a model is loaded"
    trainer(callbacks=[Listening()], fast_dev_run=True).fit(method, datamodule=data(dynamic_sampling=None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 1}, "data.group_size is 1, but data.dynamic_sampling compares the episodes of a group"),
        ({"dynamic_sampling": DynamicSampling(prompts_per_draw=11)}, "draws 11 problems at a time, but there are 10"),
        ({"tasks_per_batch": 6, "dynamic_sampling": DynamicSampling()}, "draws 18 problems at a time"),
    ],
)
def test_data_that_cannot_be_drawn_from_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(**options)


def test_a_checkpoint_that_does_not_know_where_drawing_was_is_refused() -> None:
    state = data(dynamic_sampling=None).train_dataloader().state_dict()
    with pytest.raises(ValueError, match="written by a run without data.dynamic_sampling"):
        data().train_dataloader().load_state_dict(state)


@pytest.mark.parametrize("keep_surplus", [False, True])
def test_a_resumed_run_continues_to_the_bit(keep_surplus: bool, tmp_path: Path) -> None:
    sampling = DynamicSampling(prompts_per_draw=4, max_draws=2, keep_surplus=keep_surplus)

    def run(folder: Path, *more: L.Callback, **options: Any) -> dict[str, Any]:
        method = method_for_data(allowed_lag=4, steps_per_batch=2)
        callbacks = [RunState(), MetricsFile(), *more, Checkpoints(every_n_batches=1)]
        given = data(dynamic_sampling=sampling, batches_per_epoch=4)
        trainer(folder, callbacks=callbacks).fit(method, datamodule=given, weights_only=True, **options)
        checkpoint: dict[str, Any] = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        return checkpoint

    alone = run(tmp_path / "alone")
    with pytest.raises(RuntimeError, match="lights out"):
        run(tmp_path / "resumed", LightsOut(2))
    resumed = run(tmp_path / "resumed", ckpt_path=tmp_path / "resumed/checkpoints/last.ckpt")
    for part in ("state_dict", "optimizer_states", "policy_version"):
        assert same(resumed[part], alone[part]), part
    loaders = [checkpoint["callbacks"]["RunState"]["loader"] for checkpoint in (resumed, alone)]
    assert loaders[0] == loaders[1] and loaders[0]["sampler"]["drawn"] > 0
    files = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("resumed", "alone")]
    assert files[0] == files[1]
    assert (b"reused_groups" in files[0]) == keep_surplus


class LightsOut(L.Callback):
    """Ends a run before it learns from batch ``number``."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.number:
            raise RuntimeError("lights out")


def sgd(groups: Any) -> Any:
    return torch.optim.SGD(groups, lr=0.1)


@pytest.mark.parametrize("quality", [by_length, rarely])
def test_two_ranks_equal_one(quality: Callable[[Problem, str], float], tmp_path: Path) -> None:
    """Where groups that are kept lie unevenly; of the rare ones often one rank has none."""
    sampling = DynamicSampling(prompts_per_draw=4, max_draws=2, keep_surplus=True, max_consecutive_skips=9)

    def run(**options: Any) -> Any:
        method = loaded(method_for_data(optimizer=sgd, steps_per_batch=2, allowed_lag=4))
        before, seen = weights_of(method), Groups(data())
        given = data(quality, tasks_per_batch=4, group_size=6, dynamic_sampling=sampling)
        seen.data = given
        running = trainer(callbacks=[seen, RunState()], **options)
        running.fit(method, datamodule=given)
        sampler = given.train_dataloader().state_dict()["sampler"]
        return moved(before, weights_of(method)), dict(running.callback_metrics), seen.groups, sampler

    def check(rank: int) -> None:
        torch.save(run(strategy="ddp", devices=2), tmp_path / f"rank{rank}.pt")

    in_ranks(check, tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]
    alone, metrics, groups, sampler = run()
    assert [sorted(mine + others) for mine, others in zip(ranks[0][2], ranks[1][2], strict=True)] == groups
    if quality is rarely:
        assert [] in ranks[0][2] + ranks[1][2], "no rank was ever without rows"
    assert any(groups)
    for name in alone:
        assert torch.equal(ranks[0][0][name], ranks[1][0][name])
        torch.testing.assert_close(ranks[0][0][name], alone[name], atol=2e-5, rtol=1e-3)
    for name, value in metrics.items():
        if name.partition("/")[0] in ("sampling", "train") and "difference" not in name:
            assert float(ranks[0][1][name]) == pytest.approx(float(value), abs=1e-4), name
    assert ranks[0][3]["surplus"]["groups"] == sampler["surplus"]["groups"]
    assert ranks[0][3] == ranks[1][3] and ranks[0][3]["drawn"] == sampler["drawn"]


def test_learns_to_end_its_responses() -> None:
    """Paid is a word that random weights say often within the limit; length costs."""
    many = {"tasks_per_batch": 6, "group_size": 8, "batches_per_epoch": 20, "student": SamplingSettings(max_tokens=12)}
    given, seen = data(dynamic_sampling=None, **many), Lengths()
    trainer(callbacks=[seen]).fit(method_for_data(overlong_cache=8, learning_rate=3e-2), datamodule=given)
    first, last = seen.truncated[0], sum(seen.truncated[-3:]) / 3
    assert first > 0.3 and last < 0.05, seen.truncated
    assert sum(seen.rewards[-3:]) / 3 > max(0.9, seen.rewards[0] + 0.1), seen.rewards


class Lengths(L.Callback):
    def __init__(self) -> None:
        self.truncated: list[float] = []
        self.rewards: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.truncated.append(batch.figures["train/truncated_share"])
        self.rewards.append(float(batch.rewards.mean()))
