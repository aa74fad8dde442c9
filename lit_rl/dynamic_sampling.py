"""Groups that teach nothing are left out and others played in their place (DAPO, arXiv 2503.14476, section 3.2)."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from lit_rl.distributed import gather_objects, rank, world_size
from lit_rl.episodes import Rollouts
from lit_rl.group_rewards import RewardCensus, raw_rewards
from lit_rl.rollout_bytes import rollouts_from_bytes, rollouts_to_bytes

OnExhausted = Literal["partial", "raise", "pad"]
Play = Callable[[Sequence[int]], Rollouts]


class SamplingExhausted(RuntimeError):
    """No batch to learn from could be sampled; raised on all ranks at once."""

    on_all_ranks = True


@dataclass(frozen=True, kw_only=True)
class DynamicSampling:
    """Sampling goes on, without an optimizer step, until enough groups have episodes that were paid differently.

    As published: groups are compared by their raw rewards, before anything such as a punishment of length is added;
    the first ones in the order they were sampled are learned from.  What happens when too few are found is ours: the
    authors' code ends the run.

    In a run of several processes one may have no group while others have some; its batch has no rows then.

    Args:
        prompts_per_draw: Problems played at a time, over all ranks; None takes three times ``data.tasks_per_batch``, as
            the authors' scripts do.
        max_draws: Most draws for one batch; 0 draws until every problem was played once for it.
        on_exhausted: When that leaves too few groups: "partial" learns from those there are, "pad" fills the batch with
            groups that teach nothing (they count in the denominators, as without this filter), "raise" ends the run.
            With no group at all the first two skip the batch: no backward, no step of optimizer or scheduler.
        max_consecutive_skips: At the last of so many skipped batches in a row the run ends.
        tolerance: Rewards of a group that differ by no more count as equal.
        metric: Which of ``reward_parts`` groups are compared by, such as "correct"; None takes the rewards.
        keep_surplus: Learn from groups beyond a full batch in the next batches, while they are no older than
            ``model.allowed_lag`` optimizer steps, and keep them in checkpoints; False drops them, as published.
    """

    prompts_per_draw: int | None = None
    max_draws: int = 10
    on_exhausted: OnExhausted = "partial"
    max_consecutive_skips: int = 5
    tolerance: float = 1e-6
    metric: str | None = None
    keep_surplus: bool = False

    def __post_init__(self) -> None:
        least = {"prompts_per_draw": 1, "max_draws": 0, "max_consecutive_skips": 1, "tolerance": 0}
        for option, minimum in least.items():
            value = getattr(self, option)
            if value is not None and not value >= minimum:
                raise ValueError(f"dynamic_sampling.{option} is {value}; it must be at least {minimum}.")
        if self.on_exhausted not in get_args(OnExhausted):
            raise ValueError(
                f"dynamic_sampling.on_exhausted is {self.on_exhausted!r}; use one of {list(get_args(OnExhausted))}."
            )

    def check_run(self, callbacks: Iterable[Any], allowed_lag: int) -> None:
        """Raise ValueError if rewards are written after sampling, or surplus could never be learned from.

        Args:
            callbacks: Of the trainer; an attribute ``reward_parts`` says which parts of the reward one writes.
            allowed_lag: Most optimizer steps a batch of the module may be behind.
        """
        for callback in callbacks:
            if parts := list(getattr(callback, "reward_parts", ())):
                raise ValueError(
                    f"data.dynamic_sampling compares rewards when they are sampled, but {type(callback).__name__} "
                    f"writes {parts} later; leave one of the two out."
                )
        if self.keep_surplus and allowed_lag < 1:
            raise ValueError(
                "data.dynamic_sampling.keep_surplus needs model.allowed_lag, the most optimizer steps that surplus may "
                "be behind (model.steps_per_batch for the batch after); it is 0."
            )


class Order(Protocol):
    """In which order a run goes through its problems: `lit_rl.datamodules.order.ShuffledOrder`, or another."""

    count: int  # problems of one pass

    def __getitem__(self, place: int) -> int:
        """Problem number ``place`` of the run."""
        ...


@dataclass(slots=True)
class _Draw:
    """Groups of one draw, by their place in the order: the same on all ranks but for ``rollouts``."""

    rollouts: Rollouts  # of this rank's groups
    kept: list[int]  # worth learning from
    rejected: list[int]


class DynamicSampler:
    """Collects batches of whole groups; all ranks call it together and agree on everything but their own rows.

    Args:
        settings: What is kept, and for how long it goes on.
        groups: Of a full batch, over all ranks.
        order: Of the problems; a group's id is its place there.

    Attributes:
        drawn: Places of ``order`` gone through, which is where a resumed run goes on.
        skips: Batches in a row that had no group.

    Raises:
        ValueError: A draw needs more problems than there are.
    """

    def __init__(self, settings: DynamicSampling, *, groups: int, order: Order):
        self.settings, self.groups, self.order = settings, groups, order
        self.prompts = settings.prompts_per_draw or 3 * groups
        if self.prompts > order.count:
            raise ValueError(
                f"data.dynamic_sampling draws {self.prompts} problems at a time, but there are {order.count} to train "
                "on, and none may be twice in a batch; lower dynamic_sampling.prompts_per_draw."
            )
        self.drawn = self.skips = 0
        self._surplus: list[_Draw] = []

    def collect(
        self,
        play: Play,
        *,
        policy_version: int,
        allowed_lag: int = 0,
        pad_id: int = 0,
        device: torch.device | str = "cpu",
    ) -> Rollouts:
        """One batch; of no rows on any rank if it is to be skipped.

        Args:
            play: Plays the groups at these places, this rank's share of a draw.
            policy_version: Of the policy it plays with.
            allowed_lag: Most optimizer steps that surplus may be behind.
            pad_id: Token id on the right of short rows.
            device: Where the batch is wanted.

        Returns:
            Whole groups; ``figures`` add up what the draws measured, with ``sampling/...`` beside it.

        Raises:
            SamplingExhausted: Too few groups were found, and the settings say to end the run.
            ValueError: A rank's share is no whole number, or rewards are not finite or not there.
        """
        draws = [draw for draw in self._surplus if policy_version - draw.rollouts.policy_version <= allowed_lag]
        reused = len(draws)
        played = {self.order[group] for draw in draws for group in draw.kept}
        census = RewardCensus(self.settings.tolerance)
        while self._kept(draws) < self.groups and self._may_draw(len(draws) - reused, played):
            rollouts = play(self._next_places(played))
            kept, rejected = census.add(self._paid(rollouts))
            draws.append(_Draw(rollouts, kept, rejected))
        chosen = self._choose(draws, census)
        batch = _joined(draws, chosen, pad_id, device)
        batch.figures = _added_figures([draw.rollouts.figures for draw in draws[reused:]])
        batch.figures |= census.figures() | self._figures(draws, reused, chosen)
        self._surplus = self._left(draws, chosen) if self.settings.keep_surplus else []
        return batch

    # -- drawing -----------------------------------------------------------------------------------------------

    @staticmethod
    def _kept(draws: Sequence[_Draw]) -> int:
        return sum(len(draw.kept) for draw in draws)

    def _may_draw(self, draws: int, played: set[int]) -> bool:
        """Whether the limit allows another draw, and enough problems are left that are not in this batch yet."""
        limit = self.settings.max_draws
        return (limit == 0 or draws < limit) and len(played) + self.prompts <= self.order.count

    def _next_places(self, played: set[int]) -> list[int]:
        """This rank's part of the next draw, whose problems are added to ``played``: none is drawn twice."""
        if self.prompts % world_size():
            raise ValueError(
                f"data.dynamic_sampling draws {self.prompts} problems at a time, which {world_size()} ranks cannot "
                "share evenly; use a multiple."
            )
        places: list[int] = []
        while len(places) < self.prompts:
            if (task := self.order[self.drawn]) not in played:
                played.add(task)
                places.append(self.drawn)
            self.drawn += 1
        # Dealt in turn: the first groups of a draw are the ones learned from, and every rank should have some.
        return places[rank() :: world_size()]

    def _paid(self, rollouts: Rollouts) -> dict[tuple[int, int], list[float]]:
        metric = self.settings.metric
        if metric is not None and metric not in rollouts.reward_parts:
            raise ValueError(
                f"data.dynamic_sampling.metric is {metric!r}; batches have the reward_parts "
                f"{sorted(rollouts.reward_parts)}."
            )
        return raw_rewards(rollouts, rollouts.rewards if metric is None else rollouts.reward_parts[metric])

    # -- choosing ----------------------------------------------------------------------------------------------

    def _choose(self, draws: Sequence[_Draw], census: RewardCensus) -> list[int]:
        """The groups to learn from, in the order they were sampled."""
        kept = [group for draw in draws for group in draw.kept][: self.groups]
        if len(kept) < self.groups and self.settings.on_exhausted == "raise":
            raise SamplingExhausted(
                f"Of {census.groups} groups {len(kept)} had different rewards, and a batch needs {self.groups}. "
                f"{census.histogram()} {_ADVICE}"
            )
        self.skips = 0 if kept else self.skips + 1
        if self.skips >= self.settings.max_consecutive_skips:
            raise SamplingExhausted(
                f"In {self.skips} batches in a row no group had different rewards. {census.histogram()} {_ADVICE}"
            )
        if kept and self.settings.on_exhausted == "pad":
            rejected = [group for draw in draws for group in draw.rejected]
            kept += rejected[: self.groups - len(kept)]
        return kept

    def _left(self, draws: Sequence[_Draw], chosen: Sequence[int]) -> list[_Draw]:
        left = []
        for draw in draws:
            if kept := [group for group in draw.kept if group not in chosen]:
                left.append(_Draw(_rows_of(draw.rollouts, kept), kept, []))
        return left

    def _figures(self, draws: Sequence[_Draw], reused: int, chosen: Sequence[int]) -> dict[str, float]:
        kept = {group for draw in draws for group in draw.kept}
        figures = {
            "sampling/draws": len(draws) - reused,
            "sampling/partial_batch": 0 < len(chosen) < self.groups,
            "sampling/skipped": not chosen,
            "sampling/surplus_groups": len(kept.difference(chosen)),
        }
        if self.settings.keep_surplus:
            older = {group for draw in draws[:reused] for group in draw.kept}
            figures["sampling/reused_groups"] = len(older.intersection(chosen))
        return {name: float(value) for name, value in figures.items()}

    # -- state -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the run is, and with ``keep_surplus`` the surplus of all ranks, who all have to call this."""
        state: dict[str, Any] = {"drawn": self.drawn, "skips": self.skips}
        if self.settings.keep_surplus:
            ranks = gather_objects([rollouts_to_bytes(draw.rollouts) for draw in self._surplus])
            state["surplus"] = {"groups": [draw.kept for draw in self._surplus], "ranks": ranks}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.drawn, self.skips = state["drawn"], state["skips"]
        surplus = state.get("surplus") if self.settings.keep_surplus else None
        if surplus is None:
            self._surplus = []
            return
        if len(surplus["ranks"]) != world_size():
            raise ValueError(
                f"The checkpoint has the surplus of {len(surplus['ranks'])} processes and this run has {world_size()}; "
                "resume with as many, or set data.dynamic_sampling.keep_surplus to false."
            )
        rows = map(rollouts_from_bytes, surplus["ranks"][rank()])
        self._surplus = [_Draw(part, list(kept), []) for part, kept in zip(rows, surplus["groups"], strict=True)]


