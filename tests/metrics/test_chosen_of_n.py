"""What the best of n by one judge is worth to another: by hand, by enumeration, and what is refused."""

from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.metrics.best_of_n import BestOfN, best_of_n
from lit_rl.metrics.chosen_of_n import ChosenOfN, chosen_of_n

GOLDEN = torch.tensor([0.0, 3.0, 1.0, 0.0])  # intelli.md 10.8
Pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5)


def by_enumeration(scores: list[int], values: list[int], n: int) -> float:
    """All ways to draw ``n`` answers, the first of the best of every order of them."""
    found = []
    for drawn in combinations(range(len(scores)), n):
        for order in permutations(drawn):
            found.append(values[max(order, key=lambda place: scores[place])])
    return sum(found) / len(found)


@pytest.mark.parametrize(("n", "best"), [(1, 1.0), (2, 11 / 6), (3, 2.5), (4, 3.0)])
def test_by_itself_it_is_the_best_of_n(n: int, best: float) -> None:
    """intelli.md 10.8."""
    assert chosen_of_n(GOLDEN, GOLDEN, n) == pytest.approx(best) == best_of_n(GOLDEN, n)


def test_by_hand() -> None:
    """Of pairs of (score, value) (0, 5), (1, 2), (1, 4): of two drawn 2 or 4 or one of both, of three one of both."""
    scores, values = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([5.0, 2.0, 4.0])
    found = [chosen_of_n(scores, values, n) for n in (1, 2, 3)]
    assert found == pytest.approx([11 / 3, 3.0, 3.0])


@settings(max_examples=30, deadline=None)
@given(pairs=Pairs, data=st.data())
def test_it_is_what_enumeration_finds(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(pairs)))
    scores, values = ([pair[column] for pair in pairs] for column in (0, 1))
    found = chosen_of_n(torch.tensor(scores).float(), torch.tensor(values).float(), n)
    assert found == pytest.approx(by_enumeration(scores, values, n))


def test_over_prompts() -> None:
    """A prompt with a single answer counts for n = 1 alone."""
    scores, values = torch.tensor([0.0, 1.0, 7.0]), torch.tensor([4.0, 2.0, 6.0])
    metric = ChosenOfN([1, 2])
    metric.update(scores, values, torch.tensor([3, 3, 5]))
    assert {name: float(x) for name, x in metric.compute().items()} == {"best_of_1": 4.5, "best_of_2": 2.0}
    same, best = ChosenOfN([1, 2]), BestOfN([1, 2])
    same.update(scores, scores, torch.tensor([3, 3, 5]))
    best.update(scores, torch.tensor([3, 3, 5]))
    assert same.compute() == best.compute()


@pytest.mark.parametrize(("count", "n"), [(2, 1), (3, 4), (3, 0)])
def test_bad_numbers(count: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"n is {n}, of {count} scores and 3 values"):
        chosen_of_n(torch.zeros(count), torch.zeros(3), n)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="not finite"):
        chosen_of_n(torch.zeros(2), torch.tensor([0.0, torch.nan]), 1)
    with pytest.raises(ValueError, match=r"ns is \[0\]"):
        ChosenOfN([0])
