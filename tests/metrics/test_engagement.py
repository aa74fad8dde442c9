"""TSE: the ToyShop dialogues of gopo.md 11, and the properties of its section 12 (4)."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.metrics.engagement import Milestones, first_turns, progress, tse

WEIGHTS = {"need": 0.15, "rec": 0.25, "res": 0.20, "order": 0.40}
OBJECTION = Milestones(weights=WEIGHTS, expert_turns={"need": 2, "rec": 3, "res": 4, "order": 6})
NO_OBJECTION = Milestones(weights=WEIGHTS, expert_turns={"need": 2, "rec": 3, "res": 3, "order": 5})

Played = list[tuple[list[str], float]]  # milestones and engagement of each turn

GREET, COUPON, POLICY, CLOSE, NOTHING = [(names, felt) for names, felt in (
    ([], 0.5), ([], 1.0), ([], 0.3), (["order"], 1.0), ([], 0.0),
)]  # fmt: skip
ASK, REC, REC_NONE, TRUST, RESOLVED = [(names, felt) for names, felt in (
    (["need"], 0.6), (["rec"], 0.8), (["rec", "res"], 0.8), (["res"], 0.8), (["res"], 1.0),
)]  # fmt: skip

GOLDEN: list[tuple[str, Milestones, Played, float, float, float]] = [
    ("best, none", NO_OBJECTION, [GREET, ASK, REC_NONE, POLICY, CLOSE], 1.0, 0.64, 0.82),
    ("best, price", OBJECTION, [GREET, ASK, REC, RESOLVED, POLICY, CLOSE], 1.0, 0.70, 0.85),
    ("best, trust", OBJECTION, [GREET, ASK, REC, TRUST, POLICY, CLOSE], 1.0, 0.666667, 0.833333),
    ("myopic, none", NO_OBJECTION, [GREET, COUPON, ASK, REC_NONE, POLICY, CLOSE], 0.9, 0.70, 0.765),
    ("myopic, price", OBJECTION, [GREET, COUPON, ASK, REC, POLICY, *[NOTHING] * 3], 0.36, 0.40, 0.252),
    ("myopic, trust", OBJECTION, [GREET, COUPON, ASK, REC, TRUST, POLICY, CLOSE], 0.9, 0.714286, 0.771429),
    ("price, early close", OBJECTION, [GREET, ASK, REC, NOTHING, RESOLVED, POLICY, CLOSE], 0.94, 0.60, 0.752),
    ("none, REC first", NO_OBJECTION, [GREET, NOTHING, ASK, REC_NONE], 0.54, 0.475, 0.39825),
    ("handoff", NO_OBJECTION, [NOTHING], 0.0, 0.0, 0.0),
]


def score(played: Played, task: Milestones = OBJECTION, **options: float) -> float:
    return tse([names for names, _ in played], [felt for _, felt in played], task, **options)


@pytest.mark.parametrize(("name", "task", "played", "reached", "felt", "expected"), GOLDEN)
def test_dialogues_of_section_11(
    name: str, task: Milestones, played: Played, reached: float, felt: float, expected: float
) -> None:
    achieved = first_turns([names for names, _ in played])
    assert progress(achieved, task) == pytest.approx(reached, abs=1e-9)
    assert score(played, task, engagement_weight=1.0) == pytest.approx(reached * felt, abs=1e-6)
    assert score(played, task, engagement_weight=0.0) == pytest.approx(reached, abs=1e-9)
    assert score(played, task) == pytest.approx(expected, abs=1e-6)


def test_means_of_section_11() -> None:
    for kind, mean in (("best", 0.834444), ("myopic", 0.596143)):
        rows = [score(played, task) for name, task, played, *_ in GOLDEN if name.startswith(kind)]
        assert len(rows) == 3 and math.fsum(rows) / 3 == pytest.approx(mean, abs=1e-6)


def test_milestones_of_turns_that_break_rules_do_not_count_in_the_compliant_one() -> None:
    turns, felt = [["need"], ["rec"], ["need", "res"], ["order"]], [1.0, 1.0, 1.0, 1.0]
    task = Milestones(weights=WEIGHTS, expert_turns=dict.fromkeys(WEIGHTS, 4))
    assert tse(turns, felt, task) == 1.0
    compliant = tse(turns, felt, task, broken=[True, False, False, True])
    assert compliant == pytest.approx(0.45)  # rec and res; a need that is asked for again does not count
    assert tse(turns, felt, task, broken=[False] * 4) == 1.0


def test_a_dialogue_without_turns_is_worth_nothing() -> None:
    assert tse([], [], OBJECTION) == 0.0


NAMES = st.lists(st.sampled_from(sorted(WEIGHTS)), max_size=3)
PLAYED = st.lists(st.tuples(NAMES, st.floats(0, 1)), min_size=1, max_size=8)


@settings(max_examples=60)
@given(played=PLAYED, place=st.integers(0, 7), felt=st.floats(0, 1), name=st.sampled_from(sorted(WEIGHTS)))
def test_properties_of_section_12(played: Played, place: int, felt: float, name: str) -> None:
    """Item 4: within [0, 1], monotone in engagement, in milestones and in earliness; empty turns never help."""
    place %= len(played)
    before = score(played)
    assert 0.0 <= before <= 1.0
    happier = [*played]
    happier[place] = (played[place][0], max(felt, played[place][1]))
    assert score(happier) >= before - 1e-12
    reached = [*played]
    reached[place] = ([*played[place][0], name], played[place][1])
    assert score(reached) >= before - 1e-12
    earlier = [*reached]
    earlier[0] = ([*earlier[0][0], name], earlier[0][1])
    assert score(earlier) >= score(reached) - 1e-12
    assert score([*played[:place], NOTHING, *played[place:]]) <= before + 1e-12
    assert score([*played, NOTHING]) <= before + 1e-12
    broken = [turn % 2 == 0 for turn in range(len(played))]
    turns, engagement = [names for names, _ in played], [felt for _, felt in played]
    assert tse(turns, engagement, OBJECTION, broken=broken) <= before


def test_only_a_whole_dialogue_is_worth_one() -> None:
    on_time = [(["need", "rec", "res", "order"], 1.0)]
    assert score(on_time) == 1.0
    assert score([(["need", "rec", "res", "order"], 0.99)]) < 1.0
    assert score([(["need", "rec", "res"], 1.0)]) < 1.0
    assert score([([], 1.0)] * 6 + on_time) < 1.0  # the order comes in turn 7, one late


def test_options_have_their_effect() -> None:
    late = [([], 0.5)] * 6 + [(["need"], 0.5)]  # 5 turns late
    assert score(late, lateness_discount=0.5) == pytest.approx(0.15 * 0.5**5 * 0.75)
    assert score(late, lateness_discount=1.0) == pytest.approx(0.15 * 0.75)
    assert score(late, engagement_weight=0.2) == pytest.approx(0.15 * 0.9**5 * 0.9)


@pytest.mark.parametrize(
    ("weights", "turns", "message"),
    [
        ({"a": 1.0}, {"b": 1}, r"weights for \['a'\] and expert_turns for \['b'\]; both need the same names"),
        ({}, {}, r"the same names, one at least"),
        ({"a": 0.6, "b": 0.6}, {"a": 1, "b": 1}, r"each must be above 0, and their sum 1"),
        ({"a": math.nan}, {"a": 1}, r"each must be above 0, and their sum 1"),
        ({"a": 1.0, "b": 0.0}, {"a": 1, "b": 1}, r"each must be above 0"),
        ({"a": 1.0}, {"a": 0}, r"turns are counted from 1"),
    ],
)
def test_milestones_say_what_is_wrong(weights: dict[str, float], turns: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Milestones(weights=weights, expert_turns=turns)


def test_tse_says_what_is_wrong() -> None:
    def refused(message: str, turns: Sequence[Sequence[str]], felt: Sequence[float], **options: object) -> None:
        with pytest.raises(ValueError, match=message):
            tse(turns, felt, OBJECTION, **options)

    refused(r"There are 1 turns and 0 values of engagement", [[]], [])
    refused(r"There are 1 turns and 2 values of broken", [[]], [0.5], broken=[True, False])
    refused(r"The engagement after turn 2 is 1.5; it must lie in \[0, 1\]", [[], []], [0.5, 1.5])
    refused(r"The engagement after turn 1 is nan", [[]], [math.nan])
    refused(r"achieved \['sale'\]; the milestones are \['need', 'order', 'rec', 'res'\]", [["sale"]], [0.5])
    refused(r"lateness_discount 0.0 and engagement_weight 0.5", [[]], [0.5], lateness_discount=0.0)
    refused(r"engagement_weight 2.0; the first must lie", [[]], [0.5], engagement_weight=2.0)
