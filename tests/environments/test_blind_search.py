"""The best search that does not read the question, against all search trees."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.environments import NumberSearch, best_blind_search


def by_all_trees(prior: list[Fraction], turns: int) -> Fraction:
    """Try every first guess, then search each side: the definition, without any insight."""
    if turns == 0 or not prior:
        return Fraction(0)
    return max(
        prior[i] + by_all_trees(prior[:i], turns - 1) + by_all_trees(prior[i + 1 :], turns - 1)
        for i in range(len(prior))
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=7).filter(any), st.integers(0, 4))
def test_against_all_trees(weights: list[int], turns: int) -> None:
    prior = [Fraction(weight, sum(weights)) for weight in weights]
    found = best_blind_search({3 * i - 5: float(p) for i, p in enumerate(prior)}, turns)
    assert found == pytest.approx(float(by_all_trees(prior, turns)), abs=1e-12)


def test_number_search_is_bisection() -> None:
    prior = dict.fromkeys(range(15), 1 / 15)
    wanted = [1 / 15, 3 / 15, 7 / 15, 1.0, 1.0]
    assert [best_blind_search(prior, k + 1) for k in range(5)] == pytest.approx(wanted)
    assert NumberSearch(15).ceiling(5) == pytest.approx(wanted)
    assert NumberSearch(63).ceiling(4)[-1] == pytest.approx(15 / 63)


def test_a_likely_answer_is_guessed_first() -> None:
    assert best_blind_search({-4: 0.1, 0: 0.7, 9: 0.2}, 1) == pytest.approx(0.7)


@pytest.mark.parametrize("prior", [{1: 0.5}, {1: 1.5, 2: -0.5}, {}])
def test_a_prior_that_is_none(prior: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        best_blind_search(prior, 2)
    with pytest.raises(ValueError, match="turns is -1"):
        best_blind_search({1: 1.0}, -1)
