"""ESNDCG: golden values of gopo.md 11, edge cases of its section 4.1, the properties of its section 12 (3)."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.metrics.expert_skills import dialogue_esndcg, esndcg

RELEVANCE = {"ASK": 3, "REC": 2, "COUPON": 1}


@pytest.mark.parametrize(
    ("chain", "exponential", "linear"),
    [
        ("ASK REC COUPON", 1.0, 1.0),
        ("ASK COUPON REC", 0.972121, 0.972504),
        ("REC ASK COUPON", 0.842828, 0.922495),
        ("ASK ASK REC", 0.904950, 0.840008),
        ("ASK", 0.745253, 0.630006),
        ("COUPON CLOSE POLICY", 0.106465, 0.210002),
        ("CLOSE POLICY TRUST", 0.0, 0.0),
    ],
)
def test_chains_of_section_11(chain: str, exponential: float, linear: float) -> None:
    assert esndcg(chain.split(), RELEVANCE) == pytest.approx(exponential, abs=1e-6)
    assert esndcg(chain.split(), RELEVANCE, gain="linear") == pytest.approx(linear, abs=1e-6)


def test_turns_of_section_11() -> None:
    turns = [1.0, 0.842828, 0.972121]
    assert dialogue_esndcg(turns) == pytest.approx(0.938316, abs=1e-6)
    assert dialogue_esndcg(turns, gamma=0.9) == pytest.approx(0.939470, abs=1e-6)


def test_the_ideal_of_section_11() -> None:
    """7 + 3 / log2(3) + 1 / 2 = 9.392789, of which COUPON in the second place alone has 1 / log2(3)."""
    assert esndcg(["X", "COUPON"], RELEVANCE) == pytest.approx(1 / math.log2(3) / 9.392789, abs=1e-6)


def test_the_cutoff_counts_places_of_chain_and_ideal_alike() -> None:
    assert esndcg(["ASK", "X"], RELEVANCE, cutoff=1) == 1.0
    assert esndcg(["X", "ASK"], RELEVANCE, cutoff=1) == 0.0
    assert esndcg(["ASK", "REC"], RELEVANCE, cutoff=2) == 1.0


def test_turns_without_grades_are_left_out_or_filled() -> None:
    assert esndcg(["ASK"], {}) is None and esndcg(["ASK"], {"ASK": 0, "REC": 0}) is None
    assert esndcg([], RELEVANCE) == 0.0
    assert dialogue_esndcg([None, None]) is None and dialogue_esndcg([]) is None
    assert dialogue_esndcg([None, 0.5]) == 0.5
    assert dialogue_esndcg([None, 0.5], undefined=0.0) == 0.25
    assert dialogue_esndcg([None, 0.5], undefined=1.0) == 0.75
    # turn 3 keeps its own discount: (1 + .25 * .5) / 1.25
    assert dialogue_esndcg([1.0, None, 0.5], gamma=0.5) == pytest.approx(0.9)


SKILLS = list("abcde")
GRADES = st.dictionaries(st.sampled_from(SKILLS), st.integers(0, 3), min_size=1)
CHAINS = st.lists(st.sampled_from([*SKILLS, "z"]), max_size=5)


@settings(max_examples=80)
@given(chain=CHAINS, grades=GRADES, cutoff=st.integers(1, 4), linear=st.booleans(), names=st.permutations(SKILLS))
def test_properties_of_section_12(
    chain: list[str], grades: dict[str, int], cutoff: int, linear: bool, names: list[str]
) -> None:
    gain = "linear" if linear else "exponential"
    found = esndcg(chain, grades, cutoff=cutoff, gain=gain)
    if not any(grades.values()):
        assert found is None
        return
    assert found is not None and 0.0 <= found <= 1.0 + 1e-12
    renamed = dict(zip(SKILLS, names, strict=True)) | {"z": "z"}
    again = esndcg(
        [renamed[skill] for skill in chain], {renamed[s]: g for s, g in grades.items()}, cutoff=cutoff, gain=gain
    )
    assert again == pytest.approx(found)
    # In the place of a repetition, a skill without grade is worth the same: repetitions do not help.
    blanked = [skill if chain.index(skill) == i else "none" for i, skill in enumerate(chain)]
    assert esndcg(blanked, grades, cutoff=cutoff, gain=gain) == pytest.approx(found)
    ideal = sorted(grades.values(), reverse=True)[:cutoff]
    gains = [grades.get(skill, 0) if chain.index(skill) == i else 0 for i, skill in enumerate(chain)][:cutoff]
    assert math.isclose(found, 1.0) == (
        gains + [0] * (len(ideal) - len(gains)) == ideal + [0] * (len(gains) - len(ideal))
    )


def test_no_order_beats_the_ideal() -> None:
    best = max(itertools.permutations(RELEVANCE), key=lambda chain: esndcg(chain, RELEVANCE) or 0.0)
    assert best == ("ASK", "REC", "COUPON")


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"ESNDCG has cutoff 0 and gain 'exponential'"):
        esndcg(["a"], {"a": 1}, cutoff=0)
    with pytest.raises(ValueError, match=r"gain 'square'; .* one of \['exponential', 'linear'\]"):
        esndcg(["a"], {"a": 1}, gain="square")
    with pytest.raises(ValueError, match=r"relevance of 'a' is -1; it must be a finite number of at least 0"):
        esndcg(["b"], {"a": -1})
    with pytest.raises(ValueError, match=r"gamma 0.0 and undefined None"):
        dialogue_esndcg([1.0], gamma=0.0)
    with pytest.raises(ValueError, match=r"undefined 2.0; .* the second in \[0, 1\]"):
        dialogue_esndcg([1.0], undefined=2.0)
