"""A decision process small enough to enumerate, to hold estimators of credit against exact gradients.

Two states, two subgoals, two actions, three turns: the smallest process of the kind that HiPER (arXiv 2602.16165) is
about.  In every turn but the first a policy keeps its subgoal or switches, which chooses one anew, then acts.  All 576
trajectories are enumerated, so that the expectation and the variance of a gradient estimate come out exactly.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from lit_rl.objectives.gae import gae
from lit_rl.objectives.hierarchical import hierarchical_advantages
from lit_rl.objectives.switch_advantages import (
    critic_switch_advantages,
    gain_switch_advantages,
    return_switch_advantages,
)

TURNS = 3
BLOCKS = {"switch": slice(0, 4), "subgoal": slice(4, 6), "action": slice(6, 10)}  # of the ten parameters


@dataclass(frozen=True, kw_only=True)
class SwitchingProcess:
    """The environment and, in ``parameters``, the logits of its policy; float64 throughout."""

    transition: Tensor  # (2, 2): P(s' = 1 | s, a)
    reward: Tensor  # (2, 2): of s, a
    parameters: Tensor  # (10,): switch[s, o before], subgoal 1 [s], action 1 [s, o]
    gamma: float = 1.0

    @classmethod
    def specified(cls, gamma: float = 1.0) -> "SwitchingProcess":
        """The instance that the tables are of."""
        return cls(
            transition=torch.tensor([[0.2, 0.7], [0.4, 0.9]], dtype=torch.float64),
            reward=torch.tensor([[0.0, 0.3], [1.0, -0.2]], dtype=torch.float64),
            parameters=torch.tensor([0.2, -0.5, 0.7, 0.1, 0.3, -0.4, -0.2, 0.8, 0.5, -0.6], dtype=torch.float64),
            gamma=gamma,
        )

    @classmethod
    def random(cls, seed: int) -> "SwitchingProcess":
        """Another instance."""
        generator = torch.Generator().manual_seed(seed)
        return cls(
            transition=torch.rand(2, 2, generator=generator, dtype=torch.float64),
            reward=torch.randn(2, 2, generator=generator, dtype=torch.float64),
            parameters=torch.randn(10, generator=generator, dtype=torch.float64),
        )

    def probabilities(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of switching ``(s, o)``, of subgoal 1 ``(s,)`` and of action 1 ``(s, o)``."""
        switch, subgoal, action = (self.parameters[block].sigmoid() for block in BLOCKS.values())
        return switch.view(2, 2), subgoal, action.view(2, 2)


class Values(NamedTuple):
    """Of each turn."""

    low: Tensor  # (TURNS, s, o)
    high: Tensor  # (TURNS, s)
    switch: Tensor  # (TURNS, s, o before)


def exact_values(process: SwitchingProcess) -> Values:
    """Backwards from the last turn; carries the gradient of ``parameters``."""
    switch, subgoal, action = process.probabilities()
    next_state = torch.stack([1 - process.transition, process.transition], -1)  # (s, a, s')
    after = torch.zeros(2, 2, dtype=torch.float64)  # V_switch of the next turn
    found = []
    for _ in range(TURNS):
        by_action = process.reward[:, None] + process.gamma * torch.einsum("sat,to->soa", next_state, after)
        low = (1 - action) * by_action[..., 0] + action * by_action[..., 1]
        high = (1 - subgoal) * low[:, 0] + subgoal * low[:, 1]
        after = switch * high[:, None] + (1 - switch) * low
        found.append((low, high, after))
    return Values(*(torch.stack(level[::-1]) for level in zip(*found, strict=True)))


def exact_gradient(process: SwitchingProcess) -> tuple[Tensor, Tensor]:
    """The objective and its gradient, ``()`` and ``(10,)``."""
    parameters = process.parameters.clone().requires_grad_()
    objective = exact_values(replace(process, parameters=parameters)).high[0, 0]
    (gradient,) = torch.autograd.grad(objective, parameters)
    return objective.detach(), gradient


class Trajectories(NamedTuple):
    """``M`` of them, int64 ``(M, TURNS)`` each; the first switch is forced, ``before`` there is 0 and never counts."""

    states: Tensor
    before: Tensor  # subgoal of the turn before
    switches: Tensor
    subgoals: Tensor
    actions: Tensor


def enumerated(process: SwitchingProcess) -> tuple[Trajectories, Tensor]:
    """All trajectories and their probabilities, float64 ``(M,)``."""
    bits = torch.cartesian_prod(*[torch.tensor([0, 1])] * 10)
    states = torch.cat([torch.zeros_like(bits[:, :1]), bits[:, 0:2]], 1)
    switches = torch.cat([torch.ones_like(bits[:, :1]), bits[:, 2:4]], 1)
    subgoals, actions = bits[:, 4:7], bits[:, 7:10]
    before = torch.cat([torch.zeros_like(bits[:, :1]), subgoals[:, :-1]], 1)
    possible = ((switches == 1) | (subgoals == before)).all(1)
    paths = Trajectories(*(t[possible] for t in (states, before, switches, subgoals, actions)))
    p_switch, p_subgoal, p_action = _chosen(process, paths)
    moved = process.transition[paths.states[:, :-1], paths.actions[:, :-1]]
    moved = torch.where(paths.states[:, 1:] == 1, moved, 1 - moved)
    return paths, moved.prod(1) * p_switch.prod(1) * p_subgoal.prod(1) * p_action.prod(1)


