from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.papers.question_filter import QuestionFilter, Stage

LONG = "In the ablation of the gating threshold, why does recall fall by nine points while the accuracy stays?"
TABLE = "how the second table relates to what the third section of this paper claims that it shows?"


def test_the_funnel_by_hand() -> None:
    questions = {
        "good": LONG,
        "short": "Why?",
        "again": LONG.upper().replace(",", ""),  # the same words
        "pointer": f"Please see weaknesses: I ask again {TABLE}",
        "process": f"I can raise my score after the rebuttal if you say {TABLE}",
        "telltale": f"Could the authors delve into {TABLE}",
    }
    funnel = QuestionFilter().funnel(questions)
    assert [(stage.name, stage.removed, len(stage.kept)) for stage in funnel] == [
        ("input", 0, 6),
        ("length", 1, 5),
        ("uniqueness", 1, 4),
        ("pointer", 1, 3),
        ("review process", 1, 2),
        ("telltale", 1, 1),
    ]
    assert funnel[-1].kept == ("good",)
    assert str(funnel[1]) == "length: 1 removed, 5 left"
    assert QuestionFilter().kept(questions) == ["good"]


def test_exactly_min_chars_is_long_enough() -> None:
    """intelli.md 1.3: questions under 100 characters are dropped."""
    assert QuestionFilter(blocklist={}).kept({"99": "a" * 99, "100": "b" * 100, "padded": "c" * 99 + " "}) == ["100"]


def test_the_first_of_two_alike_stays_and_the_limit_counts() -> None:
    alike = {"first": "a b c d e", "second": "e d c b a a", "third": "a b c d", "fourth": "a b c"}
    # third: 4 of 5 words shared with the first, 0.8; fourth: 3 of 5
    assert QuestionFilter(min_chars=0, blocklist={}).kept(alike) == ["first", "fourth"]
    assert QuestionFilter(min_chars=0, max_similarity=1, blocklist={}).kept(alike) == ["first", "third", "fourth"]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=8).map(" ".join), max_size=12),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_the_filter_equals_comparing_all_pairs(texts: list[str], limit: float) -> None:
    questions = {str(number): text for number, text in enumerate(texts)}
    kept: list[str] = []
    for id, text in questions.items():
        words = set(text.split())
        pairs = [(words, set(questions[other].split())) for other in kept]
        if not any(a | b and len(a & b) / len(a | b) >= limit for a, b in pairs):
            kept.append(id)
    funnel = QuestionFilter(min_chars=0, max_similarity=limit, blocklist={}).funnel(questions)
    assert list(funnel[-1].kept) == kept
    assert sum(stage.removed for stage in funnel) + len(funnel[-1].kept) == len(questions)


def test_what_is_left_is_in_every_stage_before() -> None:
    questions = {str(n): f"{LONG} number {n} {'delve' if n % 2 else ''}" for n in range(6)}
    funnel = QuestionFilter(max_similarity=1.0).funnel(questions)
    assert all(set(later.kept) <= set(earlier.kept) for earlier, later in combinations(funnel, 2))
    assert funnel[-1] == Stage("telltale", ("0", "2", "4"), 3)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match=r"min_chars is -1"):
        QuestionFilter(min_chars=-1)
    with pytest.raises(ValueError, match=r"max_similarity is 0"):
        QuestionFilter(max_similarity=0)
    with pytest.raises(ValueError, match=r"blocklist\['open'\] is '\(', no regular expression"):
        QuestionFilter(blocklist={"open": "("})
