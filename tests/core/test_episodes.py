"""Episodes and the tensors made of them: shapes refused, parts taken and put together again."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.episodes import ROW_FIELDS, Episode, Heard, Rollouts, Turn


def turn(party: str, exchange: int, prompt: list[int], said: list[int], **options: Any) -> Turn:
    log_probs = [-0.5 * (i + 1) for i in range(len(said))]
    return Turn(
        party=party, exchange=exchange, text="", prompt_ids=prompt, completion_ids=said, log_probs=log_probs, **options
    )


def episode(index: int, lengths: list[int], party: str = "student", new_rows: bool = False) -> Episode:
    """Turns of ``party`` with two inserted tokens each and replies of the given lengths, paid 1, 2 ..."""
    turns = [
        turn(party, i, [90, 91], [10 * index + j for j in range(n)], reward=i + 1.0, new_row=new_rows or i == 0)
        for i, n in enumerate(lengths)
    ]
    return Episode(index=index, task_id=f"t{index}", group=index // 2, seed=0, turns=turns, terminated=index % 2 == 0)


def rollouts(*episodes: Episode, **options: Any) -> Rollouts:
    arguments: dict[str, Any] = {"trained": ["student"], "parties": ["student", "teacher"]} | options
    return Rollouts.from_episodes(list(episodes), **arguments)


def filled(made: Rollouts) -> Rollouts:
    """Every optional field, an extra of each kind and a reward part, with numbers that tell places apart."""
    rows, tokens = made.input_ids.shape
    numbers = torch.arange(rows * tokens).view(rows, tokens) + 1
    for name in ("ref_log_probs", "values", "advantages", "returns", "target_weights"):
        setattr(made, name, numbers.float() * made.attention_mask)
    made.target_mask = made.attention_mask.clone()
    made.constraint_states = torch.where(made.loss_mask, numbers.int(), -1).int()
    made.extras = {"high": numbers.float() * made.attention_mask, "score": torch.arange(rows).float()}
    made.reward_parts = {"format": made.rewards * 0.1}
    made.validate()
    return made


def same(a: Rollouts, b: Rollouts) -> None:
    for name in ROW_FIELDS:
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        if x is not None:
            torch.testing.assert_close(x, y, rtol=0, atol=0, msg=name)
    for x, y in ((a.extras, b.extras), (a.reward_parts, b.reward_parts)):
        assert x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


def test_one_row_by_hand() -> None:
    heard = (Heard("teacher", 0, 1, 3),)
    turns = [
        turn("student", 0, [1, 2], [30, 31], reward=0.5, new_row=True),
        Turn(party="teacher", exchange=0, text="no"),
        turn("student", 1, [5, 40, 41, 6], [32], reward=1.0, heard=heard),
        turn("student", 1, [7], [], stop_reason="epilogue"),
    ]
    made = rollouts(Episode(index=3, task_id="t", group=1, seed=0, turns=turns, truncated=True))
    assert made.input_ids.tolist() == [[1, 2, 30, 31, 5, 40, 41, 6, 32, 7]]
    assert made.loss_mask.int().tolist() == [[0, 0, 1, 1, 0, 0, 0, 0, 1, 0]]
    assert made.party_ids.tolist() == [[-1, -1, 0, 0, -1, 1, 1, -1, 0, -1]]
    assert made.turn_ids.tolist() == [[-1, -1, 0, 0, -1, 0, 0, -1, 1, -1]]
    assert made.old_log_probs.tolist() == [[0, 0, -0.5, -1, 0, 0, 0, 0, -0.5, 0]]
    assert made.rewards.tolist() == [[0.5, 1.0]] and made.turn_valid.tolist() == [[True, True]]
    assert (made.group_ids.tolist(), made.episode_ids.tolist()) == ([1], [3])
    assert (made.terminated.tolist(), made.truncated.tolist()) == ([False], [True])
    assert made.constraint_states is None and made.advantages is None
    made.validate()


def test_padding_and_valid_turns() -> None:
    made = rollouts(episode(0, [1]), episode(1, [2, 3]), pad_id=99)
    assert made.input_ids.tolist() == [[90, 91, 0, *[99] * 6], [90, 91, 10, 11, 90, 91, 10, 11, 12]]
    assert made.attention_mask.sum(1).tolist() == [3, 9]
    assert made.party_ids[0, 3:].tolist() == made.turn_ids[0, 3:].tolist() == [-1] * 6
    assert made.rewards.tolist() == [[1, 0], [1, 2]]
    assert made.turn_valid.tolist() == [[True, False], [True, True]]
    for name, (dtype, _) in ROW_FIELDS.items():
        tensor = getattr(made, name)
        assert tensor is None or tensor.dtype == dtype


def test_two_payments_in_one_exchange_add_up() -> None:
    turns = [turn("student", 0, [1], [2], reward=1.0, new_row=True), turn("student", 0, [3], [4], reward=0.25)]
    made = rollouts(Episode(index=0, task_id="t", group=0, seed=0, turns=turns))
    assert made.rewards.tolist() == [[1.25]]


def test_constraint_states_are_offset() -> None:
    bound = turn("student", 0, [1], [2, 3], constraint="b", constraint_states=[0, 1], new_row=True)
    made = rollouts(Episode(index=0, task_id="t", group=0, seed=0, turns=[bound]), constraint_offsets={"a": 0, "b": 7})
    assert made.constraint_states is not None and made.constraint_states.tolist() == [[-1, 7, 8]]


def test_rows_of_one_episode_and_their_statistics() -> None:
    """Three rows of one episode count once: `one_row_per_episode` picks the first and says who belongs to it."""
    made = rollouts(episode(4, [1, 1, 1], new_rows=True), episode(2, [2]))
    assert made.episode_ids.tolist() == [4, 4, 4, 2]
    assert made.rewards.tolist() == [[1, 2, 3]] * 3 + [[1, 0, 0]]
    first, back = made.one_row_per_episode()
    assert first.tolist() == [3, 0] and back.tolist() == [1, 1, 1, 0]
    assert torch.equal(made.episode_ids[first][back], made.episode_ids)


def test_a_row_that_learns_nothing_counts_with_the_others_of_its_episode() -> None:
    made = rollouts(episode(4, [1, 1, 1], new_rows=True), episode(2, [2]), episode(3, [1, 1], new_rows=True))
    made.loss_mask[[0, 2]] = False  # of the first episode two rows, as credit may narrow them
    made.loss_mask[[4, 5]] = False  # of the last one all
    first, back = made.one_row_per_episode()
    assert first.tolist() == [3, 4, 0] and back.tolist() == [2, 2, 2, 0, 1, 1]


def test_parties_of_one_episode_are_counted_apart() -> None:
    both = episode(0, [1, 2])
    both.turns += [turn("teacher", 0, [5], [6], new_row=True)]
    made = rollouts(both, trained=["student", "teacher"])
    first, back = made.one_row_per_episode()
    assert len(made) == 2 and first.tolist() == [0, 1] and back.tolist() == [0, 1]


# -- taking apart and putting together -------------------------------------------------------------------------

lengths = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=6)


@given(lengths)
def test_cat_undoes_select(lengths: list[list[int]]) -> None:
    made = filled(rollouts(*(episode(i, turns) for i, turns in enumerate(lengths))))
    parts = [made.select(torch.tensor([row])) for row in range(len(made))]
    for row, part in enumerate(parts):
        part.validate()
        assert part.input_ids.shape[1] == int(made.attention_mask[row].sum())
        assert [e.index for e in part.episodes] == [row]
    joined = Rollouts.cat(parts)
    same(joined, made)
    assert joined.episodes == made.episodes


@given(lengths, st.integers(1, 60))
def test_micro_batches_hold_every_row_once_within_budget(lengths: list[list[int]], budget: int) -> None:
    made = rollouts(*(episode(i, turns) for i, turns in enumerate(lengths)))
    parts = list(made.micro_batches(budget))
    assert sorted(i for part in parts for i in part.episode_ids.tolist()) == list(range(len(made)))
    assert sum(int(part.loss_mask.sum()) for part in parts) == int(made.loss_mask.sum())
    for part in parts:
        assert len(part) == 1 or part.input_ids.numel() <= budget
        assert part.policy_version == made.policy_version and part.parties == made.parties
    rows = [row for indices in made.micro_batch_rows(budget) for row in indices.tolist()]
    assert rows == [i for part in parts for i in part.episode_ids.tolist()]


def test_a_long_row_does_not_pad_the_short_ones() -> None:
    """96 rows of few tokens and one of many: within the budget together, but mostly padding."""
    made = rollouts(*(episode(i, [1]) for i in range(96)), episode(96, [60]))
    short = int(made.attention_mask.sum(1).min())
    parts = [tuple(part.input_ids.shape) for part in made.micro_batches(10**6)]
    assert parts == [(96, short), (1, made.input_ids.shape[1])]


def test_select_by_mask_and_by_index() -> None:
    made = filled(rollouts(*(episode(i, [i + 1]) for i in range(4))))
    by_mask = made.select(torch.tensor([True, False, True, False]))
    same(by_mask, made.select(torch.tensor([0, 2])))
    assert made.select(torch.tensor([2, 0])).episode_ids.tolist() == [2, 0]
    assert by_mask.extras["high"].shape == by_mask.input_ids.shape
    assert by_mask.reward_parts["format"].shape == by_mask.rewards.shape
    with pytest.raises(ValueError, match="no rows were selected"):
        made.select(torch.tensor([False] * 4))


def test_to_keeps_types_and_everything_else() -> None:
    made = filled(rollouts(episode(0, [1]), episode(1, [2]), label="val", temperature=0.7, policy_version=3))
    moved = made.to("cpu")
    same(moved, made)
    assert (moved.label, moved.temperature, moved.policy_version) == ("val", 0.7, 3)
    assert moved.episodes == made.episodes


def test_cat_takes_the_oldest_version_and_refuses_uneven_parts() -> None:
    a, b = rollouts(episode(0, [1]), policy_version=5), rollouts(episode(1, [1, 4]), policy_version=3)
    joined = Rollouts.cat([a, b], pad_id=99)
    assert joined.policy_version == 3 and len(joined) == 2
    assert joined.input_ids[0, 3:].unique().tolist() == [99]
    assert joined.party_ids[0, 3:].unique().tolist() == [-1]
    a.advantages = torch.zeros(a.input_ids.shape)
    with pytest.raises(ValueError, match="advantages is filled in 1 of 2 parts"):
        Rollouts.cat([a, b])
    a.advantages, a.extras = None, {"score": torch.zeros(1)}
    with pytest.raises(ValueError, match="different extras or reward_parts"):
        Rollouts.cat([a, b])


def test_cat_of_constrained_and_free_parts() -> None:
    """Whether a batch happened to hold a constrained turn is chance: a free part has -1 throughout."""
    bound = turn("student", 0, [1], [2], constraint="b", constraint_states=[0], new_row=True)
    first = rollouts(Episode(index=0, task_id="t", group=0, seed=0, turns=[bound]), constraint_offsets={"b": 2})
    joined = Rollouts.cat([first, rollouts(episode(1, [3]))])
    assert joined.constraint_states is not None
    assert joined.constraint_states.tolist() == [[-1, 2, -1, -1, -1], [-1] * 5]


def test_cat_refuses_batches_that_are_not_alike() -> None:
    a = rollouts(episode(0, [1]))
    with pytest.raises(ValueError, match="parts differ in temperature"):
        Rollouts.cat([a, rollouts(episode(1, [1]), temperature=0.5)])
    with pytest.raises(ValueError, match="parts differ in parties"):
        Rollouts.cat([a, rollouts(episode(1, [1]), parties=["student"])])


# -- bad input -------------------------------------------------------------------------------------------------


def test_validator_names_field_found_and_wanted() -> None:
    made = filled(rollouts(episode(0, [1]), episode(1, [2])))
    good = made.advantages
    for wrong, message in (
        (torch.zeros(2, 3), r"Rollouts.advantages has shape \(2, 3\); wanted \(2, 4\) \(BT\)"),
        (torch.zeros(2, 4, dtype=torch.float64), "Rollouts.advantages is torch.float64; wanted torch.float32"),
    ):
        made.advantages = wrong
        with pytest.raises(ValueError, match=message):
            made.validate()
    made.advantages = good
    made.extras["score"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"Rollouts.extras\['score'\] has shape \(3,\); its first dimension must be"):
        made.validate()
    made.extras["score"] = torch.zeros(2)
    made.rewards = torch.zeros(3, 1)
    with pytest.raises(ValueError, match=r"Rollouts.(rewards|turn_valid) has shape"):
        made.validate()


def test_required_and_unknown_fields() -> None:
    made = rollouts(episode(0, [1]))
    fields = {name: getattr(made, name) for name in ROW_FIELDS}
    with pytest.raises(ValueError, match="Rollouts.loss_mask is missing"):
        Rollouts(**{**fields, "loss_mask": None})
    with pytest.raises(ValueError, match="Rollouts has no field 'advantage'; further tensors go into extras"):
        Rollouts(**fields, advantage=made.rewards)
    with pytest.raises(ValueError, match="loss_mask is True on padding"):
        Rollouts(**{**fields, "attention_mask": torch.zeros_like(made.attention_mask)})


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="no episodes were given"):
        rollouts()
    with pytest.raises(ValueError, match=r"None of 1 episodes has a turn of a trained party \['teacher'\]"):
        rollouts(episode(0, [1]), trained=["teacher"])


def test_turns_check_their_lists() -> None:
    with pytest.raises(ValueError, match="student: 2 completion_ids, 1 log_probs. Give one per sampled token"):
        Turn(party="student", exchange=0, text="", completion_ids=[1, 2], log_probs=[-1.0])
    with pytest.raises(ValueError, match="1 completion_ids, 0 constraint_states"):
        turn("student", 0, [], [1], constraint="b")


def test_repr() -> None:
    made = rollouts(episode(0, [1]), episode(1, [2]), episode(2, [1, 1]), policy_version=4)
    made.advantages = torch.zeros(made.input_ids.shape)
    assert repr(made) == (
        "Rollouts(3 rows x 6 tokens, 5 trained, 2 exchanges, 2 groups, parties=('student', 'teacher'), "
        "policy_version=4, filled=['advantages'])"
    )
