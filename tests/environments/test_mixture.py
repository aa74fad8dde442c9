"""Several task sources as one."""

import pytest

from lit_rl.environments import ColourFix, DigitEdit, Mixture, NumberSearch


def test_any_stretch_holds_equally_many_of_each_source() -> None:
    mixture = Mixture([NumberSearch(5), DigitEdit("add", size=9)])
    assert len(mixture) == 10  # as many as the smaller source allows
    domains = [mixture[index].domain for index in range(len(mixture))]
    assert domains == ["number_search", "add"] * 5


def test_every_problem_has_an_id_of_its_own() -> None:
    mixture = Mixture([NumberSearch(5), NumberSearch(5)])
    assert len({mixture[index].id for index in range(10)}) == 10


def test_each_source_verifies_its_own_problems() -> None:
    mixture = Mixture([NumberSearch(15), DigitEdit("add", size=15)])
    for index in range(len(mixture)):
        problem = mixture[index]
        assert mixture.verify(problem, f"ans {problem.gold}").correct
        assert not mixture.verify(problem, "ans 999999").correct


def test_the_rules_of_the_source_hold() -> None:
    """Any proper colouring is right, whatever the hidden one; NumberSearch would compare with that."""
    mixture = Mixture([NumberSearch(15), ColourFix(size=15)])
    for index in range(1, 30, 2):
        problem = mixture[index]
        other = " ".join(str((int(colour) + 1) % 3) for colour in problem.gold.split())
        assert mixture.verify(problem, f"ans {other}").correct and other != problem.gold


def test_a_mixture_of_mixtures_finds_the_verifier() -> None:
    mixture = Mixture([Mixture([NumberSearch(4), DigitEdit("add", size=4)]), NumberSearch(8)])
    assert all(mixture.verify(mixture[i], f"ans {mixture[i].gold}").correct for i in range(len(mixture)))


def test_nothing_to_mix_is_refused() -> None:
    with pytest.raises(ValueError, match="Mixture.sources is empty"):
        Mixture([])


def test_an_index_outside_is_refused() -> None:
    with pytest.raises(IndexError):
        Mixture([NumberSearch(3)])[3]
