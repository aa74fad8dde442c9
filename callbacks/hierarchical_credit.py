"""Credit on two time scales for turns that fall into segments (HiPER, arXiv 2602.16165), in anybody's module."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lit_rl.callbacks.turn_credit import Reduce, TurnCredit, TurnTable, find, read, refuse_non_finite, write
from lit_rl.objectives.hierarchical import (
    EndValues,
    HierarchicalAdvantages,
    ValueTargets,
    hierarchical_advantages,
    lambda_targets,
    stale_end_values,
    td_targets,
)
from lit_rl.objectives.plan_penalties import PlanPenalties
from lit_rl.objectives.streams import stream_advantages, whiten
from lit_rl.objectives.switch_advantages import (
    critic_switch_advantages,
    gain_switch_advantages,
    return_switch_advantages,
)

SwitchEstimator = Literal["return", "critic", "gain"]
Truncation = Literal["zero", "stale", "next"]
Targets = Literal["lambda", "td"]

STREAMS = {"switch": "switch", "high": "subgoal", "low": "action"}  # level -> whose tokens


class HierarchicalCredit(TurnCredit):
    """Gives switches, subgoals and actions the advantages of Hierarchical Advantage Estimation.

    Beside what `TurnCredit` reads, every row has, float ``(B,)`` unless said otherwise, NaN where it is not read:

    ====================================================  ====================================================
    ``boundary``                                          1 (True) where the turn begins a segment, as first turns do
    ``value_low``                                         of the state once the subgoal is known, at every turn
    ``value_high``                                        before it is chosen, read at boundaries
    ``value_switch``                                      before keep or switch is decided, at every turn
    ``switch_mask``, ``subgoal_mask``, ``action_mask``    tokens of each stream, bool ``(B, T)``, none in two
    ``terminated``                                        bool, unless ``truncation`` is "zero"
    ``value_next``                                        after an episode's last turn; for "next"
    ``value_keep``, ``switch_prob``                       ``V_low`` under the subgoal so far, and the probability of
                                                          switching, at all turns but the first; for "gain", which also
                                                          reads ``value_high`` there
    ====================================================  ====================================================

    Written are, for the levels "switch", "high" and "low", ``advantage_<level>``, not whitened, 0 where nothing was
    decided, and ``return_<level>``, the target of the value head, both float32 ``(B,)``, high ones 0 off boundaries;
    ``advantages`` of the tokens, whitened; and ``loss_mask``, narrowed to tokens of decisions that were really taken:
    subgoals of turns that keep theirs are outside.  With "gain" there is no ``value_switch`` and no ``return_switch``.

    A stream may also be a party with rows of its own, as a planner and a responder have: name the party, give no mask
    of that name, and what its rows sampled is the stream.  Rewards are read from rows of the low level, which every
    turn has; rows of the high level may be missing where no segment begins.

    Args:
        gamma: Discount per turn.
        lambda_turn: GAE's lambda within segments.
        lambda_segment: GAE's lambda over segments.
        switch: "return" of the segment against ``value_switch`` (the authors' code), "critic" (ours) or "gain" (the
            paper); the last two do not train the first turn's switch.
        truncation: What ends episodes that did not terminate: "zero", right where a time limit is part of the task, the
            "next" state's value, or "stale" ones as in the authors' code.
        targets: Value targets: "lambda" looks as far ahead as the advantages, "td" one turn or segment.
        whiten: Whiten each stream by itself, over turns of all ranks.
        train_first_switch: Whether the first turn's switch, which has no effect, is trained; only with "return".
        streams: Names of the streams by level, ``{"switch": "switch", "high": "subgoal", "low": "action"}``; leave
            "switch" out where there is no such decision.
        penalties: What the form of a turn costs; None costs nothing.
    """

    def __init__(
        self,
        *,
        gamma: float = 1.0,
        lambda_turn: float = 1.0,
        lambda_segment: float = 0.95,
        switch: SwitchEstimator = "return",
        truncation: Truncation = "zero",
        targets: Targets = "lambda",
        whiten: bool = True,
        train_first_switch: bool = True,
        streams: Mapping[str, str] | None = None,
        penalties: PlanPenalties | None = None,
    ):
        super().__init__(penalties)
        for name, number in (("gamma", gamma), ("lambda_turn", lambda_turn), ("lambda_segment", lambda_segment)):
            if not 0.0 <= number <= 1.0:
                raise ValueError(f"HierarchicalCredit: {name} is {number}; it lies between 0 and 1.")
        choices = (("switch", switch, SwitchEstimator), ("truncation", truncation, Truncation))
        for name, choice, allowed in (*choices, ("targets", targets, Targets)):
            if choice not in get_args(allowed):
                raise ValueError(f"HierarchicalCredit: {name} is {choice!r}; use one of {list(get_args(allowed))}.")
        self.streams = dict(STREAMS if streams is None else streams)
        if not {"high", "low"} <= set(self.streams) <= set(STREAMS):
            raise ValueError(
                f"HierarchicalCredit: streams has the levels {sorted(self.streams)}; it needs 'high' and 'low', and "
                "may have 'switch'."
            )
        self.gamma, self.lambda_turn, self.lambda_segment = gamma, lambda_turn, lambda_segment
        self.switch, self.truncation, self.targets = switch, truncation, targets
        self.whiten, self.train_first_switch = whiten, train_first_switch

    def annotate(self, batch: Any, reduce: Reduce | None = None) -> None:
        rows = {level: _stream(batch, name) for level, name in self.streams.items()}
        low = TurnTable(batch, rows["low"].rows)
        tables = {level: TurnTable(batch, stream.rows, low.grid) for level, stream in rows.items()}
        turns = _Turns.read(tables)
        credit = hierarchical_advantages(
            self.shaped_rewards(low), turns.boundaries, turns.lengths, turns.low_values, turns.high_values,
            gamma=self.gamma, lambda_turn=self.lambda_turn, lambda_segment=self.lambda_segment,
            end_values=_END_VALUES[self.truncation](turns, low),
        )  # fmt: skip
        found = {"high": credit.high, "low": credit.low}
        if "switch" in tables:
            found["switch"] = _SWITCH[self.switch](credit, turns, tables["switch"])
        decided = self._decided(turns)
        by_row = {level: tables[level].to_rows(a.masked_fill(~decided[level], 0.0)) for level, a in found.items()}
        masks = {level: rows[level].mask & tables[level].to_rows(decided[level])[:, None] for level in found}
        refuse_non_finite(by_row, batch, reduce)
        for level, advantages in by_row.items():
            write(batch, f"advantage_{level}", advantages)
        self._write_targets(batch, credit, turns, tables)
        if self.whiten:
            by_row = {level: whiten(a, masks[level].any(1), reduce=reduce) for level, a in by_row.items()}
        advantages, loss_mask = stream_advantages(by_row, masks, read(batch, "loss_mask"))
        write(batch, "advantages", advantages)
        write(batch, "loss_mask", loss_mask)

    def _write_targets(
        self, batch: Any, credit: HierarchicalAdvantages, turns: "_Turns", tables: Mapping[str, TurnTable]
    ) -> None:
        targets = _TARGETS[self.targets](credit, turns)._asdict()
        heads = [level for level in tables if level != "switch" or self.switch != "gain"]
        for level in heads:
            write(batch, f"return_{level}", tables[level].to_rows(targets[level]))

    def _decided(self, turns: "_Turns") -> dict[str, Tensor]:
        """Turns in which the decision of each level was really taken, bool ``(E, N)``."""
        every = torch.ones_like(turns.boundaries)
        decides = every.clone()
        decides[:, 0] = self.switch == "return" and self.train_first_switch
        return {"switch": decides, "high": turns.boundaries, "low": every}


class _Stream(NamedTuple):
    rows: Tensor  # rows of the batch that have it, int64 (M,)
    mask: Tensor  # its tokens, bool (B, T)


def _stream(batch: Any, name: str) -> _Stream:
    loss_mask, mask = read(batch, "loss_mask"), find(batch, f"{name}_mask")
    if mask is not None:
        return _Stream(torch.arange(len(mask), device=mask.device), mask.bool() & loss_mask)
    parties = list(find(batch, "parties") or ())
    if name not in parties:
        raise ValueError(
            f"HierarchicalCredit: the batch has no {name + '_mask'!r}, and its parties are {parties}; give the mask, "
            "or set streams to the names of masks or parties."
        )
    mine = torch.where(loss_mask, read(batch, "party_ids").long(), -1).amax(1) == parties.index(name)
    return _Stream(mine.nonzero().squeeze(1), loss_mask & mine[:, None])


class _Turns(NamedTuple):
    """What every estimator reads, ``(E, N)``."""

    boundaries: Tensor
    lengths: Tensor  # (E,)
    low_values: Tensor
    high_values: Tensor

    @classmethod
    def read(cls, tables: Mapping[str, TurnTable]) -> "_Turns":
        low, high = tables["low"], tables["high"]
        return cls(high.flags("boundary"), low.lengths, low.values("value_low"), high.values("value_high"))


def _next_end_values(turns: _Turns, low: TurnTable) -> EndValues:
    after = low.last("value_next").double().masked_fill(low.last("terminated").bool(), 0.0)
    return EndValues(after, after)


def _stale_end_values(turns: _Turns, low: TurnTable) -> EndValues:
    return stale_end_values(
        turns.low_values, turns.high_values, turns.boundaries, turns.lengths, low.last("terminated").bool()
    )


def _lambda_targets(credit: HierarchicalAdvantages, turns: _Turns) -> ValueTargets:
    return lambda_targets(credit, turns.low_values, turns.high_values, turns.boundaries, turns.lengths)


def _return_switch(credit: HierarchicalAdvantages, turns: _Turns, table: TurnTable) -> Tensor:
    return return_switch_advantages(credit.segment_returns, table.values("value_switch"), turns.lengths)


def _critic_switch(credit: HierarchicalAdvantages, turns: _Turns, table: TurnTable) -> Tensor:
    switch_values = table.values("value_switch")
    return critic_switch_advantages(turns.low_values, turns.high_values, switch_values, turns.boundaries, turns.lengths)


def _gain_switch(credit: HierarchicalAdvantages, turns: _Turns, table: TurnTable) -> Tensor:
    keep_values, switch_probs = table.values("value_keep"), table.values("switch_prob")
    return gain_switch_advantages(turns.high_values, keep_values, switch_probs, turns.boundaries, turns.lengths)


_END_VALUES: dict[str, Callable[[_Turns, TurnTable], EndValues | None]] = {
    "zero": lambda turns, low: None,
    "stale": _stale_end_values,
    "next": _next_end_values,
}
_TARGETS: dict[str, Callable[[HierarchicalAdvantages, _Turns], ValueTargets]] = {
    "lambda": _lambda_targets,
    "td": lambda credit, turns: td_targets(credit, turns.boundaries),
}
_SWITCH: dict[str, Callable[[HierarchicalAdvantages, _Turns, TurnTable], Tensor]] = {
    "return": _return_switch,
    "critic": _critic_switch,
    "gain": _gain_switch,
}
