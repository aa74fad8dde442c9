"""GRE: the golden value of gopo.md 11, and what the rules of the offline rater see."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.metrics.reply_quality import DIMENSIONS, RatedReply, ReplyRater, RuleRater, gre


def test_value_of_section_11() -> None:
    assert gre([5, 4, 4, 3, 5]) == pytest.approx(0.8)
    assert gre(dict(zip(DIMENSIONS, (5, 4, 4, 3, 5), strict=True))) == pytest.approx(0.8)
    assert (gre([1] * 5), gre([5] * 5), gre([3])) == (0.0, 1.0, 0.5)


def scores(text: str, **constraint: object) -> dict[str, float]:
    found = RuleRater().rate([RatedReply(text=text, **constraint)])[0]
    assert found is not None
    return dict(found)


def test_a_reply_that_does_all_it_should() -> None:
    reply = "The red lamp comes with 7 day returns."
    found = scores(reply, facts=("lamp",), required=("7 day returns",), forbidden=("guarantee",), max_words=8)
    assert found == {"accuracy": 5.0, "strategy": 5.0, "fluency": 5.0, "compliance": 5.0}
    assert gre(found) == 1.0


def test_facts_are_whole_words_and_phrases_are_not() -> None:
    assert scores("a table for 14", facts=("4",))["accuracy"] == 1.0
    assert scores("a table for 4.", facts=("4", "table", "monday", "x"))["accuracy"] == 3.0
    assert scores("We Guarantee it", forbidden=("guarantee",))["compliance"] == 1.0
    assert scores("it is guaranteed", forbidden=("guarantee",))["compliance"] == 1.0
    assert scores("FREE returns", required=("free returns", "today"))["strategy"] == 3.0


def test_length_and_repetition() -> None:
    assert scores("one two three", max_words=3)["compliance"] == 5.0
    assert scores("one two three", max_words=2)["compliance"] == 1.0
    assert scores("")["fluency"] == 1.0 and scores("hello")["fluency"] == 5.0
    assert scores("so so so so so")["fluency"] == 2.0  # one of four word pairs is new


@settings(max_examples=30)
@given(st.text("ab.{ é", max_size=20), st.lists(st.text("ab.{", min_size=1, max_size=4), max_size=3), st.integers(0, 5))
def test_every_reply_has_a_gre(text: str, phrases: list[str], max_words: int) -> None:
    found = scores(
        text, facts=tuple(phrases), required=tuple(phrases), forbidden=tuple(phrases[1:]), max_words=max_words
    )
    assert 0.0 <= gre(found) <= 1.0 and "empathy" not in found


def test_order_and_protocol() -> None:
    rater = RuleRater()
    assert isinstance(rater, ReplyRater)
    found = rater.rate([RatedReply(text="a", facts=(word,)) for word in ("a", "b")])
    assert [row["accuracy"] for row in found if row is not None] == [5.0, 1.0]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"GRE has the scores \[0, 5\]; wanted one or more of 1 \.\. 5"):
        gre([0, 5])
    with pytest.raises(ValueError, match=r"GRE has the scores \[\]"):
        gre([])
    with pytest.raises(ValueError, match=r"GRE has scores for \['wit'\]; the dimensions are \['accuracy'"):
        gre({"wit": 3})
    with pytest.raises(ValueError, match=r"GRE has the scores \[6"):
        gre({"accuracy": 6})
