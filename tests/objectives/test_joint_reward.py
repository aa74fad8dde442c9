"""The joint reward and its weights: golden values of gopo.md 11, property 11 of its section 12, resuming."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.objectives.advantages import leave_one_out_advantages
from lit_rl.objectives.joint_reward import (
    AnnealedWeights,
    FixedWeights,
    GapWeights,
    WeightSchedule,
    joint_reward,
    part_sums,
)

NAN = math.nan


def parts(*rows: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def sums(*means: float) -> Tensor:
    return part_sums(parts(means))


def test_value_of_section_11() -> None:
    found = joint_reward(parts((0.85, 0.97212, 0.8)), (0.5, 0.3, 0.2))
    assert found.item() == pytest.approx(0.876636, abs=1e-9)


def test_advantages_of_section_11() -> None:
    found = leave_one_out_advantages(torch.tensor([0.85, 0.85, 0.4, 0.1]), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(found, torch.tensor([0.4, 0.4, -0.2, -0.6]))


def test_undefined_parts_give_their_weight_to_the_others() -> None:
    rows = parts((0.5, NAN, 1.0), (0.5, 0.5, 1.0), (NAN, NAN, 0.25))
    found = joint_reward(rows, (0.5, 0.3, 0.2)).tolist()
    assert found == pytest.approx([(0.25 + 0.2) / 0.7, 0.6, 0.25])


def test_violations() -> None:
    rows, weights = parts((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), (0.5, 0.3, 0.2)
    broken, turns = torch.tensor([0, 3, 0]), torch.tensor([5, 6, 0])
    by_turn = joint_reward(rows, weights, violations=broken, turns=turns, violation_coef=0.1)
    assert by_turn.tolist() == pytest.approx([1.0, 0.95, 0.0])
    each = joint_reward(rows, weights, violations=broken, violation_coef=0.1, divide_by_turns=False)
    assert each.tolist() == pytest.approx([1.0, 0.7, 0.0])
    assert joint_reward(rows, weights, violations=broken, turns=turns).tolist() == pytest.approx([1.0, 1.0, 0.0])


def test_it_keeps_dtype_and_no_gradient() -> None:
    rows = torch.rand(4, 3, requires_grad=True)
    found = joint_reward(rows, (0.5, 0.3, 0.2))
    assert found.dtype == torch.float32 and not found.requires_grad


def test_annealed_weights_of_section_11() -> None:
    schedule = AnnealedWeights(steps=4)
    found = []
    for _ in range(7):
        found.append(schedule.weights())
        schedule.observe(sums(1.0, 1.0, 1.0))
    for step, expected in ((0, (0.4, 0.4, 0.2)), (2, (0.55, 0.25, 0.2)), (4, (0.7, 0.1, 0.2)), (6, (0.7, 0.1, 0.2))):
        assert found[step] == pytest.approx(expected, abs=1e-9)


def test_gap_weights_of_section_11() -> None:
    schedule = GapWeights((0.5, 0.3, 0.2))
    schedule.averages = [0.6, 0.9, 0.5]
    assert schedule.weights() == pytest.approx((0.606061, 0.090909, 0.303030), abs=1e-6)


def test_gap_weights_follow_the_means() -> None:
    schedule = GapWeights((0.5, 0.3, 0.2), decay=0.5)
    assert schedule.weights() == pytest.approx((0.5, 0.3, 0.2))
    schedule.observe(part_sums(parts((0.2, NAN, 1.0), (0.6, NAN, 1.0))))
    assert schedule.averages == pytest.approx([0.2, 0.0, 0.5])
    schedule.observe(part_sums(parts((0.4, 0.8, 1.0))))
    assert schedule.averages == pytest.approx([0.3, 0.4, 0.75])


def test_the_floor_of_gap_weights() -> None:
    schedule = GapWeights((0.5, 0.3, 0.2), decay=0.0, floor=0.05)
    schedule.observe(sums(0.0, 1.0, 0.0))
    assert schedule.weights() == pytest.approx((0.5 / 0.7 / 1.05, 0.05 / 1.05, 0.2 / 0.7 / 1.05))
    schedule.observe(sums(1.0, 1.0, 1.0))
    assert schedule.weights() == pytest.approx((0.5, 0.3, 0.2))  # nothing is missing anywhere
    free = GapWeights((0.5, 0.3, 0.2), decay=0.0, floor=0.0)
    free.observe(sums(0.0, 1.0, 0.0))
    assert free.weights()[1] == 0.0


def test_part_sums_add_up_and_skip_what_is_undefined() -> None:
    rows = parts((0.2, NAN, 0.0), (0.6, 0.5, 0.0))
    torch.testing.assert_close(part_sums(rows), parts((0.8, 0.5, 0.0), (2, 1, 2)))
    torch.testing.assert_close(part_sums(rows), part_sums(rows[:1]) + part_sums(rows[1:]))


SCHEDULES: list[Callable[[], WeightSchedule]] = [
    FixedWeights,
    lambda: AnnealedWeights(steps=3),
    lambda: GapWeights(decay=0.7),
]
PART = st.one_of(st.just(NAN), st.floats(0, 1))


@pytest.mark.parametrize("make", SCHEDULES)
@settings(max_examples=20)
@given(batches=st.lists(st.lists(st.tuples(st.floats(0, 1), PART, PART), min_size=1, max_size=3), max_size=6))
def test_weights_sum_to_one_and_runs_resume(
    make: Callable[[], WeightSchedule], batches: list[list[tuple[float, float, float]]]
) -> None:
    """Section 12 (11): they always sum to 1; and a run that stops anywhere goes on with the same ones."""
    schedule, resumed = make(), make()
    assert isinstance(schedule, WeightSchedule)
    for rows in batches:
        found = schedule.weights()
        assert math.fsum(found) == pytest.approx(1.0) and min(found) > 0
        rewards = joint_reward(parts(*rows, *rows), found)
        assert torch.equal(rewards[: len(rows)], rewards[len(rows) :])  # the same for the same dialogue of a group
        schedule.observe(part_sums(parts(*rows)))
        resumed.load_state_dict(schedule.state_dict())
        assert resumed.weights() == schedule.weights()


@pytest.mark.parametrize("make", SCHEDULES)
def test_a_saved_state_is_not_the_living_one(make: Callable[[], WeightSchedule]) -> None:
    schedule, resumed = make(), make()
    saved = schedule.state_dict()
    before = copy.deepcopy(saved)
    schedule.observe(sums(0.5, 0.5, 0.5))
    assert saved == before
    resumed.load_state_dict(saved)
    resumed.observe(sums(0.5, 0.5, 0.5))
    assert saved == before and resumed.state_dict() == schedule.state_dict()


def test_bad_input() -> None:
    rows, weights = parts((0.5, NAN, 0.5)), (0.5, 0.3, 0.2)

    def refused(message: str, act: Callable[[], object]) -> None:
        with pytest.raises(ValueError, match=message):
            act()

    refused(r"parts has the shape \(3,\); wanted \(dialogues, 3\)", lambda: joint_reward(rows[0], weights))
    refused(r"joint_reward got the weights \(0.5, 0.5\); give those of tse", lambda: joint_reward(rows, (0.5, 0.5)))
    refused(r"dialogue 0 has the parts .* and the weights \(0, 1, 0\)", lambda: joint_reward(rows, (0, 1, 0)))
    refused(r"violations is missing; give one per", lambda: joint_reward(rows, weights, violation_coef=0.1))
    zero = torch.zeros(1)
    refused(r"turns is missing; give one per", lambda: joint_reward(rows, weights, violations=zero, violation_coef=0.1))
    refused(
        r"violations has the shape \(2,\)",
        lambda: joint_reward(rows, weights, violations=torch.zeros(2), turns=zero, violation_coef=0.1),
    )
    refused(
        r"violation_coef is -1; it must be finite and at least 0",
        lambda: joint_reward(rows, weights, violations=zero, turns=zero, violation_coef=-1),
    )
    refused(r"FixedWeights got the weights \(0.5, 0.3, 0.3\)", lambda: FixedWeights(gre=0.3))
    refused(r"AnnealedWeights.steps is 0; it must be at least 1", lambda: AnnealedWeights(0))
    refused(r"AnnealedWeights.end got the weights \(1, 1, -1\)", lambda: AnnealedWeights(1, end=(1, 1, -1)))
    refused(r"AnnealedWeights.start got the weights \(1,\)", lambda: AnnealedWeights(1, start=(1,)))
    refused(r"GapWeights.start got the weights \(0, 0, 0\)", lambda: GapWeights((0, 0, 0)))
    refused(r"GapWeights has decay 1.0 and floor 0.05", lambda: GapWeights(decay=1.0))
    refused(r"GapWeights has decay 0.9 and floor 0.5; .* in \[0, 1/3\)", lambda: GapWeights(floor=0.5))
    refused(r"the mean of esndcg is 2.0; all parts must lie in \[0, 1\]", lambda: GapWeights().observe(sums(0, 2, 0)))
