"""Hierarchical advantages: golden values of hiper.md 10, plain loops, and the properties of hiper.md 12."""

import math
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_rl.objectives.hierarchical import (
    EndValues,
    HierarchicalAdvantages,
    hierarchical_advantages,
    lambda_targets,
    stale_end_values,
    td_targets,
)
from lit_rl.objectives.plan_penalties import PlanPenalties, shape_rewards
from lit_rl.objectives.streams import stream_advantages, whiten
from lit_rl.objectives.switch_advantages import (
    critic_switch_advantages,
    gain_switch_advantages,
    return_switch_advantages,
)
from lit_rl.objectives.turns import backward_scan, turn_mask
from tests.objectives.turn_batches import Batch, assert_close, plain_gae, plain_loop, random_batch

NAN = math.nan
SETTING_A = {"gamma": 1.0, "lambda_turn": 1.0, "lambda_segment": 0.95}
SETTING_B = {"gamma": 0.95, "lambda_turn": 0.95, "lambda_segment": 0.95}
FIRSTS = [0, 2, 5]  # of the golden episode's segments
SWITCH_VALUES = torch.tensor([[0.22, 0.28, 0.42, 0.33, 0.48, 0.66]], dtype=torch.float64)


def golden(last_reward: float = 1.0) -> Batch:
    """The episode of hiper.md 10."""
    return Batch(
        torch.tensor([[0, 0, 0, -0.1, 0, last_reward]], dtype=torch.float64),
        torch.tensor([[True, False, True, False, False, True]]),
        torch.tensor([6]),
        torch.tensor([[0.2, 0.3, 0.4, 0.35, 0.5, 0.6]], dtype=torch.float64),
        torch.tensor([[0.25, NAN, 0.45, NAN, NAN, 0.7]], dtype=torch.float64),
    )


def estimate(batch: Batch, **options: Any) -> HierarchicalAdvantages:
    return hierarchical_advantages(**batch.estimate(), **(SETTING_A | options))


def targets(batch: Batch, credit: HierarchicalAdvantages) -> Any:
    return lambda_targets(credit, batch.low_values, batch.high_values, batch.boundaries, batch.lengths)


def return_switch(batch: Batch, credit: HierarchicalAdvantages) -> Tensor:
    return return_switch_advantages(credit.segment_returns, SWITCH_VALUES, batch.lengths)


# -- golden values -----------------------------------------------------------------------------------------------------


def test_golden_a() -> None:
    batch, credit = golden(), estimate(golden())
    assert_close(credit.low[0], [0.25, 0.15, 0.20, 0.25, 0.20, 0.40])
    assert_close(credit.segment_returns[0], [0.45, 0.45, 0.60, 0.60, 0.70, 1.00])
    assert_close(credit.high[0], [0.61325, 0, 0.435, 0, 0, 0.30])
    assert_close(return_switch(batch, credit)[0], [0.23, 0.17, 0.18, 0.27, 0.22, 0.34])
    wanted = targets(batch, credit)
    assert_close(wanted.low, credit.segment_returns)  # lambda_turn is 1
    assert_close(wanted.high[0], [0.86325, 0, 0.885, 0, 0, 1.0])
    assert_close(wanted.switch, credit.segment_returns)
    critic = critic_switch_advantages(
        batch.low_values, batch.high_values, SWITCH_VALUES, batch.boundaries, batch.lengths
    )
    # The table of the specification also lists 0.03 at the first turn, where nothing is decided (its section 4.4).
    assert_close(critic[0], [0.0, 0.02, 0.03, 0.02, 0.02, 0.04])


@pytest.mark.parametrize(
    ("setting", "losses"),
    [(SETTING_A, [0.06458333, 0.21843352, 0.05851667]), (SETTING_B, [0.04695945, 0.11673758, 0.04236325])],
)
def test_golden_critic_losses_at_the_old_values(setting: dict[str, float], losses: list[float]) -> None:
    batch = golden()
    wanted = targets(batch, estimate(batch, **setting))
    low = (wanted.low - batch.low_values).square().mean()
    high = (wanted.high - batch.high_values)[0, FIRSTS].square().mean()
    switch = (wanted.switch - SWITCH_VALUES).square().mean()
    assert_close(torch.stack([low, high, switch]), losses, atol=5e-9)


