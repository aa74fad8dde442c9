"""One advantage for each turn, from other episodes of the same task: GRPO, its variant by turn, and GiGPO."""

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from lit_rl.callbacks.turn_credit import Reduce, TurnCredit, TurnTable, read, refuse_non_finite, write
from lit_rl.objectives.advantages import group_advantages, turn_advantages
from lit_rl.objectives.plan_penalties import PlanPenalties
from lit_rl.objectives.returns import trajectory_returns, turn_returns
from lit_rl.objectives.step_groups import group_in_group_advantages
from lit_rl.objectives.streams import stream_advantages
from lit_rl.objectives.turns import turn_mask

GroupBy = Literal["episode", "turn", "state"]


class GroupCredit(TurnCredit):
    """Gives all sampled tokens of a turn the turn's advantage over other episodes of its group; needs no values.

    Beside what `TurnCredit` reads, every row has ``group_ids``, int64 ``(B,)``, and for ``by="state"`` ``state``, int64
    ``(B,)``, equal where the environment showed the same.  All rows of a group are on one rank.

    Written are ``advantage_turn``, float32 ``(B,)``, and ``advantages``.  ``loss_mask`` stays as it is.

    Args:
        by: What is compared: whole "episode"s (GRPO, arXiv 2402.03300), what each "turn" led to with what the same turn
            of others led to, or episodes and, within a "state", turns (GiGPO, arXiv 2505.10978).
        gamma: Discount per turn.
        step_coef: Weight of turns beside episodes; for "state".
        ddof: 0 divides by the population's standard deviation, 1 by the sample's.
        epsilon: Added to it.
        scale_by_std: False only centres.
        penalties: What the form of a turn costs; None costs nothing.
    """

    def __init__(
        self,
        *,
        by: GroupBy = "episode",
        gamma: float = 1.0,
        step_coef: float = 1.0,
        ddof: int = 1,
        epsilon: float = 1e-6,
        scale_by_std: bool = True,
        penalties: PlanPenalties | None = None,
    ):
        super().__init__(penalties)
        if by not in _ESTIMATORS:
            raise ValueError(f"GroupCredit: by is {by!r}; use one of {list(_ESTIMATORS)}.")
        if not 0.0 <= gamma <= 1.0 or ddof not in (0, 1) or epsilon < 0:
            raise ValueError(
                f"GroupCredit: gamma is {gamma}, ddof {ddof}, epsilon {epsilon}; they need 0 <= gamma <= 1, ddof 0 or "
                "1 and epsilon >= 0."
            )
        self.by, self.gamma, self.step_coef = by, gamma, step_coef
        self.ddof, self.epsilon, self.scale_by_std = ddof, epsilon, scale_by_std

    def annotate(self, batch: Any, reduce: Reduce | None = None) -> None:
        turns = TurnTable(batch)
        found = _ESTIMATORS[self.by](self, turns, self.shaped_rewards(turns), turns.first("group_ids"))
        advantages, loss_mask = turns.to_rows(found), read(batch, "loss_mask")
        refuse_non_finite({"turn": advantages}, batch, reduce)
        write(batch, "advantage_turn", advantages)
        write(batch, "advantages", stream_advantages({"turn": advantages}, {"turn": loss_mask}, loss_mask)[0])


def _by_episode(credit: GroupCredit, turns: TurnTable, rewards: Tensor, groups: Tensor) -> Tensor:
    returns = trajectory_returns(rewards, gamma=credit.gamma)
    if credit.scale_by_std:
        found = group_advantages(returns, groups, ddof=credit.ddof, epsilon=credit.epsilon)
    else:
        found = group_advantages(returns, groups, scale_by_std=False)
    return found[:, None].expand(rewards.shape)


def _by_turn(credit: GroupCredit, turns: TurnTable, rewards: Tensor, groups: Tensor) -> Tensor:
    returns, exists = turn_returns(rewards, gamma=credit.gamma), turn_mask(turns.lengths, turns.grid.turns)
    if credit.scale_by_std:
        return turn_advantages(returns, exists, groups, ddof=credit.ddof, epsilon=credit.epsilon)
    return turn_advantages(returns, exists, groups, normalization="center")


def _by_state(credit: GroupCredit, turns: TurnTable, rewards: Tensor, groups: Tensor) -> Tensor:
    return group_in_group_advantages(
        rewards, turn_mask(turns.lengths, turns.grid.turns), groups, turns.integers("state"),
        gamma=credit.gamma, step_coef=credit.step_coef, ddof=credit.ddof, epsilon=credit.epsilon,
        scale_by_std=credit.scale_by_std,
    )  # fmt: skip


_ESTIMATORS: dict[str, Callable[[GroupCredit, TurnTable, Tensor, Tensor], Tensor]] = {
    "episode": _by_episode,
    "turn": _by_turn,
    "state": _by_state,
}