def simulated(process: SwitchingProcess, count: int, seed: int) -> Trajectories:
    """``count`` trajectories, sampled turn by turn."""
    generator = torch.Generator().manual_seed(seed)
    switch, subgoal, action = process.probabilities()

    def flip(probability: Tensor) -> Tensor:
        return (torch.rand(count, generator=generator, dtype=torch.float64) < probability).long()

    state, held = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    turns = []
    for turn in range(TURNS):
        before, decided = held, flip(switch[state, held]) if turn else torch.ones_like(held)
        held = torch.where(decided == 1, flip(subgoal[state]), held)
        acted = flip(action[state, held])
        turns.append((state, before, decided, held, acted))
        state = flip(process.transition[state, acted])
    return Trajectories(*(torch.stack(column, 1) for column in zip(*turns, strict=True)))


def _chosen(process: SwitchingProcess, paths: Trajectories) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities of what was decided, float64 ``(M, TURNS)``; 1 where nothing was."""
    switch, subgoal, action = process.probabilities()
    p_switch, p_subgoal = switch[paths.states, paths.before], subgoal[paths.states]
    p_action = action[paths.states, paths.subgoals]
    p_switch = torch.where(paths.switches == 1, p_switch, 1 - p_switch)
    p_switch[:, 0] = 1.0
    p_subgoal = torch.where(paths.subgoals == 1, p_subgoal, 1 - p_subgoal)
    p_subgoal = torch.where(paths.switches == 1, p_subgoal, 1.0)
    return p_switch, p_subgoal, torch.where(paths.actions == 1, p_action, 1 - p_action)


class Credit(NamedTuple):
    """Advantages of the three decisions, float64 ``(M, TURNS)``."""

    switch: Tensor
    subgoal: Tensor
    action: Tensor


def gradient_estimates(process: SwitchingProcess, paths: Trajectories, credit: Credit) -> Tensor:
    """``sum_t gamma^t (scores times advantages)`` of each trajectory, float64 ``(M, 10)``."""
    switch, subgoal, action = process.probabilities()
    discount = process.gamma ** torch.arange(TURNS, dtype=torch.float64)
    decides = (torch.arange(TURNS) > 0).double()
    terms = [
        (paths.switches - switch[paths.states, paths.before]) * decides * credit.switch,
        (paths.subgoals - subgoal[paths.states]) * paths.switches * credit.subgoal,
        (paths.actions - action[paths.states, paths.subgoals]) * credit.action,
    ]
    places = [2 * paths.states + paths.before, 4 + paths.states, 6 + 2 * paths.states + paths.subgoals]
    estimates = torch.zeros(len(paths.states), 10, dtype=torch.float64)
    for term, place in zip(terms, places, strict=True):
        estimates.scatter_add_(1, place, discount * term)
    return estimates


def path_rewards(process: SwitchingProcess, paths: Trajectories) -> Tensor:
    """Float64 ``(M, TURNS)``."""
    return process.reward[paths.states, paths.actions]


def hierarchical_credit(
    process: SwitchingProcess,
    paths: Trajectories,
    values: Values,
    *,
    switch: str = "return",
    lambda_turn: float = 1.0,
    lambda_segment: float = 1.0,
) -> Credit:
    """HAE with these values; ``switch`` is "return", "critic" or "gain"."""
    turns = torch.arange(TURNS)
    lengths, boundaries = torch.full((len(paths.states),), TURNS), paths.switches == 1
    low, high = values.low[turns, paths.states, paths.subgoals], values.high[turns, paths.states]
    head = values.switch[turns, paths.states, paths.before]
    found = hierarchical_advantages(
        path_rewards(process, paths), boundaries, lengths, low, high.masked_fill(~boundaries, torch.nan),
        gamma=process.gamma, lambda_turn=lambda_turn, lambda_segment=lambda_segment,
    )  # fmt: skip
    keep, probability = values.low[turns, paths.states, paths.before], process.probabilities()[0]
    decided = {
        "return": lambda: return_switch_advantages(found.segment_returns, head, lengths),
        "critic": lambda: critic_switch_advantages(low, high, head, boundaries, lengths),
        "gain": lambda: gain_switch_advantages(
            high, keep, probability[paths.states, paths.before], boundaries, lengths
        ),
    }[switch]()
    return Credit(decided, found.high, found.low)


def flat_credit(process: SwitchingProcess, paths: Trajectories, values: Values, *, gae_lambda: float = 1.0) -> Credit:
    """GAE over turns, one advantage for all decisions of a turn."""
    baseline = values.switch[torch.arange(TURNS), paths.states, paths.before].clone()
    baseline[:, 0] = values.high[0, 0]  # the first switch is forced
    rewards = path_rewards(process, paths)
    exists = torch.ones_like(rewards, dtype=torch.bool)
    found = gae(rewards, baseline, exists, gamma=process.gamma, gae_lambda=gae_lambda).advantages
    return Credit(found, found, found)


def moments(estimates: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each component, ``(10,)``."""
    mean = probability @ estimates
    return mean, probability @ (estimates - mean).square()
