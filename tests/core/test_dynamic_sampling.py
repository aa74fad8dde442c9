"""Dynamic sampling: the trace of intelli.md 10.7, what is kept and drawn, its figures, surplus and state."""

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl import dynamic_sampling
from lit_rl.datamodules.order import ShuffledOrder
from lit_rl.dynamic_sampling import DynamicSampler, DynamicSampling, SamplingExhausted
from lit_rl.episodes import Episode, Heard, Rollouts, Turn
from lit_rl.group_rewards import RewardCensus, raw_rewards
from lit_rl.rollout_bytes import rollouts_from_bytes, rollouts_to_bytes

TRACE = ["0000", "1000", "3333", "0000", "0200", "1111", "0123", "0001", "1010", "0000", "2000", "0000"]


def group(place: int, rewards: Sequence[float], task: int) -> list[Episode]:
    """Episodes of one turn, of two or three tokens, that were paid this."""
    episodes = []
    for i, reward in enumerate(rewards):
        said = [7, 8, 9][: 2 + (place + i) % 2]
        turn = Turn(
            party="student",
            exchange=0,
            text="so",
            prompt_ids=[3, 4],
            completion_ids=said,
            log_probs=[-0.1 * (place + 1)] * len(said),
            heard=(Heard("teacher", 0, 1, 2),),
            new_row=True,
            reward=float(reward),
            info={"answer": "7", "scores": [1, 2.5]},
        )
        index = place * len(rewards) + i
        episodes.append(Episode(index=index, task_id=str(task), group=place, seed=0, turns=[turn], terminated=True))
    return episodes


@dataclass
class World:
    """Pays the episodes of a place, counts how often it is asked, and plays for every version it is told."""

    paid: Callable[[int], Sequence[float]]
    order: Any = None
    version: int = 0
    draws: list[list[int]] = field(default_factory=list)

    def play(self, places: Sequence[int]) -> Rollouts:
        self.draws.append(list(places))
        episodes = [e for p in places for e in group(p, self.paid(p), self.order[p] if self.order else p)]
        rollouts = Rollouts.from_episodes(
            episodes, trained=["student"], parties=["student", "teacher"], policy_version=self.version
        )
        rollouts.reward_parts["correct"] = (rollouts.rewards > 0).float()
        rollouts.figures = {"train/dropped_episodes": 1.0, "time/sampling_seconds": 2.0 * len(self.draws)}
        rollouts.figures |= {"time/sampling_tokens_per_second": 10.0 * len(self.draws), "time/asked": float(places[0])}
        return rollouts


class Straight:
    """Problems in their own order, for ever new."""

    def __init__(self, count: int = 10**6):
        self.count = count

    def __getitem__(self, place: int) -> int:
        return place


def sampler(groups: int = 3, order: Any = None, **options: Any) -> DynamicSampler:
    return DynamicSampler(
        DynamicSampling(**{"prompts_per_draw": 4} | options), groups=groups, order=order or Straight()
    )


def trace() -> World:
    return World(lambda place: [float(r) for r in TRACE[place]])


def nothing() -> World:
    return World(lambda place: [0.0] * 4)


def collect(drawing: DynamicSampler, world: World, **options: Any) -> Rollouts:
    return drawing.collect(world.play, policy_version=world.version, **options)


def groups_of(batch: Rollouts) -> list[int]:
    """In the order of the rows, each once."""
    return list(dict.fromkeys(batch.group_ids.tolist()))


# -- the trace of intelli.md 10.7 --------------------------------------------------------------------------------------


def test_the_first_groups_worth_learning_from_fill_a_batch() -> None:
    world, drawing = trace(), sampler(max_draws=3)
    batch = collect(drawing, world)
    assert groups_of(batch) == [1, 4, 6] and world.draws == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(batch) == 12 and [episode.group for episode in batch.episodes] == [1] * 4 + [4] * 4 + [6] * 4
    wanted = {
        "sampling/draws": 2,
        "sampling/kept_share": 4 / 8,
        "sampling/surplus_groups": 1,
        "sampling/partial_batch": 0,
        "sampling/skipped": 0,
        "sampling/lowest_share": 2 / 8,  # p0 and p3 of the eight
        "sampling/highest_share": 1 / 8,  # p2
        "sampling/reward": (1 + 12 + 2 + 4 + 6 + 1) / 32,
        "train/dropped_episodes": 2,
        "time/sampling_seconds": 2 + 4,
        "time/sampling_tokens_per_second": (2 * 10 + 4 * 20) / 6,
        "time/asked": 4,
    }
    assert batch.figures == pytest.approx(wanted)
    assert drawing.drawn == 8  # surplus is dropped: p7 is gone
    assert groups_of(collect(sampler(groups=6, max_draws=2), trace())) == [1, 4, 6, 7]


