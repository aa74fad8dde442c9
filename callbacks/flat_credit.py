"""One advantage for each turn, by generalised advantage estimation over turns: PPO beside `HierarchicalCredit`."""

from typing import Any, Literal, get_args

from torch import Tensor

from lit_rl.callbacks.turn_credit import Reduce, TurnCredit, TurnTable, read, refuse_non_finite, write
from lit_rl.objectives.gae import gae
from lit_rl.objectives.plan_penalties import PlanPenalties
from lit_rl.objectives.streams import stream_advantages, whiten
from lit_rl.objectives.turns import turn_mask

FlatTruncation = Literal["zero", "next"]


class FlatCredit(TurnCredit):
    """Gives all sampled tokens of a turn the turn's advantage, by GAE over the turns of its episode (PPO).

    Beside what `TurnCredit` reads, every row has ``value_<head>``, float ``(B,)``, read at the end of its prompt; with
    ``truncation="next"`` also ``terminated``, bool ``(B,)``, and ``value_next``, float ``(B,)``, of what follows the
    episode's last turn.

    Written are ``advantage_turn`` as estimated and ``return_<head>``, the target of the value head, float32 ``(B,)``;
    and ``advantages``, whitened.  ``loss_mask`` stays as it is.

    Args:
        gamma: Discount per turn.
        gae_lambda: 0 trusts the values, 1 the rewards.
        head: Which value.  "switch", of the whole prompt, lets modules made for `HierarchicalCredit` train one head.
        truncation: What ends episodes that did not terminate: "zero", or the "next" state's value.
        whiten: Whiten over the turns of all ranks.
        penalties: What the form of a turn costs; None costs nothing.
    """

    def __init__(
        self,
        *,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        head: str = "switch",
        truncation: FlatTruncation = "zero",
        whiten: bool = True,
        penalties: PlanPenalties | None = None,
    ):
        super().__init__(penalties)
        for name, number in (("gamma", gamma), ("gae_lambda", gae_lambda)):
            if not 0.0 <= number <= 1.0:
                raise ValueError(f"FlatCredit: {name} is {number}; it lies between 0 and 1.")
        if truncation not in get_args(FlatTruncation):
            raise ValueError(f"FlatCredit: truncation is {truncation!r}; use one of {list(get_args(FlatTruncation))}.")
        self.gamma, self.gae_lambda, self.head = gamma, gae_lambda, head
        self.truncation, self.whiten = truncation, whiten

    def annotate(self, batch: Any, reduce: Reduce | None = None) -> None:
        turns = TurnTable(batch)
        found = gae(
            self.shaped_rewards(turns), turns.values(f"value_{self.head}"), turn_mask(turns.lengths, turns.grid.turns),
            gamma=self.gamma, gae_lambda=self.gae_lambda, end_values=self._end_values(turns),
        )  # fmt: skip
        advantages, loss_mask = turns.to_rows(found.advantages), read(batch, "loss_mask")
        refuse_non_finite({"turn": advantages}, batch, reduce)
        write(batch, "advantage_turn", advantages)
        write(batch, f"return_{self.head}", turns.to_rows(found.returns))
        if self.whiten:
            advantages = whiten(advantages, loss_mask.any(1), reduce=reduce)
        write(batch, "advantages", stream_advantages({"turn": advantages}, {"turn": loss_mask}, loss_mask)[0])

    def _end_values(self, turns: TurnTable) -> Tensor | None:
        if self.truncation == "zero":
            return None
        return turns.last("value_next").double().masked_fill(turns.last("terminated").bool(), 0.0)
