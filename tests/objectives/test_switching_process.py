"""Estimators against exact gradients, by enumeration (hiper.md 11 and properties 14 and 15 of its section 12)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from scripts.reproduce.switching_process import (
    BLOCKS,
    Credit,
    SwitchingProcess,
    Values,
    enumerated,
    exact_gradient,
    exact_values,
    flat_credit,
    gradient_estimates,
    hierarchical_credit,
    moments,
    path_rewards,
    simulated,
)
from scripts.reproduce.switching_tables import (
    GROUP_ESTIMATORS,
    expected_in_groups,
    group_bias_table,
    off_direction,
    text,
    variance_table,
)

GRADIENTS = {
    1.0: [0.008316, -0.006583, 0.013538, -0.033331, 0.070334, 0.052586, 0.075699, 0.099201, -0.140197, -0.141544],
    0.9: [0.006961, -0.005502, 0.011432, -0.028352, 0.063148, 0.044579, 0.069580, 0.090609, -0.119417, -0.121153],
}
OBJECTIVES = {1.0: 0.78779134, 0.9: 0.69856434}
SWITCHES = ("return", "gain", "critic")
LAMBDAS = [(low, high) for low in (0.0, 0.5, 0.95, 1.0) for high in (0.0, 0.5, 0.95, 1.0)]


def of(process: SwitchingProcess, credit: Any, values: Values | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    """Exact mean and variance of a kind of credit."""
    paths, probability = enumerated(process)
    found = credit(process, paths, values or exact_values(process), **options)
    return moments(gradient_estimates(process, paths, found), probability)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_the_process_itself(gamma: float) -> None:
    process = SwitchingProcess.specified(gamma)
    objective, gradient = exact_gradient(process)
    assert float(objective) == pytest.approx(OBJECTIVES[gamma], abs=5e-9)
    torch.testing.assert_close(gradient, torch.tensor(GRADIENTS[gamma], dtype=torch.float64), atol=5e-7, rtol=0)
    paths, probability = enumerated(process)
    assert len(probability) == 576 and float(probability.sum()) == pytest.approx(1.0, abs=1e-12)
    discounts = gamma ** torch.arange(3, dtype=torch.float64)
    returns = (process.reward[paths.states, paths.actions] * discounts).sum(1)
    assert float(probability @ returns) == pytest.approx(float(objective), abs=1e-12)
    if gamma == 1.0:
        wanted = torch.tensor([0.475730, 0.696804], dtype=torch.float64)
        torch.testing.assert_close(exact_values(process).high[1], wanted, atol=5e-7, rtol=0)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("switch", SWITCHES)
def test_hierarchical_credit_is_unbiased_with_exact_values(gamma: float, switch: str) -> None:
    process = SwitchingProcess.specified(gamma)
    gradient = exact_gradient(process)[1]
    for low, high in LAMBDAS:
        mean, _ = of(process, hierarchical_credit, switch=switch, lambda_turn=low, lambda_segment=high)
        torch.testing.assert_close(mean, gradient, atol=1e-12, rtol=0, msg=f"lambdas {low}, {high}")


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_flat_credit_is_unbiased_with_exact_values(gamma: float) -> None:
    process = SwitchingProcess.specified(gamma)
    for gae_lambda in (0.0, 0.5, 0.95, 1.0):
        mean, _ = of(process, flat_credit, gae_lambda=gae_lambda)
        torch.testing.assert_close(mean, exact_gradient(process)[1], atol=1e-12, rtol=0)


def wrong(head: str) -> Values:
    values = exact_values(SwitchingProcess.specified())
    right = getattr(values, head)
    noise = torch.randn(right.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return values._replace(**{head: right + noise})


# The head that is wrong -> for each block, under which lambdas (turn, segment) it is biased.
BIASED = {
    "low": {"switch": lambda low, high: False, "subgoal": lambda low, high: False, "action": lambda low, high: low < 1},
    "switch": dict.fromkeys(BLOCKS, lambda low, high: False),
    "high": {"switch": lambda low, high: True, "subgoal": lambda low, high: high < 1, "action": lambda low, high: True},
}


@pytest.mark.parametrize("head", list(BIASED))
def test_which_wrong_values_bias_what(head: str) -> None:
    """The table of wrong critics of hiper.md 11."""
    process = SwitchingProcess.specified()
    gradient, values = exact_gradient(process)[1], wrong(head)
    for low, high in LAMBDAS:
        mean, _ = of(process, hierarchical_credit, values, lambda_turn=low, lambda_segment=high)
        for block, places in BLOCKS.items():
            error = float((mean - gradient)[places].abs().max())
            biased = BIASED[head][block](low, high)
            assert error > 1e-3 if biased else error < 1e-12, (head, block, low, high, error)


def test_wrong_values_never_bias_a_flat_estimate_without_bootstrapping() -> None:
    process = SwitchingProcess.specified()
    gradient = exact_gradient(process)[1]
    torch.testing.assert_close(of(process, flat_credit, wrong("switch"))[0], gradient, atol=1e-12, rtol=0)
    assert float((of(process, flat_credit, wrong("switch"), gae_lambda=0.5)[0] - gradient).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("gamma", "flat", "returns", "gain"),
    [
        (1.0, [0.557214, 0.520014, 0.317662, 0.260852], [0.470471, 0.460841, 0.371611, 0.344090],
         [0.354096, 0.344466, 0.255236, 0.227714]),
        (0.9, [0.400255, 0.374676, 0.234043, 0.193675], [0.341881, 0.335182, 0.272463, 0.252828],
         [0.259287, 0.252588, 0.189869, 0.170234]),
    ],
)  # fmt: skip
def test_variance_table(gamma: float, flat: list[float], returns: list[float], gain: list[float]) -> None:
    found = variance_table(SwitchingProcess.specified(gamma))
    rows = {"flat GAE": flat, 'HAE, "return"': returns, 'HAE, "gain"': gain, 'HAE, "critic"': gain}
    assert found.keys() == rows.keys()
    for name, row in rows.items():
        assert found[name] == pytest.approx(row, abs=1e-5), name
    assert text(found, ["a", "b", "c", "d"]).splitlines()[2].startswith(f"| flat GAE | {flat[0]:.6f} |")


def test_variance_by_block() -> None:
    process = SwitchingProcess.specified()

    def blocks(*args: Any, **options: Any) -> list[float]:
        variance = of(process, *args, **options)[1]
        return [float(variance[places].sum()) for places in BLOCKS.values()]

    assert blocks(hierarchical_credit) == pytest.approx([0.118768, 0.187780, 0.163923], abs=1e-5)
    assert blocks(hierarchical_credit, switch="gain")[0] == pytest.approx(0.002392, abs=1e-5)
    assert blocks(flat_credit) == pytest.approx([0.141740, 0.187196, 0.228278], abs=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_without_bootstrapping_variance_is_below_flat(seed: int) -> None:
    """What hiper.md 11 calls assertable, on fixed instances; nothing is claimed at equal lambdas below 1."""
    process = SwitchingProcess.random(seed)
    flat = float(of(process, flat_credit)[1].sum())
    for options in ({}, {"lambda_segment": 0.95}, {"switch": "gain"}, {"switch": "critic"}):
        assert float(of(process, hierarchical_credit, **options)[1].sum()) < flat


def conditional_variance(advantages: Tensor, chosen: Tensor, probability: Tensor) -> float:
    weights = probability[chosen] / probability[chosen].sum()
    mean = weights @ advantages[chosen]
    return float(weights @ (advantages[chosen] - mean).square())


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_an_action_s_advantage_varies_less_than_the_flat_one(seed: int | None) -> None:
    """hiper.md 11, law of total variance: given turn, state, subgoal and action."""
    process = SwitchingProcess.specified() if seed is None else SwitchingProcess.random(seed)
    paths, probability = enumerated(process)
    values = exact_values(process)
    ours = hierarchical_credit(process, paths, values).action
    flat = flat_credit(process, paths, values).action
    for turn in range(3):
        for s, o, a in torch.cartesian_prod(*[torch.tensor([0, 1])] * 3).tolist():
            here = (paths.states[:, turn] == s) & (paths.subgoals[:, turn] == o) & (paths.actions[:, turn] == a)
            if not here.any():
                continue  # the first state is always 0
            less, more = (conditional_variance(x[:, turn], here, probability) for x in (ours, flat))
            assert less <= more + 1e-12
            if seed is None and (turn, s, o, a) == (0, 0, 0, 0):
                assert [less, more] == pytest.approx([0.071694, 0.305800], abs=1e-6)


def test_property_15_switch_estimators_agree() -> None:
    """In expectation all three, by trajectory "gain" and "critic"."""
    process = SwitchingProcess.random(5)
    paths, probability = enumerated(process)
    values = exact_values(process)
    found = {name: hierarchical_credit(process, paths, values, switch=name) for name in SWITCHES}
    torch.testing.assert_close(found["gain"].switch, found["critic"].switch, atol=1e-12, rtol=0)
    means = [moments(gradient_estimates(process, paths, credit), probability)[0] for credit in found.values()]
    torch.testing.assert_close(means[0], means[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("switch", SWITCHES)
def test_property_14_simulated(switch: str) -> None:
    process = SwitchingProcess.specified()
    paths = simulated(process, 20000, seed=0)
    credit = hierarchical_credit(process, paths, exact_values(process), switch=switch, lambda_segment=0.95)
    estimates = gradient_estimates(process, paths, credit)
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - exact_gradient(process)[1]).abs() < 4 * error).all()


# -- group-relative credit ---------------------------------------------------------------------------------------------

UNBIASED = "episodes, leave one out"
CENTRED = ("episodes, centred", "turns, centred")  # the gradient times (n - 1) / n: a member is in its own baseline


def test_what_the_bias_of_group_estimators_is_measured_with() -> None:
    process = SwitchingProcess.specified()
    gradient = exact_gradient(process)[1]
    for size in (2, 3):
        left_out = expected_in_groups(process, GROUP_ESTIMATORS[UNBIASED], size)
        torch.testing.assert_close(left_out, gradient, atol=1e-12, rtol=0)
        for name in CENTRED:
            centred = expected_in_groups(process, GROUP_ESTIMATORS[name], size)
            torch.testing.assert_close(centred, gradient * (size - 1) / size, atol=1e-12, rtol=0)
    assert off_direction(gradient / 2, gradient) == pytest.approx((0.5, 0.0), abs=1e-7)


@pytest.mark.parametrize("name", list(GROUP_ESTIMATORS))
def test_expectations_over_groups_are_those_of_simulated_groups(name: str) -> None:
    process = SwitchingProcess.specified(0.9)
    paths = simulated(process, 3 * 10000, seed=1)
    group_ids = torch.arange(10000).repeat_interleave(3)
    found = GROUP_ESTIMATORS[name](path_rewards(process, paths), group_ids, paths.states, process.gamma)
    by_group = gradient_estimates(process, paths, Credit(found, found, found)).view(10000, 3, 10).mean(1)
    error = by_group.std(0) / 100
    assert ((by_group.mean(0) - expected_in_groups(process, GROUP_ESTIMATORS[name], 3)).abs() < 4.5 * error).all()


def test_standardised_and_state_groups_point_elsewhere() -> None:
    """Measured, for the table of the script: what is biased beyond its length."""
    rows = group_bias_table(SwitchingProcess.specified(), sizes=(2,))
    assert rows.keys() == GROUP_ESTIMATORS.keys()
    for name, (_, elsewhere) in rows.items():
        assert elsewhere < 1e-6 if name in (UNBIASED, *CENTRED) else elsewhere > 0.01, name


def test_no_credit_no_gradient() -> None:
    process = SwitchingProcess.specified()
    paths, _ = enumerated(process)
    nothing = torch.zeros(576, 3, dtype=torch.float64)
    assert not gradient_estimates(process, paths, Credit(nothing, nothing, nothing)).any()