_ADVICE = (
    "Choose problems that the policy solves now and then, raise data.group_size, or let "
    "data.dynamic_sampling.max_draws allow more."
)


def _rows_of(rollouts: Rollouts, groups: Collection[int]) -> Rollouts:
    """The rows of some groups; perhaps none."""
    ids: Tensor = rollouts.group_ids
    wanted = torch.isin(ids, torch.tensor(sorted(groups), dtype=ids.dtype, device=ids.device))
    return rollouts.select(wanted) if bool(wanted.any()) else rollouts.without_rows()


def _joined(draws: Sequence[_Draw], groups: Sequence[int], pad_id: int, device: torch.device | str) -> Rollouts:
    """The chosen groups' rows on this rank, of the oldest version on any: ranks must deal alike into steps."""
    parts = [
        _rows_of(draw.rollouts, chosen).to(device)
        for draw in draws
        if (chosen := set(groups).intersection(draw.kept + draw.rejected))
    ]
    with_rows = [part for part in parts if len(part)]
    if with_rows:
        batch = Rollouts.cat(with_rows, pad_id) if len(with_rows) > 1 else with_rows[0]
    else:
        batch = draws[-1].rollouts.without_rows().to(device)
    # The first draw is the oldest, and its groups are learned from before those of others.
    batch.policy_version = draws[0].rollouts.policy_version
    return batch


def _added_figures(draws: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of all draws together: seconds and what is counted in training add up, rates are over all seconds.

    Everything else (what remote parties have cost so far) is the last.
    """
    added: dict[str, float] = {}
    total = math.fsum(figures.get("time/sampling_seconds", 0.0) for figures in draws)
    for figures in draws:
        for name, value in figures.items():
            if name.endswith("_per_second"):
                share = figures.get("time/sampling_seconds", 0.0) / total if total else 1 / len(draws)
                added[name] = added.get(name, 0.0) + share * value
            elif name.startswith("train/") or name.endswith("_seconds"):
                added[name] = added.get(name, 0.0) + value
            else:
                added[name] = value
    return added
