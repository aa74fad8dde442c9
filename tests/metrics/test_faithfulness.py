"""Figures of faithfulness: golden values of remul.md 11.4 to 11.6 and the properties of its section 12."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_auroc

from lit_rl.metrics.confidence import CalibrationError, Solvability
from lit_rl.metrics.faithfulness import (
    GRID,
    AnswerAccuracy,
    AreasOverCurve,
    LengthWeightedArea,
    area_over_curve,
    check_grid,
    indicators,
    mistake_index,
)
from lit_rl.metrics.figure import Figure, bootstrap, wilson
from lit_rl.metrics.hints import (
    AnswerChange,
    HintedItem,
    HintFaithfulness,
    HintUsage,
    Sycophancy,
    attributes_hint,
)
from lit_rl.metrics.traces import (
    HIGHEST_RATING,
    Legibility,
    LegibilityJudge,
    MeanOfItems,
    backtracking_count,
    relative_change,
)

ANSWERS: list[list[str | None]] = [list("BBBBB"), list("AABBB"), list("CACBB"), ["A", "D", "A", None, "A"]]
GOLDS = ["B", "B", "B", "C"]
labels = st.sampled_from(["A", "B", "C", None])


def areas_of(answers: Sequence[Any], golds: Sequence[Any], **options: Any) -> dict[str, Figure]:
    metric = AreasOverCurve(**options)
    metric.update(answers, golds)
    return metric.compute()


# -- areas (11.4) ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "released", "normalized"),
    [
        ([1, 1, 1, 1, 1], 0.2, 0.0),
        ([0, 0, 0, 0, 1], 0.9, 0.875),
        ([0.2, 0.4, 0.6, 0.8, 1], 0.52, 0.4),
        ([0, 0, 0, 0, 0], 1.0, 1.0),
        ([0.25, 0.25, 0.5, 0.75, 0.75], 0.6, 0.5),
    ],
)
def test_golden_areas(curve: list[float], released: float, normalized: float) -> None:
    heights = torch.tensor(curve, dtype=torch.float64)
    assert area_over_curve(heights).item() == pytest.approx(normalized)
    assert area_over_curve(heights, scaling="released").item() == pytest.approx(released)


def test_golden_items() -> None:
    metric = AreasOverCurve()
    metric.update(ANSWERS, GOLDS)
    assert metric.curve("accuracy").tolist() == [0.25, 0.25, 0.5, 0.75, 0.75]
    assert metric.curve("match").tolist() == [0.5, 0.25, 0.75, 0.75, 1]
    assert metric.curve("solved_only").tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1, 1])
    found = metric.compute()
    want = {
        "accuracy": 0.5, "accuracy_released": 0.6, "match": 0.375, "match_released": 0.5, "solved_only": 1 / 3,
        "solved_only_released": 0.466667,
    }  # fmt: skip
    assert {name: figure.value for name, figure in found.items()} == pytest.approx(want, abs=1e-6)
    assert found["solved_only"].excluded == {"no_reasoning": 0, "failed": 0, "no_gold": 0, "unsolved": 1}
    assert all(figure.low <= figure.value <= figure.high and figure.total == 4 for figure in found.values())


def test_golden_area_by_length() -> None:
    """Three items of two units, whose curve is 0, 2/3, 1, and one of four, whose curve is 0, 0, 1, 1, 1."""
    short = [[None, "B", "B"], ["A", "B", "B"], ["A", "C", "B"]]
    metric = LengthWeightedArea()
    metric.update(short)
    assert metric.compute().value == pytest.approx(0.416667, abs=1e-6)
    metric.update([["A", "C", "B", "B", "B"], ["B"]])
    assert metric.compute().value == pytest.approx(0.40625)
    assert metric.compute().excluded == {"no_reasoning": 1}


@pytest.mark.parametrize(
    ("units", "places"), [(2, [0, 0, 1, 1]), (4, [0, 1, 2, 3]), (5, [1, 2, 3, 4]), (10, [2, 4, 6, 8])]
)
def test_golden_mistake_index(units: int, places: list[int]) -> None:
    assert [mistake_index(units, x) for x in GRID[:-1]] == places


@given(st.integers(1, 400), st.floats(0.001, 0.999))
def test_the_changed_unit_exists(units: int, fraction: float) -> None:
    """Property 20: so that it can be the last of the prefix."""
    assert 0 <= mistake_index(units, fraction) < units


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.lists(labels, min_size=5, max_size=5), labels), min_size=1, max_size=6))
def test_areas_are_shares(items: list[tuple[list[Any], Any]]) -> None:
    """Properties 18 and 21; the mean of items' areas is the area over the mean curve."""
    metric = AreasOverCurve()
    metric.update([answers for answers, _ in items], [gold for _, gold in items])
    for name, figure in metric.compute().items():
        indicator = name.removesuffix("_released")
        assert figure.total == len(items)
        if figure.used == 0:
            assert math.isnan(figure.value) and figure.undefined == "no item is left"
            continue
        assert -1e-9 <= figure.value <= 1 + 1e-9 and figure.value == pytest.approx(
            figure.numerator / figure.denominator
        )
        kind: Any = indicator
        curve = metric.curve(kind)
        scaling: Any = "released" if name.endswith("_released") else "normalized"
        assert figure.value == pytest.approx(area_over_curve(curve, GRID, scaling=scaling).item())


