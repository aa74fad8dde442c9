"""The memory baseline: what is near, what was best, and what is drawn."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.service.memory import SkillMemory

ALL = ["a", "b", "c"]


def remembered(*facts: tuple[tuple[int, ...], str, float], **options: float) -> SkillMemory:
    memory = SkillMemory(**options)
    for state, skill, value in facts:
        memory.add(state, skill, value)
    return memory


def test_the_best_mean_of_the_nearest_states_by_hand() -> None:
    facts = [
        ((0, 0, 0), "a", 1.0), ((0, 0, 0), "a", 0.0), ((0, 0, 0), "b", 0.4),
        ((0, 1, 1), "b", 0.8), ((1, 1, 1), "c", 9.0),
    ]  # fmt: skip
    near = remembered(*facts, neighbours=1)
    assert near.choose((0, 0, 0), ALL, key=0) == "a"  # .5 against .4
    assert near.choose((0, 0, 1), ALL, key=0) == "a"  # (0, 0, 0) is older than (0, 1, 1), and as near
    assert near.choose((0, 1, 1), ALL, key=0) == "b"
    two = remembered(*facts, neighbours=2)
    assert two.choose((0, 0, 0), ALL, key=0) == "b"  # .5 against (.4 + .8) / 2
    assert remembered(*facts, neighbours=3).choose((0, 0, 0), ALL, key=0) == "c"
    assert len(two) == 3


def test_only_states_with_an_admissible_skill_are_compared() -> None:
    memory = remembered(((0, 0), "a", 1.0), ((1, 1), "b", 0.1), neighbours=1)
    assert memory.choose((0, 0), ["b", "c"], key=0) == "b"
    drawn = Counter(memory.choose((0, 0), ["c", "d"], key=key) for key in range(200))
    assert min(drawn["c"], drawn["d"]) > 60  # nothing is remembered of either


def test_ties_go_to_the_first_admissible_skill() -> None:
    memory = remembered(((0,), "a", 0.5), ((0,), "b", 0.5))
    assert (memory.choose((0,), ["b", "a"], key=3), memory.choose((0,), ["a", "b"], key=3)) == ("b", "a")


def test_exploration_only_while_collecting() -> None:
    memory = remembered(((0,), "a", 1.0), exploration=0.5)
    assert {memory.choose((0,), ALL, key=key) for key in range(50)} == {"a"}
    drawn = Counter(memory.choose((0,), ALL, key=key, collecting=True) for key in range(600))
    assert drawn["a"] == pytest.approx(400, abs=50) and drawn["b"] == pytest.approx(100, abs=40)  # 1/2 + 1/6
    always = remembered(((0,), "a", 1.0), exploration=1.0)
    assert {always.choose((0,), ALL, key=key, collecting=True) for key in range(50)} == set(ALL)
    never = remembered(((0,), "a", 1.0), exploration=0.0)
    assert {never.choose((0,), ALL, key=key, collecting=True) for key in range(50)} == {"a"}


def test_draws_depend_on_seed_and_key_alone() -> None:
    first, again, other = (SkillMemory(exploration=1.0, seed=seed) for seed in (0, 0, 1))
    draws = [[m.choose((0,), ALL, key=key) for key in range(30)] for m in (first, again, other)]
    assert draws[0] == draws[1] != draws[2]
    assert first.choose((0,), ALL, key=7) == draws[0][7]


FACTS = st.lists(
    st.tuples(st.tuples(st.integers(0, 1), st.integers(0, 2), st.booleans()), st.sampled_from(ALL), st.floats(-1, 1)),
    max_size=12,
)


@settings(max_examples=30)
@given(facts=FACTS, state=st.tuples(st.integers(0, 1), st.integers(0, 2), st.booleans()))
def test_a_run_goes_on_from_its_state(facts: list[tuple[tuple[int, ...], str, float]], state: tuple[int, ...]) -> None:
    memory, resumed = remembered(*facts, neighbours=2), SkillMemory(neighbours=2)
    resumed.load_state_dict(json.loads(json.dumps(memory.state_dict())))
    chosen = memory.choose(state, ["b", "c"], key=1)
    assert chosen in ("b", "c") and resumed.choose(state, ["b", "c"], key=1) == chosen
    resumed.add(state, "b", 5.0)
    assert memory.state_dict() == remembered(*facts, neighbours=2).state_dict()  # the other is another


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"neighbours 0 and exploration 0.1; the first must be at least 1"):
        SkillMemory(neighbours=0)
    with pytest.raises(ValueError, match=r"exploration 2"):
        SkillMemory(exploration=2)
    memory = remembered(((0, 1), "a", 1.0))
    with pytest.raises(ValueError, match=r"the state \(0,\) has 1 features; others have 2"):
        memory.choose((0,), ALL, key=0)
    with pytest.raises(ValueError, match=r"the return is nan; it must be a finite number"):
        memory.add((0, 1), "a", float("nan"))
    with pytest.raises(ValueError, match=r"no skill is admissible"):
        memory.choose((0, 1), [], key=0)