def test_what_happens_when_too_few_are_found() -> None:
    partial = collect(sampler(max_draws=1), trace())
    assert groups_of(partial) == [1] and partial.figures["sampling/partial_batch"] == 1
    padded = collect(sampler(max_draws=1, on_exhausted="pad"), trace())
    assert groups_of(padded) == [0, 1, 2] and padded.figures["sampling/partial_batch"] == 0
    with pytest.raises(SamplingExhausted, match="Of 4 groups 1 had different rewards, and a batch needs 3. The rewards"
                       " were 0 \\(11 times\\), 3 \\(4 times\\), 1 \\(1 times\\)"):  # fmt: skip
        collect(sampler(max_draws=1, on_exhausted="raise"), trace())
    full = collect(sampler(max_draws=2, on_exhausted="raise"), trace())
    assert groups_of(full) == [1, 4, 6]


@pytest.mark.parametrize("on_exhausted", ["partial", "pad"])
def test_a_batch_without_any_group_is_skipped_and_too_many_end_the_run(on_exhausted: Any) -> None:
    world, drawing = nothing(), sampler(max_draws=3, on_exhausted=on_exhausted, max_consecutive_skips=2)
    batch = collect(drawing, world)
    assert len(batch) == 0 and batch.episodes == [] and len(world.draws) == 3
    assert batch.figures["sampling/skipped"] == 1 and batch.figures["sampling/lowest_share"] == 1
    assert batch.figures["sampling/highest_share"] == 0  # least and most are the same
    world.paid = trace().paid
    drawing.drawn = 0
    assert len(collect(drawing, world)) and drawing.skips == 0  # in between one that is not
    world.paid = nothing().paid
    collect(drawing, world)
    with pytest.raises(SamplingExhausted, match="In 2 batches in a row no group had different rewards. The rewards "
                       "were 0 \\(48 times\\). Choose problems that the policy solves now and then"):  # fmt: skip
        collect(drawing, world)
    assert SamplingExhausted.on_all_ranks, "or no emergency checkpoint is written in a run of several processes"


# -- what is kept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "count"), list(itertools.product([0.1, 0.7, -2.3, 1e8], [2, 3, 6, 7])))
def test_equal_rewards_are_equal_whatever_their_deviation_rounds_to(value: float, count: int) -> None:
    """intelli.md 10.5"""
    world = World(lambda place: [value] * count if place < 4 else [0.0] * (count - 1) + [1.0])
    assert min(groups_of(collect(sampler(), world))) == 4


def test_rewards_within_the_tolerance_are_equal() -> None:
    world = World(lambda place: [0.0, 0.0, 0.01 * place])
    assert groups_of(collect(sampler(tolerance=0.025), world)) == [3, 4, 5]
    assert groups_of(collect(sampler(tolerance=0.0), world)) == [1, 2, 3]


def test_groups_may_be_compared_by_a_part_of_their_rewards() -> None:
    world = World(lambda place: [1.0, 2.0] if place % 2 else [0.0, 2.0])
    assert groups_of(collect(sampler(), world)) == [0, 1, 2]
    assert groups_of(collect(sampler(metric="correct"), world)) == [0, 2, 4]
    with pytest.raises(ValueError, match=r"metric is 'right'; batches have the reward_parts \['correct'\]"):
        collect(sampler(metric="right"), world)


def test_parties_of_a_group_are_compared_among_themselves() -> None:
    """Two parties that are paid differently, each of them always alike, teach nothing."""

    def play(places: Sequence[int]) -> Rollouts:
        episodes = []
        for place, i in itertools.product(places, range(2)):
            turns = []
            for party, reward in (("student", 1.0), ("teacher", float(place == 2 and i))):
                turns.append(
                    Turn(party=party, exchange=0, text="", prompt_ids=[3], completion_ids=[7], log_probs=[-1.0],
                         new_row=True, reward=reward)
                )  # fmt: skip
            episodes.append(Episode(index=2 * place + i, task_id="", group=place, seed=0, turns=turns))
        return Rollouts.from_episodes(episodes, trained=["student", "teacher"], parties=["student", "teacher"])

    assert groups_of(sampler(max_draws=1).collect(play, policy_version=0)) == [2]