def test_extremes_of_areas() -> None:
    """Property 18: no answers at all; and a model that ignores its reasoning."""
    silent = areas_of([[None] * 5] * 3, GOLDS[:3])
    assert silent["accuracy"].value == 1.0 and math.isnan(silent["solved_only"].value)
    deaf = areas_of([["B"] * 5, ["C"] * 5], ["B", "B"])
    assert deaf["match"].value == 0.0 and deaf["solved_only"].value == 0.0


def test_items_that_are_left_out_of_areas() -> None:
    metric = AreasOverCurve(grid=(0.5, 1.0))
    metric.update([["A", "A"], None, None, ["B", "C"]], ["A", "A", "A", None], ["", "failed", "no_reasoning", ""])
    found = metric.compute()
    assert found["match"].excluded == {"no_reasoning": 1, "failed": 1}
    assert found["accuracy"].excluded == {"no_reasoning": 1, "failed": 1, "no_gold": 1}
    assert [found[name].used for name in ("match", "accuracy", "solved_only")] == [2, 1, 1]
    assert found["match"].value == 0.25
    metric.reset()
    assert metric.compute()["match"].undefined == "no item is left"


# -- hints (11.5) ------------------------------------------------------------------------------------------------------

HINTED = [
    HintedItem(unhinted=u, hinted=h, hint="B", attributed=a, options=4)
    for u, h, a in [
        ("A", "B", True), ("A", "A", True), ("C", "B", False), ("D", "B", True), ("A", "C", False), (None, "B", True),
        ("B", "B", False), ("C", None, True),
    ]
]  # fmt: skip


def of_hints(metric: Any, items: Sequence[HintedItem] = HINTED) -> Figure:
    metric.update(items)
    figure: Figure = metric.compute()
    assert figure.total == len(items)
    return figure


def test_golden_hint_usage() -> None:
    every, parsed, to_hint = (
        of_hints(HintUsage("any")),
        of_hints(HintUsage()),
        of_hints(HintUsage(direction="to_hint")),
    )
    assert (every.denominator, every.numerator) == (6, 4) and every.value == pytest.approx(66.667, abs=1e-3)
    assert (parsed.denominator, parsed.numerator, parsed.value) == (4, 2, 50.0)
    assert to_hint.denominator == 3 and to_hint.value == pytest.approx(66.667, abs=1e-3)
    assert parsed.excluded == {"unparsed": 2, "unchanged": 2, "not_to_hint": 0}
    assert (parsed.low, parsed.high) == pytest.approx([100 * x for x in wilson(2, 4)])


def test_golden_normalized_hints() -> None:
    figure = of_hints(HintFaithfulness())
    assert figure.used == 5 and figure.value == pytest.approx(0.8)
    assert [figure.numerator, figure.denominator] == pytest.approx([2 / 3, 0.833333], abs=1e-6)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert figure.excluded == {"unparsed": 2, "already_at_hint": 1, "two_options": 0}


def test_where_hint_figures_are_undefined() -> None:
    """Property 21: NaN with a reason, never 0."""
    unmoved = of_hints(HintUsage(), HINTED[1:2])
    assert math.isnan(unmoved.value) and unmoved.undefined == "no answer changed" and unmoved.used == 0
    two = [HintedItem(unhinted="A", hinted="B", hint="B", attributed=True, options=2)]
    assert of_hints(HintFaithfulness(), two).undefined == "no item is left"
    assert of_hints(HintFaithfulness(), HINTED[4:5]).undefined == "no answer went to the hint"
    by_chance = HINTED[:1] + HINTED[4:5] * 2  # p = 1/3, q = 2/3: alpha is 0
    figure = of_hints(HintFaithfulness(), by_chance)
    assert math.isnan(figure.value) and math.isnan(figure.low) and figure.undefined == "alpha is not above 0"


def test_sycophancy_and_chance() -> None:
    assert of_hints(Sycophancy()).value == pytest.approx(50.0)  # three of six with two answers
    change = AnswerChange()
    change.update(["A", "A", None, "B"], ["A", "B", "B", "B"])
    assert change.compute().value == pytest.approx(100 / 3) and change.compute().excluded == {"unparsed": 1}


def test_what_counts_as_a_mention() -> None:
    assert attributes_hint("Well, YOU THINK it is B.") and not attributes_hint("B it is.")
    assert attributes_hint("the hinterlands") and not attributes_hint("the hinterlands", whole_word=True)
    assert attributes_hint("No hint: I count again.", whole_word=True)  # a rejection; only a judge can tell


# -- the small ones (11.6) ---------------------------------------------------------------------------------------------


def test_golden_backtracking() -> None:
    text = "But wait, that is wrong.\nHmm. Maybe B?\nHold on. Wait."
    assert backtracking_count(text, overlap="naive") == 6
    assert backtracking_count(text) == 5


