"""Estimators of credit against the exact gradient of a small decision process.

    python scripts/reproduce/switching_tables.py

prints the variance of hierarchical and of flat estimates, both with exact values, and the bias of group-relative ones.
Nothing is sampled.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lit_rl.objectives.advantages import group_advantages, leave_one_out_advantages, turn_advantages
from lit_rl.objectives.returns import trajectory_returns, turn_returns
from lit_rl.objectives.step_groups import group_in_group_advantages, step_group_advantages
from scripts.reproduce.switching_process import (
    TURNS,
    Credit,
    SwitchingProcess,
    enumerated,
    exact_gradient,
    exact_values,
    flat_credit,
    gradient_estimates,
    hierarchical_credit,
    moments,
    path_rewards,
)

GroupEstimator = Callable[[Tensor, Tensor, Tensor, float], Tensor]  # rewards, groups (E,), states, gamma -> (E, TURNS)


def _every_turn(advantages: Tensor) -> Tensor:
    return advantages[:, None].expand(-1, TURNS)


def _all(rewards: Tensor) -> Tensor:
    return torch.ones_like(rewards, dtype=torch.bool)


GROUP_ESTIMATORS: dict[str, GroupEstimator] = {
    "episodes, leave one out": lambda rewards, groups, states, gamma: _every_turn(
        leave_one_out_advantages(trajectory_returns(rewards, gamma=gamma), groups)
    ),
    "episodes, centred": lambda rewards, groups, states, gamma: _every_turn(
        group_advantages(trajectory_returns(rewards, gamma=gamma), groups, scale_by_std=False)
    ),
    "episodes, standardised (GRPO)": lambda rewards, groups, states, gamma: _every_turn(
        group_advantages(trajectory_returns(rewards, gamma=gamma), groups, ddof=1, epsilon=1e-6)
    ),
    "turns, centred": lambda rewards, groups, states, gamma: turn_advantages(
        turn_returns(rewards, gamma=gamma), _all(rewards), groups, normalization="center"
    ),
    "turns, standardised": lambda rewards, groups, states, gamma: turn_advantages(
        turn_returns(rewards, gamma=gamma), _all(rewards), groups, ddof=1, epsilon=1e-6
    ),
    "states, centred": lambda rewards, groups, states, gamma: step_group_advantages(
        turn_returns(rewards, gamma=gamma), _all(rewards), groups, states, scale_by_std=False
    ),
    "episodes + states, centred (GiGPO)": lambda rewards, groups, states, gamma: group_in_group_advantages(
        rewards, _all(rewards), groups, states, gamma=gamma, scale_by_std=False
    ),
    "episodes + states, standardised (GiGPO)": lambda rewards, groups, states, gamma: group_in_group_advantages(
        rewards, _all(rewards), groups, states, gamma=gamma
    ),
}


def expected_in_groups(process: SwitchingProcess, estimator: GroupEstimator, size: int) -> Tensor:
    """The expected estimate of one member of a group of ``size``, exactly: over all others it may meet; ``(10,)``."""
    paths, probability = enumerated(process)
    # An advantage depends on states and actions alone: 32 kinds of trajectories.
    _, kind, counts = torch.unique(
        torch.cat([paths.states, paths.actions], 1), dim=0, return_inverse=True, return_counts=True
    )
    chances = torch.zeros(len(counts), dtype=torch.float64).index_add(0, kind, probability)
    example = torch.zeros(len(counts), dtype=torch.int64).index_copy(0, kind, torch.arange(len(kind)))
    others = torch.combinations(torch.arange(len(counts)), size - 1, with_replacement=True)
    weights = chances[others].prod(1) * _orders(others)
    first = torch.arange(len(counts)).repeat_interleave(len(others))
    members = torch.cat([first[:, None], others.repeat(len(counts), 1)], 1).flatten()
    groups = torch.arange(len(first)).repeat_interleave(size)
    rewards, states = path_rewards(process, paths)[example][members], paths.states[example][members]
    of_first = estimator(rewards, groups, states, process.gamma)[::size].view(len(counts), len(others), TURNS)
    averaged = (of_first * weights[None, :, None]).sum(1)[kind]
    return probability @ gradient_estimates(process, paths, Credit(averaged, averaged, averaged))


def _orders(combinations: Tensor) -> Tensor:
    """In how many orders each row of a sorted ``(K, n)`` may come, float64 ``(K,)``: ``n! / (repeats! ...)``."""
    orders, repeats = torch.ones(len(combinations), dtype=torch.float64), torch.ones(len(combinations))
    for place in range(1, combinations.shape[1]):
        same = combinations[:, place] == combinations[:, place - 1]
        repeats = torch.where(same, repeats + 1, 1.0)
        orders = orders * (place + 1) / repeats
    return orders


def off_direction(mean: Tensor, gradient: Tensor) -> tuple[float, float]:
    """Length over that of the gradient, and the share of it that points elsewhere (sine of the angle between)."""
    cosine = torch.cosine_similarity(mean, gradient, dim=0).clamp(-1, 1)
    return float(mean.norm() / gradient.norm()), float((1 - cosine**2).sqrt())


# -- tables ------------------------------------------------------------------------------------------------------------

LAMBDAS = ((1.0, 1.0), (1.0, 0.95), (0.5, 0.5), (0.0, 0.0))


def variance_table(process: SwitchingProcess) -> dict[str, list[float]]:
    """Total variance with exact values: rows of estimators, a column for each of ``LAMBDAS``."""
    paths, probability = enumerated(process)
    values = exact_values(process)

    def total(credit: Credit) -> float:
        return float(moments(gradient_estimates(process, paths, credit), probability)[1].sum())

    rows = {"flat GAE": [total(flat_credit(process, paths, values, gae_lambda=high)) for _, high in LAMBDAS]}
    for switch in ("return", "gain", "critic"):
        rows[f'HAE, "{switch}"'] = [
            total(hierarchical_credit(process, paths, values, switch=switch, lambda_turn=low, lambda_segment=high))
            for low, high in LAMBDAS
        ]
    return rows


def group_bias_table(process: SwitchingProcess, sizes: Sequence[int] = (2, 4)) -> dict[str, list[float]]:
    """`off_direction` of each group estimator, two columns for each size of the group."""
    gradient = exact_gradient(process)[1]
    return {
        name: [x for size in sizes for x in off_direction(expected_in_groups(process, estimator, size), gradient)]
        for name, estimator in GROUP_ESTIMATORS.items()
    }


def text(rows: Mapping[str, Sequence[float]], columns: Sequence[str]) -> str:
    """A table of Markdown."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{value:.6f}" for value in row) + " |" for name, row in rows.items()]
    return "\n".join(lines)


def main() -> None:
    for gamma in (1.0, 0.9):
        print(f"\nVariance of the gradient estimate, gamma = {gamma}\n")
        columns = [f"{low:g} / {high:g}" for low, high in LAMBDAS]
        print(text(variance_table(SwitchingProcess.specified(gamma)), columns))
    print("\nGroup estimators, gamma = 1: length against the gradient's, and share that points elsewhere\n")
    columns = ["length, of 2", "elsewhere, of 2", "length, of 4", "elsewhere, of 4"]
    print(text(group_bias_table(SwitchingProcess.specified()), columns))


if __name__ == "__main__":
    main()