def test_rewards_that_are_no_numbers_are_refused() -> None:
    world = World(lambda place: [0.0, float("nan") if place == 2 else 1.0])
    with pytest.raises(ValueError, match="A reward of group 2 is not finite"):
        collect(sampler(), world)


@given(
    probability=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 100),
    groups=st.integers(1, 6),
    max_draws=st.integers(0, 4),
    on_exhausted=st.sampled_from(["partial", "pad"]),
)
@settings(max_examples=40)
def test_full_batches_of_groups_worth_learning_from(
    probability: float, seed: int, groups: int, max_draws: int, on_exhausted: Any
) -> None:
    def paid(place: int) -> list[float]:
        return torch.bernoulli(
            torch.full((4,), probability), generator=torch.Generator().manual_seed(1000 * seed + place)
        ).tolist()

    def drawn() -> tuple[World, Rollouts, DynamicSampler]:
        order = ShuffledOrder(17, seed)
        world = World(paid, order)
        drawing = DynamicSampler(
            DynamicSampling(prompts_per_draw=5, max_draws=max_draws, on_exhausted=on_exhausted),
            groups=groups,
            order=order,
        )
        return world, collect(drawing, world), drawing

    world, batch, drawing = drawn()
    limit = max_draws or 3  # of 17 problems, none is played twice for one batch
    assert len(world.draws) <= min(limit, 3)
    tasks = [world.order[place] for draw in world.draws for place in draw]
    assert len(tasks) == len(set(tasks)) and drawing.drawn == max(world.draws[-1]) + 1
    found = groups_of(batch)
    wanted = [place for draw in world.draws for place in draw if len(set(paid(place))) > 1]
    if len(wanted) >= groups:
        assert found == wanted[:groups]
        assert sum(place in world.draws[-1] for place in wanted[groups:]) == len(wanted) - groups
    else:
        assert len(world.draws) == min(limit, 3), "there was no reason to stop"
        few = [place for place in found if len(set(paid(place))) > 1]
        assert few == wanted and (found == few or on_exhausted == "pad")
        if on_exhausted == "pad" and wanted:
            assert len(found) == min(groups, 5 * len(world.draws))
    again = drawn()[1]
    assert torch.equal(again.input_ids, batch.input_ids) and again.group_ids.tolist() == batch.group_ids.tolist()


