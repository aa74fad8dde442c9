"""Labels read strictly (remul.md 3.6): the golden table, and what loose patterns get wrong."""

import pytest

from lit_rl.verification.labels import canonical_label, extract_label, same_label, verify_label
from lit_rl.verification.traces import ThinkTags

LABELS = "ABCDEF"
FOL = {"true": "A", "uncertain": "B", "false": "C"}
YES_NO = {"yes": "A", "no": "B"}


@pytest.mark.parametrize(
    ("text", "aliases", "label"),
    [
        ("Answer: B", None, "B"),
        ("The answer is (C).", None, "C"),
        ("Option A: True", None, "A"),
        ("The answer depends on the order.", None, None),
        ("not B, so the final answer is C", None, "C"),
        ("Option A is wrong. Answer: D", None, "D"),
        ("(E)", None, "E"),
        ("B.", None, "B"),
        ("It is uncertain", FOL, "B"),
        ("Therefore False.", FOL, "C"),
        ("I cannot know it", YES_NO, None),
        ("No", YES_NO, "B"),
        ("A cat sat", None, None),
        ("", None, None),
        ("Answer: G", None, None),
    ],
)
def test_golden_labels(text: str, aliases: dict[str, str] | None, label: str | None) -> None:
    """remul.md 3.6, the whole table; with spaces around punctuation, as a word-level tokenizer decodes, too."""
    assert extract_label(text, LABELS, aliases) == label
    spaced = text
    for mark in ":.,()":
        spaced = spaced.replace(mark, f" {mark} ")
    assert extract_label(spaced, LABELS, aliases) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("ANSWER = [ B ]", "B"),
        ("my choice: F", "F"),
        ("**Answer:** B", "B"),
        ("The answer is **C**.", "C"),
        ("Answer: A's cat", None),
        ("Answer: Another one", None),
        ("Answer: b", None),
        ("answerB", None),
        ("optionsB", None),
        ("the answer isB", None),
        ("Answer: B2", None),
        ("(A) or (B)", "B"),
        ("(B) it is, Option C", "C"),
        ("[G] then (A)", "A"),
        ("(a)", None),
        ("'D'!", "D"),
        ("A B", None),
    ],
)
def test_more_labels(text: str, label: str | None) -> None:
    assert extract_label(text, LABELS) == label


def test_kinds_go_in_their_order() -> None:
    """A cue before a bracket before an alias before an option, wherever they stand."""
    options = {"A": "true", "B": "No idea"}
    assert extract_label("Answer: B (A) false", LABELS, FOL, options) == "B"
    assert extract_label("(A) false", LABELS, FOL, options) == "A"
    assert extract_label("true, no, false", LABELS, FOL) == "C", "the last alias"
    assert extract_label("no  idea.", LABELS, None, options) == "B"
    assert extract_label("no idea", LABELS, YES_NO, options) == "B"
    assert extract_label("no idea at all", LABELS, None, options) is None
    assert extract_label("same", LABELS, None, {"A": "same", "B": "Same"}) is None, "not one option"


def test_aliases_of_several_words() -> None:
    aliases = {"not true": "B", "true": "A"}
    assert extract_label("It is Not  true.", "AB", aliases) == "B"
    assert extract_label("untrue", "AB", aliases) is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Answer : 3", "3"),
        ("Answer: 12", "12"),
        ("Answer: 3.5", None),
        ("Answer: 3 . 5", None),
        ("Answer: 31", None),
        ("Answer: -3", None),
        ("Answer: 3.", "3"),
        ("3.", "3"),
        ("-3", None),
        (".3", None),
        ("( 3 )", "3"),
    ],
)
def test_numbers_as_labels(text: str, label: str | None) -> None:
    """Our extension; a number that goes on is another number."""
    assert extract_label(text, ["3", "12", "2", "5"]) == label


def test_none_matches_nothing() -> None:
    """remul.md 3.6: None never matches None."""
    assert same_label("A", "A")
    assert not same_label("A", "B") and not same_label(None, None) and not same_label(None, "A")


def test_gold_values_are_one_label() -> None:
    """remul.md 3.6: ``(A)``, ``A`` and the option's text are one label."""
    options = {"A": "a red (B) cat", "B": "a dog"}
    assert [canonical_label(gold, "AB", None, options) for gold in ("(A)", "A", "a red (B) cat", "A dog")] == [*"AAAB"]
    assert canonical_label("Uncertain", "ABC", FOL) == "B"
    with pytest.raises(ValueError, match=r"the gold answer 'cat' is none of .*'A', 'B', 'yes', 'no'"):
        canonical_label("cat", "AB", YES_NO)


@pytest.mark.parametrize(
    ("reply", "kind", "answer"),
    [
        ("<think> B </think> Answer : A", "answer", "A"),
        ("so </think> (B)", "answer", "B"),
        ("<think> Answer: A", "malformed", None),
        ("Answer: A", "malformed", None),
        ("<think> A </think>", "malformed", None),
        ("<think> Answer : A </think> I do not know", "malformed", None),
        (" ", "empty", None),
    ],
)
def test_an_answer_needs_a_closed_think_block(reply: str, kind: str, answer: str | None) -> None:
    attempt = verify_label(reply, "A", "AB", tags=ThinkTags())
    assert (attempt.kind, attempt.answer, attempt.correct) == (kind, answer, answer == "A")


def test_without_think_tags_the_whole_reply_is_read() -> None:
    assert verify_label("so Answer: A", "A", "AB").correct
    assert verify_label("yes", "A", "AB", YES_NO).correct
    assert verify_label("a dog", "B", "AB", None, {"A": "a cat", "B": "a dog"}).correct


@pytest.mark.parametrize(
    ("labels", "aliases", "message"),
    [
        ("", None, "give at least one, each once"),
        ("AA", None, "give at least one, each once"),
        ("Ab", None, "labels hold 'b'; they must be capital letters"),
        (["01"], None, "labels hold '01'"),
        ("AB", {"maybe": "C"}, "aliases have 'maybe' mean 'C'; give words, each for one of"),
        ("AB", {" ": "A"}, "aliases have ' '"),
    ],
)
def test_bad_labels(labels: str, aliases: dict[str, str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extract_label("A", labels, aliases)
