"""Golden values: intelli.md 10.11; properties: section 11."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.metrics.first_page_bias import FirstPageBias, content_words, first_page_bias, later_only, page_profile
from lit_rl.metrics.stop_words import STOP_WORDS, STOP_WORDS_VERSION

SHORT_LIST = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can do does for from how in is it of on or that the this to was were what when where "
        "which why with",
    )
)
PAGE_ONE = "We propose SparseNet, a sparse attention network. SparseNet improves accuracy on\nlong documents."
GOLDEN = [
    ("Why does SparseNet improve accuracy on long documents?", 0.8, 0.8),
    ("In Table 4 the ablation of the gating threshold drops recall to 31; why?", 0.0, 0.0),
    ("How does the sparse attention of SparseNet work on sparse long documents?", 0.8571428571, 0.8333333333),
    ("SPARSENET!", 1.0, 1.0),
]
TEXTS = st.lists(st.sampled_from(["gating", "Recall", "31", "don't", "atlas", "why", "the"])).map(" ".join)


@pytest.mark.parametrize(("question", "bias", "unique_bias"), GOLDEN)
def test_golden_values(question: str, bias: float, unique_bias: float) -> None:
    assert first_page_bias(question, PAGE_ONE, stop_words=SHORT_LIST) == pytest.approx(bias, abs=1e-9)
    unique = first_page_bias(question, PAGE_ONE, stop_words=SHORT_LIST, unique=True)
    assert unique == pytest.approx(unique_bias, abs=1e-9)


def test_golden_content_words() -> None:
    words = content_words(GOLDEN[1][0], stop_words=SHORT_LIST)
    assert " ".join(words) == "table 4 ablation gating threshold drops recall 31"


@pytest.mark.parametrize("question", ["What is it?", ""])
def test_without_content_words_a_question_is_skipped(question: str) -> None:
    assert math.isnan(first_page_bias(question, PAGE_ONE, stop_words=SHORT_LIST))
    metric = FirstPageBias(SHORT_LIST)
    metric.update([question, "SparseNet?"], [[PAGE_ONE], [PAGE_ONE]])
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == {"first_page_bias": 1.0, "later_only": 0.0, "questions": 1, "skipped": 1}


def test_the_mean_of_the_golden_questions() -> None:
    metric = FirstPageBias(SHORT_LIST)
    metric.update([question for question, _, _ in GOLDEN], [[PAGE_ONE]] * 4)
    assert metric.compute()["first_page_bias"].item() == pytest.approx((0.8 + 0 + 6 / 7 + 1) / 4)
    unique = FirstPageBias(SHORT_LIST, unique=True)
    unique.update([question for question, _, _ in GOLDEN], [[PAGE_ONE]] * 4)
    assert unique.compute()["first_page_bias"].item() == pytest.approx((0.8 + 0 + 5 / 6 + 1) / 4)
    pages = ["gating helps", "recall is 31"]
    for once, later in ((False, 1 / 3), (True, 1 / 2)):
        metric = FirstPageBias(SHORT_LIST, unique=once)
        metric.update(["gating gating recall?"], [pages])
        assert metric.compute()["later_only"].item() == pytest.approx(later)


def test_pages_by_hand() -> None:
    pages = ["gating helps", "recall is 31 without gating", "atlas"]
    question = "Why is recall 31 on atlas and basil with gating?"  # recall 31 atlas basil gating
    assert page_profile(question, pages) == pytest.approx([1 / 5, 3 / 5, 1 / 5])
    assert later_only(question, pages) == pytest.approx(3 / 5)  # recall, 31, atlas: basil is nowhere
    assert later_only("gating gating recall?", pages) == pytest.approx(1 / 3)
    assert later_only("gating gating recall?", pages, unique=True) == pytest.approx(1 / 2)
    assert later_only("recall?", pages[:1]) == 0


@settings(max_examples=40, deadline=None)
@given(TEXTS, TEXTS)
def test_bias_is_a_share_without_case_and_stop_words(question: str, page: str) -> None:
    bias = first_page_bias(question, page)
    if math.isnan(bias):
        assert not content_words(question)
        return
    assert 0 <= bias <= 1
    assert first_page_bias(question.upper(), page.lower()) == bias
    assert first_page_bias(f"what of the {question} is there", page) == bias
    assert first_page_bias(question, f"{question} {page}") == 1
    assert first_page_bias(question, "none of these") == 0
    assert bias + later_only(question, [page, question]) == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), st.integers(0, 6))
def test_two_merged_states_equal_one_pass(rows: list[tuple[str, str]], cut: int) -> None:
    questions, pages = [question for question, _ in rows], [[page, "31"] for _, page in rows]
    whole, first, second = FirstPageBias(), FirstPageBias(), FirstPageBias()
    whole.update(questions, pages)
    first.update(questions[:cut], pages[:cut])
    second.update(questions[cut:], pages[cut:])
    first.merge_state(second)
    for name, value in whole.compute().items():
        torch.testing.assert_close(first.compute()[name], value, equal_nan=True)


def test_a_short_form_is_one_word_and_a_hyphen_parts_two() -> None:
    assert content_words("it's state-of-the-art, isn't it: rock'n", stop_words=()) == (
        ["it's", "state", "of", "the", "art", "isn't", "it", "rock'n"]
    )


def test_the_shipped_list_is_that_of_its_version() -> None:
    """Another list gives other figures: change the version with it, and this test."""
    assert STOP_WORDS_VERSION == "english-1"
    assert len(STOP_WORDS) == 222
    assert all(word == word.lower() for word in STOP_WORDS)
    assert SHORT_LIST <= STOP_WORDS
    assert not {"method", "results", "table", "recall", "31"} & STOP_WORDS


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="2 questions and pages of 1 papers"):
        FirstPageBias().update(["a", "b"], [["page"]])
    with pytest.raises(ValueError, match="list of at least one text"):
        FirstPageBias().update(["a"], [[]])
    with pytest.raises(ValueError, match="list of at least one text"):
        FirstPageBias().update(["a"], ["page"])
    with pytest.raises(ValueError, match=r"stop_words is the text 'the of'"):
        FirstPageBias("the of")
    with pytest.raises(ValueError, match="there are no pages"):
        later_only("why", [])