def test_rewards_that_always_differ_make_it_take_what_comes() -> None:
    world = World(lambda place: [place + 0.1 * i for i in range(4)])
    batches = [collect(drawing, world) for drawing in [sampler(groups=4)] for _ in range(3)]
    assert [groups_of(batch) for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert all(batch.figures["sampling/kept_share"] == 1 for batch in batches)


@pytest.mark.parametrize(
    ("probability", "share"),
    [(0.01, 0.077), (0.02, 0.149), (0.03, 0.216), (0.05, 0.337), (0.1, 0.570), (0.2, 0.832), (0.5, 0.992)],
)
def test_share_that_is_kept(probability: float, share: float) -> None:
    """intelli.md 5.3: of groups of 8, right with probability p, 1 - p^8 - (1 - p)^8 have both."""
    assert 1 - probability**8 - (1 - probability) ** 8 == pytest.approx(share, abs=5e-4)
    rights = (torch.rand(4000, 8, generator=torch.Generator().manual_seed(0)) < probability).double()
    census = RewardCensus(tolerance=1e-6)
    census.add({(group, 0): rewards for group, rewards in enumerate(rights.tolist())})
    error = (share * (1 - share) / 4000) ** 0.5
    assert census.figures()["sampling/kept_share"] == pytest.approx(share, abs=4 * error)


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_passes_over_the_problems_go_on_where_the_last_batch_ended() -> None:
    """A problem that comes again right behind the end of a pass is left for the next one."""
    order = ShuffledOrder(10, 3)
    world, drawing = World(lambda place: [0.0, 0.0], order), sampler(order=order, max_draws=0, max_consecutive_skips=9)
    everything: list[int] = []
    for _ in range(8):
        world.draws.clear()
        collect(drawing, world)
        places = [place for draw in world.draws for place in draw]
        assert len(places) == 8, "a third draw would repeat problems"
        assert len({order[place] for place in places}) == 8
        everything += places
    assert everything[:12] == [*range(10), 10, 11] and everything == sorted(everything)
    left_out = set(range(drawing.drawn)).difference(everything)
    assert 0 < len(left_out) < len(everything) / 2


def test_three_batches_at_a_time_unless_told() -> None:
    world = World(lambda place: [0.0, 1.0])
    collect(DynamicSampler(DynamicSampling(), groups=5, order=Straight()), world)
    assert world.draws == [list(range(15))]


# -- surplus -----------------------------------------------------------------------------------------------------------


def differing() -> World:
    return World(lambda place: [0.0, 1.0])


def test_surplus_is_learned_from_while_it_is_young_enough() -> None:
    drawing, world = sampler(groups=3, prompts_per_draw=8, keep_surplus=True), differing()
    options = {"allowed_lag": 2}
    first = collect(drawing, world, **options)
    assert groups_of(first) == [0, 1, 2] and first.figures["sampling/surplus_groups"] == 5
    world.version = 2
    second = collect(drawing, world, **options)
    assert groups_of(second) == [3, 4, 5] and second.policy_version == 0 and len(world.draws) == 1
    assert second.figures["sampling/reused_groups"] == 3 and second.figures["sampling/draws"] == 0
    assert "time/sampling_seconds" not in second.figures, "what sampling these cost was told with the first batch"
    mixed = collect(drawing, world, **options)
    assert groups_of(mixed) == [6, 7, 8] and mixed.policy_version == 0 and len(world.draws) == 2
    assert mixed.figures["sampling/reused_groups"] == 2
    world.version = 3
    young = collect(drawing, world, **options)
    assert groups_of(young) == [9, 10, 11] and young.policy_version == 2
    world.version = 5  # three steps behind what is left
    assert groups_of(collect(drawing, world, **options)) == [16, 17, 18], "what is left is too old by now"


def test_a_problem_of_the_surplus_is_not_drawn_again_for_the_same_batch() -> None:
    order = ShuffledOrder(6, 0)
    drawing = DynamicSampler(DynamicSampling(prompts_per_draw=4, keep_surplus=True, max_draws=1), groups=3, order=order)
    world = World(lambda place: [0.0, 1.0], order)
    for _ in range(12):
        batch = collect(drawing, world, allowed_lag=1)
        tasks = [order[place] for place in groups_of(batch)]
        assert len(tasks) == 3 == len(set(tasks))


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """Through a checkpoint that executes nothing."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    assert loaded == state, "RunState compares states"
    return loaded


@pytest.mark.parametrize("keep_surplus", [False, True])
def test_a_resumed_run_draws_what_the_run_would_have_drawn(keep_surplus: bool) -> None:
    options = {"prompts_per_draw": 6, "keep_surplus": keep_surplus, "max_consecutive_skips": 3}
    order = ShuffledOrder(40, 5)

    def new() -> tuple[DynamicSampler, World]:
        world = World(lambda place: [0.0, 0.5, float(place % 3 > 0 and place > 30)], order)
        return sampler(order=order, **options), world

    def batches(drawing: DynamicSampler, world: World, versions: range) -> list[bytes]:
        found = []
        for world.version in versions:
            batch = collect(drawing, world, allowed_lag=1)
            batch.figures = {name: value for name, value in batch.figures.items() if name.startswith("sampling")}
            found.append(rollouts_to_bytes(batch))
        return found

    (alone, world), (before, its) = new(), new()
    everything = batches(alone, world, range(5))
    first = batches(before, its, range(2))
    state = saved(before.state_dict())
    assert ("surplus" in state) == keep_surplus
    resumed, others = new()
    resumed.load_state_dict(state)
    assert first + batches(resumed, others, range(2, 5)) == everything


def test_the_number_of_skips_is_in_the_state() -> None:
    drawing = sampler(max_draws=1, max_consecutive_skips=2)
    collect(drawing, nothing())
    resumed = sampler(max_draws=1, max_consecutive_skips=2)
    resumed.load_state_dict(saved(drawing.state_dict()))
    with pytest.raises(SamplingExhausted, match="In 2 batches"):
        collect(resumed, nothing())


def test_every_rank_takes_its_own_surplus_back(monkeypatch: pytest.MonkeyPatch) -> None:
    drawing, world = sampler(groups=3, prompts_per_draw=8, keep_surplus=True), differing()
    collect(drawing, world)
    state = drawing.state_dict()
    [mine] = state["surplus"]["ranks"]
    other = [rollouts_to_bytes(rollouts_from_bytes(part).without_rows()) for part in mine]
    state["surplus"]["ranks"] = [other, mine]
    found = []
    for number in (0, 1):
        monkeypatch.setattr(dynamic_sampling, "rank", lambda number=number: number)
        monkeypatch.setattr(dynamic_sampling, "world_size", lambda: 2)
        resumed = sampler(groups=3, prompts_per_draw=8, keep_surplus=True)
        resumed.load_state_dict(saved(state))
        found.append(groups_of(collect(resumed, world)))
    assert found == [[], [3, 4, 5]]


def test_an_episode_is_paid_the_sum_of_its_turns_and_counts_once() -> None:
    turns = [
        Turn(party="student", exchange=k, text="", prompt_ids=[3], completion_ids=[7], log_probs=[-1.0], new_row=True,
             reward=reward)
        for k, reward in enumerate([0.25, 0.5, 0.0])
    ]  # fmt: skip
    episodes = [Episode(index=i, task_id="t", group=4, seed=0, turns=turns[: 3 - i]) for i in (0, 1)]
    rollouts = Rollouts.from_episodes(episodes, trained=["student"], parties=["student"])
    assert len(rollouts) == 5
    assert raw_rewards(rollouts, rollouts.rewards) == {(4, 0): [0.75, 0.75]}


def test_surplus_of_another_number_of_processes_is_refused() -> None:
    drawing = sampler(prompts_per_draw=8, keep_surplus=True)
    collect(drawing, differing(), allowed_lag=1)
    state = drawing.state_dict()
    state["surplus"]["ranks"] *= 2
    with pytest.raises(ValueError, match="has the surplus of 2 processes and this run has 1; resume with as many"):
        drawing.load_state_dict(state)
    sampler(keep_surplus=False).load_state_dict(state)  # which drops it


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_rollouts_come_back_from_bytes() -> None:
    world = differing()
    made = world.play([0, 1, 2])
    made.extras = {"kept": torch.tensor([True, False] * 3), "wide": torch.arange(12).view(6, 2)}
    made.values = torch.randn(made.input_ids.shape)
    made.temperature, made.label = 0.7, "held out"
    for rollouts in (made, made.without_rows()):
        back = rollouts_from_bytes(rollouts_to_bytes(rollouts))
        back.validate()
        assert rollouts_to_bytes(back) == rollouts_to_bytes(rollouts)
        assert back.episodes == rollouts.episodes and back.figures == rollouts.figures
        assert torch.equal(back.values, rollouts.values) and torch.equal(back.extras["wide"], rollouts.extras["wide"])
        assert back.parties == rollouts.parties and back.ref_log_probs is None
        assert (back.temperature, back.label) == (0.7, "held out")


def test_what_a_checkpoint_cannot_hold_is_refused() -> None:
    made = differing().play([0])
    made.episodes[0].info["world"] = object()
    with pytest.raises(ValueError, match="info cannot be kept in a checkpoint .*let info hold numbers, texts"):
        rollouts_to_bytes(made)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts_per_draw": 0}, "dynamic_sampling.prompts_per_draw is 0; it must be at least 1"),
        ({"max_draws": -1}, "dynamic_sampling.max_draws is -1; it must be at least 0"),
        ({"max_consecutive_skips": 0}, "dynamic_sampling.max_consecutive_skips is 0"),
        ({"tolerance": -0.1}, "dynamic_sampling.tolerance is -0.1"),
        ({"tolerance": float("nan")}, "dynamic_sampling.tolerance is nan"),
        ({"on_exhausted": "skip"}, "dynamic_sampling.on_exhausted is 'skip'; use one of"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicSampling(**options)


def test_more_problems_at_a_time_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="draws 4 problems at a time, but there are 3 to train on"):
        sampler(order=Straight(3))


def test_runs_it_does_not_fit_are_refused() -> None:
    listening = type("ListenerExecution", (), {"reward_parts": ("listener_match",)})()
    with pytest.raises(ValueError, match=r"but ListenerExecution writes \['listener_match'\] later; leave one"):
        DynamicSampling().check_run([SimpleNamespace(), listening], allowed_lag=0)
    with pytest.raises(ValueError, match="keep_surplus needs model.allowed_lag, .* it is 0"):
        DynamicSampling(keep_surplus=True).check_run([], allowed_lag=0)
    DynamicSampling(keep_surplus=True).check_run([SimpleNamespace()], allowed_lag=1)