def test_golden_whitened() -> None:
    batch, credit = golden(), estimate(golden())
    every = turn_mask(batch.lengths, 6)
    low, high = whiten(credit.low, every), whiten(credit.high, batch.boundaries)
    switch = whiten(return_switch(batch, credit), every)
    assert_close(low[0], [0.10599977, -1.16599752, -0.52999887, 0.10599977, -0.52999887, 2.01399572], 5e-9)
    assert_close(high[0, FIRSTS], [1.27706006, -0.11237609, -1.16468397], 5e-9)
    assert_close(switch[0], [-0.08714892, -1.13293595, -0.95863811, 0.61004243, -0.26144676, 1.83012730], 5e-9)


def test_golden_b() -> None:
    batch, credit = golden(), estimate(golden(), **SETTING_B)
    assert_close(credit.low[0], [0.20006875, 0.1275, 0.08945603, 0.1739125, 0.165, 0.4], 5e-9)
    assert_close(credit.segment_returns[0], [0.406125, 0.4275, 0.5051625, 0.53175, 0.665, 1.0])
    assert_close(return_switch(batch, credit)[0], [0.186125, 0.1475, 0.0851625, 0.20175, 0.185, 0.34])
    assert_close(credit.high[0, FIRSTS], [0.41292114, 0.29951437, 0.3], 5e-9)
    wanted, one_step = targets(batch, credit), td_targets(credit, batch.boundaries)
    assert_close(wanted.low[0], [0.40006875, 0.4275, 0.48945603, 0.5239125, 0.665, 1.0], 5e-9)
    assert_close(wanted.high[0, FIRSTS], [0.66292114, 0.74951437, 1.0], 5e-9)
    assert_close(one_step.low[0], [0.285, 0.4275, 0.3325, 0.375, 0.665, 1.0])
    assert_close(one_step.high[0], [0.406125, 0, 0.5051625, 0, 0, 1.0])
    assert_close(one_step.switch, credit.segment_returns)


def test_golden_c() -> None:
    credit = estimate(golden(), gamma=0.9, lambda_turn=0.5, lambda_segment=0.8)
    assert_close(credit.low[0], [0.11725, 0.105, -0.058675, 0.0585, 0.13, 0.4])
    assert_close(credit.high[0, FIRSTS], [0.20862848, 0.14526, 0.3], 5e-9)
    assert_close(credit.segment_returns[0], [0.3645, 0.405, 0.4203, 0.467, 0.63, 1.0])


def stale(batch: Batch, terminated: bool) -> EndValues:
    return stale_end_values(
        batch.low_values, batch.high_values, batch.boundaries, batch.lengths, torch.tensor([terminated])
    )


@pytest.mark.parametrize(
    ("truncation", "low", "switch", "high"),
    [
        ("zero", -0.600, -0.660, [-0.28541616, -0.51499187, -0.70000000]),
        ("stale", -0.030, 0.005, [0.17897814, 0.02665478, -0.03500000]),
        ("next", -0.125, -0.185, [0.04629406, -0.12810141, -0.22500000]),
    ],
)
def test_golden_d_truncated(truncation: str, low: float, switch: float, high: list[float]) -> None:
    batch, half = golden(last_reward=0.0), torch.tensor([0.5], dtype=torch.float64)
    ends = {"zero": None, "stale": stale(batch, terminated=False), "next": EndValues(half, half)}
    credit = estimate(batch, end_values=ends[truncation], **SETTING_B)
    whole = estimate(golden(), **SETTING_B)
    assert_close(credit.low[0, 5], low)
    assert_close(return_switch(batch, credit)[0, 5], switch)
    assert_close(credit.high[0, FIRSTS], high, 5e-9)
    assert_close(credit.low[:, :5], whole.low[:, :5])
    assert_close(credit.segment_returns[:, :5], whole.segment_returns[:, :5])


def test_stale_values_are_zero_where_the_task_ended() -> None:
    assert [value.item() for value in stale(golden(), terminated=True)] == [0.0, 0.0]
    assert [value.item() for value in stale(golden(), terminated=False)] == [0.6, 0.7]


