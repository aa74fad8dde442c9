"""Replies in their parts and reasoning cut into beginnings (remul.md 3.2, 3.3 and properties 1-3 of section 12)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.verification.traces import (
    FRACTIONS,
    UNITS,
    ThinkTags,
    Trace,
    Unit,
    join_units,
    keep,
    prefixes,
    refined_units,
    split_trace,
    split_units,
)


@pytest.mark.parametrize(
    ("text", "trace"),
    [
        ("<think>a\nb</think> Answer: B", Trace("a\nb", " Answer: B", True)),
        ("so: <think> a </think> <think> b </think> C", Trace(" a ", " <think> b </think> C", True)),
        ("a </think> B", Trace("a ", " B", True)),
        ("</think> B", Trace("", " B", True)),
        ("a </think> <think> b", Trace("a ", " <think> b", True)),
        ("<think> a <think> b </think> C", Trace(" a <think> b ", " C", True)),
        ("<think> a", Trace(" a", "", False)),
        ("Answer: B", Trace("Answer: B", "", False)),
        ("", Trace("", "", False)),
    ],
)
def test_the_first_think_block(text: str, trace: Trace) -> None:
    """remul.md 3.2."""
    assert split_trace(text) == trace


def test_other_tags() -> None:
    tags = ThinkTags("[THINK]", "[/THINK]")
    assert split_trace("[THINK]<think>[/THINK]A", tags) == Trace("<think>", "A", True)
    for open, close in (("", "</think>"), ("<t>", " "), ("|", "|")):
        with pytest.raises(ValueError, match="give two different texts"):
            ThinkTags(open, close)


@pytest.mark.parametrize(
    ("n", "kept"),
    [
        (0, (0, 0, 0)),
        (1, (1, 1, 1)),
        (2, (1, 1, 1)),
        (3, (1, 1, 2)),
        (4, (1, 2, 3)),
        (5, (1, 2, 3)),
        (7, (1, 3, 5)),
        (8, (2, 4, 6)),
        (10, (2, 5, 7)),
        (13, (3, 6, 9)),
        (40, (10, 20, 30)),
    ],
)
def test_golden_numbers_of_units(n: int, kept: tuple[int, ...]) -> None:
    """remul.md 3.3, the whole table (property 1)."""
    assert tuple(keep(n, p) for p in FRACTIONS) == kept
    text = "\n".join(f"line {i}" for i in range(n))
    assert [len(split_units(prefix)) for prefix in prefixes(text, short_trace="as_is")] == (list(kept) if n else [])


def test_binary_rounding_loses_no_unit() -> None:
    """remul.md 3.3: ``int(100 * 0.29)`` is 28."""
    assert keep(100, 0.29) == 29


LINES = st.lists(st.text(alphabet="ab .?!<>", min_size=1).filter(str.strip), min_size=0, max_size=12)


@given(lines=LINES, p=st.floats(0.01, 0.98), more=st.floats(0.0, 0.01), unit=st.sampled_from(UNITS))
def test_prefixes_are_beginnings_of_the_units(lines: list[str], p: float, more: float, unit: Unit) -> None:
    """Property 1: monotone in p; none of two units or more is the whole; a literal beginning of the list of units."""
    text = "\n".join(lines)
    units = split_units(text, unit)
    found = prefixes(text, (p, p + more), unit, "as_is")
    assert len(found) == (2 if units else 0)
    for prefix, fraction in zip(found, (p, p + more), strict=False):
        count = keep(len(units), fraction)
        assert prefix == join_units(units[:count], unit)
        assert count < len(units) or len(units) == 1
    if found:
        assert found[1].startswith(found[0])


@given(lines=LINES, blanks=st.lists(st.sampled_from(["", " ", "\t", "\r"]), min_size=13, max_size=13))
def test_blank_lines_change_nothing(lines: list[str], blanks: list[str]) -> None:
    """Property 2."""
    padded = "".join(f"{blank}\n{line} \n" for blank, line in zip(blanks, lines, strict=False)) + "\n\n"
    for short_trace in ("as_is", "refine"):
        assert prefixes(padded, short_trace=short_trace) == prefixes("\n".join(lines), short_trace=short_trace)


def test_sentences() -> None:
    """remul.md 3.3; a point inside a number ends nothing."""
    assert split_units("Is it 3.5? No!  It\nis 4 . So", "sentence") == ["Is it 3.5?", "No!", "It\nis 4 .", "So"]
    assert prefixes("One. Two. Three. Four.", (0.5,), "sentence") == ["One. Two."]


def test_a_line_of_eight_sentences_is_cut_at_sentences() -> None:
    """Property 3."""
    text = " ".join(f"Step {i} is done." for i in range(8))
    found = prefixes(text)
    assert [len(re.findall("Step", prefix)) for prefix in found] == [2, 4, 6]
    assert prefixes(text, short_trace="as_is") == [text] * 3
    assert refined_units(text)[0] == "sentence"


def test_few_sentences_are_cut_at_tokens_and_few_tokens_not_at_all() -> None:
    """Property 3: no prefixes, hence match reward 0."""
    assert prefixes("so it is\nB then") == ["so", "so it", "so it is"]
    assert refined_units("so it is\nB then")[0] == "token"
    assert prefixes("so it is") == [] == prefixes("") == prefixes(" \n ", short_trace="as_is")
    assert refined_units("so it is") == (None, [])
    assert prefixes("so. it. is. B", unit="token") == ["so.", "so. it.", "so. it. is."]


def test_four_lines_are_not_refined() -> None:
    assert prefixes("a. b.\nc\nd\ne") == ["a. b.", "a. b.\nc", "a. b.\nc\nd"]


@pytest.mark.parametrize("fractions", [(), (0.0, 0.5), (0.5, 1.0), (-0.1,), (1.5,), (float("nan"),)])
def test_bad_fractions(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="each strictly between 0 and 1"):
        prefixes("a", fractions)


def test_bad_names() -> None:
    with pytest.raises(ValueError, match=r"unit is 'word'; it must be one of \['line', 'sentence', 'token'\]"):
        split_units("a", "word")
    with pytest.raises(ValueError, match="short_trace is 'keep'; it must be 'as_is' or 'refine'"):
        prefixes("a", short_trace="keep")
