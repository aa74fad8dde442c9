"""Golden values: intelli.md 10.8."""

from itertools import combinations
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.metrics.best_of_n import BestOfN, best_of_n


@pytest.mark.parametrize(("n", "best"), [(1, 1.0), (2, 1.8333333333), (3, 2.5), (4, 3.0)])
def test_golden_values(n: int, best: float) -> None:
    assert best_of_n(torch.tensor([0.0, 0.0, 1.0, 3.0]), n) == pytest.approx(best, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=6), st.data())
def test_it_is_the_mean_of_the_best_of_all_draws(scores: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(scores)))
    wanted = fmean(max(draw) for draw in combinations(scores, n))
    assert best_of_n(torch.tensor(scores), n) == pytest.approx(wanted)


def test_a_thousand_answers() -> None:
    scores = torch.arange(1000, dtype=torch.float32)
    assert best_of_n(scores, 500) == pytest.approx(500 * 1001 / 501 - 1)  # mean of the highest of 500 of 1 .. 1000


def test_means_over_prompts_in_any_order_of_rows() -> None:
    metric = BestOfN((1, 2, 4))
    metric.update(torch.tensor([0.0, 5.0, 0.0, 1.0, 7.0, 3.0]), torch.tensor([0, 1, 0, 0, 1, 0]))
    found = {name: value.item() for name, value in metric.compute().items()}
    # prompt 0: 0 0 1 3; prompt 1: 5 7, too few for the best of four
    assert found == pytest.approx({"best_of_1": (1 + 6) / 2, "best_of_2": (11 / 6 + 7) / 2, "best_of_4": 3.0})


def test_two_updates_equal_one() -> None:
    scores, groups = torch.tensor([0.0, 2.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 1])
    parts, whole = BestOfN((2,)), BestOfN((2,))
    whole.update(scores, groups)
    parts.update(scores[:2], groups[:2])
    parts.update(scores[2:], groups[2:])
    assert parts.compute() == whole.compute() == {"best_of_2": torch.tensor(1.5, dtype=torch.float64)}


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"n is 3, and there are 2 scores; it must lie in 1 .. 2"):
        best_of_n(torch.zeros(2), 3)
    with pytest.raises(ValueError, match="n is 0"):
        best_of_n(torch.zeros(2), 0)
    with pytest.raises(ValueError, match="all of them must be finite"):
        best_of_n(torch.tensor([0.0, float("nan")]), 1)
    with pytest.raises(ValueError, match=r"BestOfN.ns is \[0\]"):
        BestOfN((0,))
    with pytest.raises(ValueError, match=r"BestOfN.ns is \[\]"):
        BestOfN(())