@pytest.mark.parametrize(
    ("mode", "rewards", "low", "high"),
    [
        ("fixed", [0, -0.3, 0, -0.4, -0.3, 1], [-0.05, -0.15, -0.40, -0.35, -0.10, 0.40], [-0.25675, -0.165, 0.30]),
        ("normalized", [0, -0.05, 0, -0.15, -0.05, 1], [0.2, 0.1, 0.1, 0.15, 0.15, 0.4], [0.46825, 0.335, 0.3]),
    ],
)
def test_golden_e_keep_penalty(mode: Any, rewards: list[float], low: list[float], high: list[float]) -> None:
    batch = golden()
    penalties = PlanPenalties(keep=-0.3, keep_mode=mode, keep_skip_first=False)
    shaped = shape_rewards(batch.rewards, batch.lengths, penalties, kept=~batch.boundaries)
    assert_close(shaped[0], rewards)
    credit = estimate(batch._replace(rewards=shaped))
    assert_close(credit.low[0], low)
    assert_close(credit.high[0, FIRSTS], high)


def test_golden_f_gain() -> None:
    batch = golden()
    high = torch.tensor([[NAN, 0.33, 0.45, 0.30, 0.52, 0.70]], dtype=torch.float64)
    keep = torch.tensor([[NAN, 0.30, 0.38, 0.35, 0.50, 0.55]], dtype=torch.float64)
    probability = torch.tensor([[NAN, 0.2, 0.6, 0.1, 0.3, 0.7]], dtype=torch.float64)
    gain = gain_switch_advantages(high, keep, probability, batch.boundaries, batch.lengths)
    assert_close(gain[0], [0, -0.006, 0.028, 0.005, -0.006, 0.045])


def test_golden_g_padding() -> None:
    first, pad = golden(), [NAN] * 3
    batch = Batch(
        torch.cat([first.rewards, torch.tensor([[0, 0, -0.2, *pad]], dtype=torch.float64)]),
        torch.cat([first.boundaries, torch.tensor([[True, False, False, True, False, True]])]),
        torch.tensor([6, 3]),
        torch.cat([first.low_values, torch.tensor([[0.1, 0.2, 0.3, *pad]], dtype=torch.float64)]),
        torch.cat([first.high_values, torch.tensor([[0.15, NAN, NAN, *pad]], dtype=torch.float64)]),
    )
    credit, alone = estimate(batch, **SETTING_B), estimate(first, **SETTING_B)
    assert_close(credit.low[1], [-0.24054063, -0.36625, -0.5, 0, 0, 0], 5e-9)
    assert_close(credit.high[1], [-0.3305, 0, 0, 0, 0, 0], 5e-9)
    assert_close(credit.segment_returns[1], [-0.1805, -0.19, -0.2, 0, 0, 0])
    for ours, wanted in zip(credit, alone, strict=True):
        assert torch.equal(ours[0], wanted[0])


# -- against plain loops -----------------------------------------------------------------------------------------------


def test_equals_plain_loops_on_a_thousand_ragged_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(1000):
        batch = random_batch(seed)
        gamma, lambda_turn, lambda_segment = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        end = torch.randn(2, len(batch.lengths), generator=generator, dtype=torch.float64)
        numbers = {"gamma": gamma, "lambda_turn": lambda_turn, "lambda_segment": lambda_segment}
        credit = estimate(batch, end_values=EndValues(end[0], end[1]), **numbers)
        wanted = plain_loop(batch, (end[0], end[1]), **numbers)
        for name, tensor in credit._asdict().items():
            torch.testing.assert_close(tensor, wanted[name], atol=1e-9, rtol=0, msg=f"{name}, seed {seed}")


def test_float32_and_lower_precision() -> None:
    batch = random_batch(3)
    exact = estimate(batch, **SETTING_B)
    for dtype, atol in ((torch.float32, 1e-5), (torch.bfloat16, 0.3)):
        rough = batch._replace(**{n: getattr(batch, n).to(dtype) for n in ("rewards", "low_values", "high_values")})
        found = estimate(rough, **SETTING_B)
        assert found.low.dtype == torch.float32
        assert_close(found.low, exact.low, atol)
        assert_close(found.high, exact.high, atol)