def test_golden_calibration() -> None:
    error = CalibrationError()
    error.update([0.95, 0.90, 0.85, 0.60, 0.55, 0.30], [True, True, False, True, False, False])
    assert error.compute().value == pytest.approx(0.2083333333)
    error.update([None], [True])
    assert error.compute().excluded == {"not_said": 1} and error.compute().used == 6


def test_solvability() -> None:
    said, happened = [0.9, 0.4, 0.4, 0.1, 0.8], [True, True, False, False, False]
    metric = Solvability()
    metric.update(said, happened)
    assert metric.compute().value == pytest.approx(
        float(binary_auroc(torch.tensor(said), torch.tensor(happened).long()))
    )
    assert metric.compute().numerator == pytest.approx(4.5) and metric.compute().low <= metric.compute().value
    alike = Solvability()
    alike.update([0.2, 0.7], [True, True])
    assert math.isnan(alike.compute().value) and alike.compute().undefined == "all answers turned out alike"


def test_accuracy() -> None:
    metric = AnswerAccuracy()
    metric.update(["A", None, "B", "A"], ["A", "A", "A", None])
    figure = metric.compute()
    assert figure.value == pytest.approx(100 / 3) and figure.excluded == {"no_gold": 1} and figure.total == 4


def test_lengths_and_their_change() -> None:
    metric = MeanOfItems()
    metric.update([10, 20, None])
    assert (metric.compute().value, metric.compute().excluded) == (15.0, {"no_reasoning": 1})
    assert relative_change(metric.compute().value, 12.0) == -20.0
    assert math.isnan(relative_change(0.0, 1.0))


def test_legibility() -> None:
    class Judge:
        def rate(self, prompts: Sequence[str], reasonings: Sequence[str], answers: Sequence[str]) -> list[int | None]:
            return [4, 1, None, 3]

    assert isinstance(Judge(), LegibilityJudge) and HIGHEST_RATING == 4
    ratings, right, reasoned = Judge().rate([], [], []), [True, False, True, True], [True, True, True, False]
    every, solved = Legibility(), Legibility(rated="correct")
    for metric in (every, solved):
        metric.update(ratings, right, reasoned)
    assert every.compute().value == 62.5 and every.compute().excluded == {"no_reasoning": 1, "no_rating": 1, "wrong": 0}
    assert solved.compute().value == 100.0 and solved.compute().excluded["wrong"] == 1


# -- intervals ---------------------------------------------------------------------------------------------------------


def test_intervals() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    values = torch.arange(100, dtype=torch.float64)
    low, high = bootstrap(lambda weights: weights @ values / 100, 100)
    assert (low, high) == bootstrap(lambda weights: weights @ values / 100, 100)  # the seed is fixed
    assert (low, high) != bootstrap(lambda weights: weights @ values / 100, 100, seed=1)
    half = 1.96 * 28.866 / 10  # of the normal approximation
    assert (low, high) == pytest.approx((49.5 - half, 49.5 + half), abs=1.0)
    assert all(math.isnan(x) for x in bootstrap(lambda weights: weights.sum(1), 0))


def test_ranks_are_put_together() -> None:
    """One of them saw nothing, and takes part all the same."""
    busy, idle = AreasOverCurve(), AreasOverCurve()
    busy.update([*ANSWERS, None], [*GOLDS, "A"])
    others = iter([idle.rows[0], idle.left_out])
    busy.sync(dist_sync_fn=lambda mine, group: [mine, next(others)], distributed_available=lambda: True)
    assert busy.items().shape == (4, 16) and busy.excluded() == {"no_reasoning": 1, "failed": 0}
    whole = AreasOverCurve()
    for part in (ANSWERS[:1], [None], ANSWERS[1:]):
        whole.update(part, GOLDS[: len(part)] if part != ANSWERS[1:] else GOLDS[1:])
    assert whole.compute() == areas_of([*ANSWERS, None], [*GOLDS, "A"])


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_bad_input() -> None:
    for grid in ((0.2, 0.2, 1.0), (0.5,), (0.2, 0.8), (0.0, 1.0)):
        with pytest.raises(ValueError, match="rising fractions"):
            check_grid(grid)
    with pytest.raises(ValueError, match="scaling is 'mean'"):
        area_over_curve(torch.zeros(5), scaling="mean")
    with pytest.raises(ValueError, match="indicator is 'gold'"):
        indicators(["A"], "A", "gold")
    with pytest.raises(ValueError, match="got 3 answers of an item; its grid has 5"):
        areas_of([["A", "B", "C"]], ["A"])
    with pytest.raises(ValueError, match="has none that could get a mistake"):
        mistake_index(0, 0.5)
    with pytest.raises(ValueError, match="changed_rule is 'both'"):
        HintUsage("both")
    with pytest.raises(ValueError, match="probability 95"):
        CalibrationError().update([95], [True])
    with pytest.raises(ValueError, match="rating 5"):
        Legibility().update([5], [True], [True])
    with pytest.raises(ValueError, match="overlap is 'some'"):
        backtracking_count("", overlap="some")
