"""Tokens of the blocks of a reply (hiper.md 4.7, 5.1, 10 H and I): masks without overlap, read positions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.verification.plan_execute import parse_plan_execute
from lit_rl.verification.plan_tokens import PlanTokens, plan_tokens, token_places

TEXT = "<switch>SWITCH</switch>\n<subgoal>go</subgoal>\n<action>up</action>"
PIECES = ["<switch>", "SWITCH", "</switch", ">\n<", "subgoal>", "go", "</subgoal", ">\n<", "action>", "up", "</action"]
PIECES += [">"]


def no_beginning(count: int) -> str:
    raise AssertionError("the pieces make up the text")


def read(pieces: list[str], text: str | None = None, **options: bool) -> PlanTokens:
    text = "".join(pieces) if text is None else text
    return plan_tokens(parse_plan_execute(text).spans, token_places(pieces, text, no_beginning), **options)


def ranges(found: PlanTokens) -> list[tuple[int, int]]:
    """Of switch, subgoal, action ``[first, last + 1)``; each without a gap."""
    for tokens in found.blocks.values():
        assert list(tokens) == list(range(tokens[0], tokens[-1] + 1))
    return [(tokens[0], tokens[-1] + 1) for tokens in found.blocks.values()]


def test_golden_h_characters() -> None:
    assert len(TEXT) == 65
    found = read(list(TEXT))
    assert list(found.blocks) == ["switch", "subgoal", "action"]
    assert ranges(found) == [(0, 23), (24, 45), (46, 65)] and found.low_read == 45
    without = read(list(TEXT), include_tags=False)
    assert ranges(without) == [(8, 14), (33, 35), (54, 56)] and without.low_read == 45
    kept = read(list(TEXT.replace("SWITCH", "KEEP")))
    assert ranges(kept) == [(0, 21), (22, 43), (44, 63)] and kept.low_read == 43


def test_golden_i_tokens_that_two_blocks_share_are_the_earlier_ones() -> None:
    found = read(PIECES)
    assert ranges(found) == [(0, 4), (4, 8), (8, 12)] and found.low_read == 8


@pytest.mark.parametrize(
    ("text", "blocks", "low_read"),
    [  # characters of switch, subgoal, action
        ("<switch>KEEP</switch>go up", ("<switch>KEEP</switch>", "", "go up"), 21),
        ("<switch>KEEP</switch>..<subgoal>s</subgoal>", ("<switch>KEEP</switch>", "<subgoal>s</subgoal>", ".."), 21),
        ("<subgoal>s</subgoal> <action>a</action>", ("", "<subgoal>s</subgoal>", "<action>a</action>"), 20),
        ("ab<action>a</action>", ("", "", "<action>a</action>"), 0),
        ("nothing of that", ("", "", "nothing of that"), 0),
        ("<action>a</action><subgoal>s</subgoal>", ("", "<subgoal>s</subgoal>", "<action>a</action>"), 0),
        ("", ("", "", ""), 0),
    ],
)
def test_malformed_replies(text: str, blocks: tuple[str, ...], low_read: int) -> None:
    """hiper.md 2.5 and 5.1: what is missing leaves its tokens to the action; values never see the action."""
    found = read(list(text))
    assert tuple("".join(text[i] for i in tokens) for tokens in found.blocks.values()) == blocks
    assert found.low_read == low_read


def test_words_that_are_joined_by_spaces_and_a_text_that_was_stripped() -> None:
    words = ["<switch>", "KEEP", "</switch>", "<subgoal>", "find", "mug", "</subgoal>", "<action>", "go", "</action>"]
    assert ranges(read(words, " ".join(words))) == [(0, 3), (3, 7), (7, 10)]
    padded = ["\n<switch", ">", *PIECES[1:-1], "> \n"]
    assert ranges(read(padded, "".join(padded).strip())) == [(0, 5), (5, 9), (9, 13)]


def test_characters_that_are_split_into_bytes() -> None:
    """Pieces decoded alone are replacement characters; the beginnings of the reply tell where they are."""
    text = "<subgoal>\U0001f600</subgoal><action>a</action>"
    pieces = ["<subgoal>", "\ufffd", "\ufffd", "</subgoal>", "<action>", "a", "</action>"]
    lengths = [9, 10, 10, 20, 28, 29, 38]
    places = token_places(pieces, text, lambda count: text[: lengths[count - 1]])
    assert places[2] == (10, 10) and places[3] == (10, 20)
    found = plan_tokens(parse_plan_execute(text).spans, places)
    assert found.blocks["subgoal"] == (0, 1, 2, 3) and found.blocks["action"] == (4, 5, 6) and found.low_read == 4


parts = st.sampled_from(
    [*PIECES, "KEEP", "\n", "<action>", "</action>", "<subgoal>", "</subgoal>", "</switch>", "x", ""]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(parts, max_size=16), st.booleans())
def test_property_11_and_12_of_any_reply(pieces: list[str], include_tags: bool) -> None:
    """No token is in two blocks, and the low-level value sees no token of the action."""
    text = "".join(pieces)
    found = read(pieces, include_tags=include_tags)
    tokens = [token for block in found.blocks.values() for token in block]
    assert len(tokens) == len(set(tokens)) and set(tokens) <= set(range(len(pieces)))
    assert 0 <= found.low_read <= len(pieces)
    assert found.low_read <= min(found.blocks["action"], default=len(pieces))
    spans = parse_plan_execute(text).spans
    if sorted(spans, key=lambda block: spans[block]) == ["switch", "subgoal", "action"]:
        assert "</subgoal>" in "".join(pieces[: found.low_read])
