"""The parser of plan and action: every row of hiper.md 2.5, spans of section 10 H, property 13."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.verification.plan_execute import PlanExecute, parse_action, parse_plan_execute, render_plan_execute

WHOLE = "<switch>SWITCH</switch>\n<subgoal>go</subgoal>\n<action>up</action>"


def decided(text: str) -> tuple[bool, str, str, bool]:
    parsed = parse_plan_execute(text)
    return parsed.switch, parsed.subgoal, parsed.action, parsed.valid


def test_spans_of_the_golden_reply() -> None:
    """hiper.md section 10 H."""
    spans = {"switch": (0, 23), "subgoal": (24, 45), "action": (46, 65)}
    assert parse_plan_execute(WHOLE) == PlanExecute(True, "go", "up", True, spans)
    kept = parse_plan_execute(WHOLE.replace("SWITCH", "KEEP"))
    assert kept.spans == {"switch": (0, 21), "subgoal": (22, 43), "action": (44, 63)} and not kept.switch


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("<switch>SWITCH</switch><subgoal>go</subgoal>up", (True, "go", "", False), id="no action"),
        pytest.param("<subgoal>go</subgoal><action>up</action>", (False, "go", "up", False), id="no switch"),
        pytest.param(WHOLE.replace("SWITCH", "MAYBE"), (False, "go", "up", False), id="unknown switch"),
        pytest.param(WHOLE.replace("SWITCH", " "), (False, "go", "up", False), id="empty switch"),
        pytest.param("<switch>SWITCH</switch><action>up</action>", (True, "", "up", False), id="no subgoal"),
        pytest.param(WHOLE.replace(">go<", "> <"), (True, "", "up", False), id="empty subgoal"),
        pytest.param(f"well\n{WHOLE} done", (True, "go", "up", True), id="text outside"),
        pytest.param(WHOLE.replace("SWITCH", " switch "), (True, "go", "up", True), id="strip and upper"),
        pytest.param(WHOLE.replace("<subgoal>", "<Subgoal>"), (True, "", "up", False), id="tags have a case"),
        pytest.param(WHOLE.replace("up", ""), (True, "go", "", False), id="empty action"),
        pytest.param("", (False, "", "", False), id="nothing"),
        pytest.param(f"{WHOLE}<action>down</action>", (True, "go", "up", True), id="the first pair counts"),
        pytest.param("</action><action>up</action>", (False, "", "up", False), id="closing tag before"),
    ],
)
def test_rows_of_the_table_of_malformed_replies(text: str, wanted: tuple[bool, str, str, bool]) -> None:
    """hiper.md 2.5."""
    assert decided(text) == wanted


def test_no_character_is_in_two_blocks() -> None:
    """A block inside another is text of that one (property 11)."""
    parsed = parse_plan_execute("<switch>SWITCH<subgoal>go</subgoal></switch><action>up</action>")
    assert (parsed.switch, parsed.subgoal, parsed.valid) == (False, "", False)
    assert parsed.spans == {"switch": (0, 44), "action": (44, 63)}


def test_cjk_is_refused_only_when_asked() -> None:
    text = WHOLE.replace(">go<", ">go 到<")
    assert parse_plan_execute(text).valid
    assert not parse_plan_execute(text, refuse_cjk=True).valid
    assert parse_plan_execute(WHOLE, refuse_cjk=True).valid
    assert parse_action("<action>看</action>", refuse_cjk=True) == ("看", False)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("so <action> go </action>", ("go", True)), ("go", ("", False)), ("<action></action>", ("", False))],
)
def test_a_reply_without_a_plan(text: str, wanted: tuple[str, bool]) -> None:
    assert parse_action(text) == wanted


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1).map(str.strip).filter(bool)


@given(st.booleans(), WORDS, WORDS)
def test_parsing_and_rendering_are_inverse(switch: bool, subgoal: str, action: str) -> None:
    """hiper.md section 12, property 13."""
    text = render_plan_execute(switch, subgoal, action)
    parsed = parse_plan_execute(text)
    assert (parsed.switch, parsed.subgoal, parsed.action, parsed.valid) == (switch, subgoal, action, True)
    assert render_plan_execute(parsed.switch, parsed.subgoal, parsed.action) == text


PIECES = st.sampled_from(
    [f"<{s}{b}>" for b in ("switch", "subgoal", "action") for s in ("", "/")] + ["KEEP", "SWITCH", "x"]
)


@given(st.lists(PIECES, max_size=14).map("".join))
def test_any_text_parses_to_disjoint_spans(text: str) -> None:
    parsed = parse_plan_execute(text)
    ordered = sorted(parsed.spans.values())
    assert all(0 <= start < stop <= len(text) for start, stop in ordered)
    assert all(before[1] <= after[0] for before, after in pairwise(ordered))
    assert parsed.valid <= (len(ordered) == 3)
    for block, (start, stop) in parsed.spans.items():
        assert text[start:stop].startswith(f"<{block}>") and text[start:stop].endswith(f"</{block}>")