def test_scan_equals_the_recursion() -> None:
    generator = torch.Generator().manual_seed(1)
    for turns in (1, 2, 7, 64, 100):
        terms, decay = torch.randn(2, 3, turns, generator=generator, dtype=torch.float64)
        wanted, state = [], torch.zeros(3, dtype=torch.float64)
        for t in range(turns - 1, -1, -1):
            state = terms[:, t] + decay[:, t] * state
            wanted.append(state)
        torch.testing.assert_close(backward_scan(terms, decay), torch.stack(wanted[::-1], 1), atol=1e-6, rtol=1e-9)


# -- properties of hiper.md 12 -----------------------------------------------------------------------------------------

SEEDS = range(12)


def turn_lists(batch: Batch, tensor: Tensor) -> list[list[float]]:
    return [row[:n].tolist() for row, n in zip(tensor, batch.lengths.tolist(), strict=True)]


def monte_carlo(batch: Batch, gamma: float) -> list[list[float]]:
    return [plain_gae(row, [0.0] * len(row), 0.0, gamma, 1.0) for row in turn_lists(batch, batch.rewards)]


@pytest.mark.parametrize("seed", SEEDS)
def test_property_1_one_segment(seed: int) -> None:
    batch = random_batch(seed)
    only_first = torch.zeros_like(batch.boundaries)
    only_first[:, 0] = True
    batch = batch._replace(boundaries=only_first)
    credit = estimate(batch, gamma=0.9, lambda_turn=0.7, lambda_segment=0.3)
    to_go = estimate(batch, gamma=0.9, lambda_turn=1.0, lambda_segment=0.8)
    returns, low_values = monte_carlo(batch, 0.9), turn_lists(batch, batch.low_values)
    for e, rewards in enumerate(turn_lists(batch, batch.rewards)):
        assert_close(credit.low[e, : len(rewards)], plain_gae(rewards, low_values[e], 0.0, 0.9, 0.7))
        assert_close(credit.high[e, 0], returns[e][0] - float(batch.high_values[e, 0]))
        assert_close(to_go.high[e, 0], credit.high[e, 0])
        assert_close(to_go.low[e, : len(rewards)], [g - v for g, v in zip(returns[e], low_values[e], strict=True)])


@pytest.mark.parametrize("seed", SEEDS)
def test_property_2_a_boundary_in_every_turn(seed: int) -> None:
    batch = random_batch(seed)
    high = torch.randn(batch.rewards.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    batch = batch._replace(boundaries=torch.ones_like(batch.boundaries), high_values=high)
    credit = estimate(batch, gamma=0.9, lambda_turn=0.7, lambda_segment=0.3)
    other = estimate(batch, gamma=0.9, lambda_turn=0.1, lambda_segment=0.3)
    assert torch.equal(credit.low, other.low)
    for e, rewards in enumerate(turn_lists(batch, batch.rewards)):
        values = high[e, : len(rewards)].tolist()
        assert_close(credit.high[e, : len(rewards)], plain_gae(rewards, values, 0.0, 0.9, 0.3))
        low = [r + 0.9 * v for r, v in zip(rewards, [*values[1:], 0.0], strict=True)]
        assert_close(
            credit.low[e, : len(rewards)], torch.tensor(low, dtype=torch.float64) - batch.low_values[e, : len(rewards)]
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_properties_3_and_4_where_targets_agree(seed: int) -> None:
    batch = random_batch(seed)
    exists = turn_mask(batch.lengths, batch.rewards.shape[1])
    credit = estimate(batch, gamma=0.9, lambda_turn=1.0, lambda_segment=0.0)
    wanted = targets(batch, credit)
    assert_close(wanted.low, credit.segment_returns)
    switch_values = torch.full_like(batch.rewards, 0.3)
    switch = return_switch_advantages(credit.segment_returns, switch_values, batch.lengths)
    assert_close(switch[exists], (credit.low + batch.low_values - switch_values)[exists])
    firsts = exists & batch.boundaries
    assert_close(wanted.low[firsts], wanted.high[firsts])


@pytest.mark.parametrize("seed", SEEDS)
def test_property_5_inner_high_values_cancel(seed: int) -> None:
    batch = random_batch(seed)
    wanted = targets(batch, estimate(batch, gamma=0.9, lambda_segment=1.0)).high
    returns = monte_carlo(batch, 0.9)
    for e, n in enumerate(batch.lengths.tolist()):
        firsts = batch.boundaries[e, :n]
        assert_close(wanted[e, :n][firsts], torch.tensor(returns[e], dtype=torch.float64)[firsts])


@pytest.mark.parametrize("seed", SEEDS)
def test_property_6_one_value_and_lambdas_of_one(seed: int) -> None:
    batch = random_batch(seed)
    batch = batch._replace(high_values=batch.low_values)
    credit = estimate(batch, gamma=0.8, lambda_turn=1.0, lambda_segment=1.0)
    for e, rewards in enumerate(turn_lists(batch, batch.rewards)):
        values = batch.low_values[e, : len(rewards)].tolist()
        flat = torch.tensor(plain_gae(rewards, values, 0.0, 0.8, 1.0), dtype=torch.float64)
        firsts = batch.boundaries[e, : len(rewards)]
        assert_close(credit.high[e, : len(rewards)][firsts], flat[firsts])


def test_property_7_locality() -> None:
    def changed(lambda_segment: float) -> tuple[HierarchicalAdvantages, HierarchicalAdvantages]:
        after = golden()
        after.rewards[0, 5] += 1.0
        return tuple(estimate(b, lambda_segment=lambda_segment) for b in (golden(), after))  # type: ignore[return-value]

    for lambda_segment in (0.0, 0.5):
        before, after = changed(lambda_segment)
        assert torch.equal(before.low[:, :5], after.low[:, :5])
        assert torch.equal(before.segment_returns[:, :5], after.segment_returns[:, :5])
        assert torch.equal(before.high[:, :5], after.high[:, :5]) == (lambda_segment == 0.0)
        assert not torch.equal(before.low[:, 5:], after.low[:, 5:])


@pytest.mark.parametrize("seed", SEEDS)
def test_properties_8_and_9_what_is_not_read_and_how_rows_lie(seed: int) -> None:
    """`random_batch` puts NaN into every entry that is not to be read."""
    batch = random_batch(seed, episodes=4)
    credit = estimate(batch, **SETTING_B)
    every = [*credit, *targets(batch, credit), *td_targets(credit, batch.boundaries)]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in every)
    order = torch.tensor([2, 0, 3])
    turns = batch.rewards.shape[1]
    wider = Batch(*(torch.nn.functional.pad(t[order], (0, 5), value=1) if t.ndim == 2 else t[order] for t in batch))
    for ours, other in zip(credit, estimate(wider, **SETTING_B), strict=True):
        assert torch.equal(ours[order], other[:, :turns]) and not other[:, turns:].any()


def test_property_10_whitening() -> None:
    batch = random_batch(2, episodes=6)
    credit, exists = estimate(batch), turn_mask(batch.lengths, batch.rewards.shape[1])
    before = targets(batch, credit)
    for advantages, turns in ((credit.low, exists), (credit.high, exists & batch.boundaries)):
        white = whiten(advantages.masked_fill(~turns, NAN), turns)
        assert_close(white[turns].mean(), 0.0, 1e-6)
        assert_close(white[turns].std(correction=0), 1.0, 1e-6)
        assert not white[~turns].any()
    for ours, other in zip(before, targets(batch, credit), strict=True):
        assert torch.equal(ours, other)
    alone = torch.zeros(3, dtype=torch.bool)
    assert not whiten(torch.tensor([5.0, 6.0, 7.0]), alone).any()
    alone[1] = True
    assert not whiten(torch.tensor([5.0, 6.0, 7.0]), alone).any()


def test_whitening_over_processes_is_whitening_of_the_union() -> None:
    values = torch.randn(7, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([True, True, False, True, True, True, False])
    parts, sums, found = [slice(0, 3), slice(3, 7)], [torch.empty(0)] * 2, [torch.empty(0)] * 2
    barrier = threading.Barrier(2)

    def work(rank: int) -> None:
        def reduce(tensor: Tensor) -> Tensor:
            sums[rank] = tensor
            barrier.wait()
            total = sums[0] + sums[1]
            barrier.wait()
            return total

        found[rank] = whiten(values[parts[rank]], mask[parts[rank]], reduce=reduce)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(torch.cat(found), whiten(values, mask))


# -- penalties and tokens ----------------------------------------------------------------------------------------------


def test_keep_penalty_by_turn_and_by_episode() -> None:
    """hiper.md 2.6: n_counted is T, or T - 1 with the first turn exempt; episodes of one turn are skipped."""
    rewards, lengths = torch.zeros(3, 4), torch.tensor([4, 1, 2])
    kept = torch.tensor([[True, True, False, True], [True, True, True, True], [False, False, True, True]])

    def shaped(**options: Any) -> list[list[float]]:
        penalties = PlanPenalties(keep=-0.6, **options)
        return [[round(x, 6) for x in row] for row in shape_rewards(rewards, lengths, penalties, kept=kept).tolist()]

    nothing = [0.0] * 4
    assert shaped() == [[0, -0.6, 0, -0.6], nothing, nothing]
    assert shaped(keep_skip_first=False) == [[-0.6, -0.6, 0, -0.6], [-0.6, 0, 0, 0], nothing]
    assert shaped(keep_mode="normalized") == [[0, -0.2, 0, -0.2], nothing, nothing]
    assert shaped(keep_mode="normalized", keep_skip_first=False) == [[-0.15, -0.15, 0, -0.15], nothing, nothing]


def test_invalid_and_rewritten_penalties() -> None:
    rewards, lengths = torch.ones(1, 4), torch.tensor([3])
    kept, rewritten = torch.tensor([[True, True, False, True]]), torch.tensor([[True] * 4])
    valid = torch.tensor([[False, True, False, False]])
    penalties = PlanPenalties(rewritten=-0.25, invalid=0.5)
    shaped = shape_rewards(rewards, lengths, penalties, kept=kept, valid=valid, rewritten=rewritten)
    assert shaped.tolist() == [[0.5, 0.75, 0.5, 1.0]]
    assert torch.equal(shape_rewards(rewards, lengths, PlanPenalties()), rewards)


def test_tokens_of_a_stream_outside_what_was_sampled_are_not_learned() -> None:
    masks = {"a": torch.tensor([[True, True, False]]), "b": torch.tensor([[False, False, True]])}
    sampled = torch.tensor([[False, True, True]])
    advantages, loss_mask = stream_advantages({"a": torch.tensor([1.0]), "b": torch.tensor([2.0])}, masks, sampled)
    assert advantages.tolist() == [[0.0, 1.0, 2.0]] and loss_mask.tolist() == [[False, True, True]]


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused() -> None:
    batch = golden()
    with pytest.raises(ValueError, match=r"boundaries\[0, 0\] is False; the first turn .* always begins a segment"):
        estimate(batch._replace(boundaries=~batch.boundaries))
    with pytest.raises(ValueError, match="lambda_segment is 1.5; it lies between 0 and 1"):
        estimate(batch, lambda_segment=1.5)
    with pytest.raises(ValueError, match=r"lengths \(2,\); wanted \(episodes, turns\) four times"):
        estimate(batch._replace(lengths=torch.tensor([3, 3])))
    with pytest.raises(ValueError, match=r"lengths has \[7\]; every length lies between 0 and the 6 padded turns"):
        estimate(batch._replace(lengths=torch.tensor([7])))
    with pytest.raises(ValueError, match="keep is 0.3, .* the first two are added to rewards and at most 0"):
        PlanPenalties(keep=0.3)
    with pytest.raises(ValueError, match="keep_mode is 'mean'; use 'fixed' or 'normalized'"):
        PlanPenalties(keep_mode="mean")
    with pytest.raises(ValueError, match="a penalty needs valid, which is None"):
        shape_rewards(batch.rewards, batch.lengths, PlanPenalties(invalid=0.1))
    both = torch.tensor([[True, True]])
    with pytest.raises(ValueError, match="token 0 of row 0 is in the stream 'b' and in another"):
        stream_advantages({"a": torch.ones(1), "b": torch.ones(1)}, {"a": both, "b": both}, both)
