from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.papers.facts import WORDS, read_facts
from lit_rl.papers.graded import RECIPES, Labels, graded_question
from lit_rl.papers.oracle import OracleJudge, grade
from lit_rl.papers.questions import GENERIC, read_question
from lit_rl.papers.synthetic import SyntheticPapers
from lit_rl.protocols import RewardModel

PAPER = (
    "abstract : orion has gating . orion has mixing . orion beats vega . \f method : gating uses hashing . mixing uses "
    "noise . experiments : recall is 12 on atlas . \f ablation : recall is 20 without gating . limits : noise fails on "
    "atlas ."
)
GRAPH = read_facts(PAPER)
PAPERS = SyntheticPapers(200, seed=3)
COMBINATIONS: list[Labels] = sorted(RECIPES)


@pytest.mark.parametrize(
    ("question", "labels"),
    [
        ("how come recall is 20 without gating although gating uses hashing ?", (1, 1, 1)),
        ("what if gating uses hashing while recall is 20 without gating unlike vega ?", (1, 1, 1)),
        ("How come recall is 20 without GATING although gating uses hashing?", (1, 1, 1)),
        ("how come recall is 12 on atlas while noise fails on atlas ?", (1, 1, 1)),
        ("how come noise fails on atlas although mixing uses noise ?", (1, 0, 1)),
        ("how come noise fails on atlas although mixing uses noise unlike lyra ?", (1, 0, 0)),
        ("how come recall is 20 without gating although gating uses hashing unlike lyra ?", (1, 1, 0)),
        # one section, one fact, or two that have nothing to do with each other
        ("how come gating uses hashing while mixing uses noise ?", (0, 0, 1)),
        ("how come recall is 20 without gating ?", (0, 1, 1)),
        ("how come recall is 20 without gating although mixing uses noise ?", (0, 1, 1)),
        ("how come recall is 20 without gating while orion has gating ?", (0, 1, 1)),
        ("how come orion has gating ?", (0, 0, 1)),
        # what the paper does not say: no link, no evidence, but its own things
        ("how come recall is 20 without gating although gating uses noise ?", (0, 1, 1)),
        ("how come recall is 21 without gating although gating uses hashing ?", (0, 0, 1)),
        ("how come speed is 20 without gating although gating uses hashing ?", (0, 0, 1)),
        ("how come recall is 12 without gating ?", (0, 0, 1)),
        ("how come mixing uses hashing although noise fails on atlas ?", (0, 0, 1)),  # though mixing does use noise
        # another paper's things, or nothing at all
        ("how come recall is 20 without pooling ?", (0, 0, 0)),
        ("how come recall is 20 without gating while gating uses sorting ?", (0, 1, 0)),
        ("what are the limits of this work ?", (0, 0, 0)),
        ("", (0, 0, 0)),
        ("?", (0, 0, 0)),
    ],
)
def test_grades_by_hand(question: str, labels: Labels) -> None:
    assert grade(question, GRAPH).labels == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        # free text is searched for facts in any order, but has no effort
        ("why does recall drop to 20 without gating , if gating uses hashing ?", (0, 1, 1)),
        ("what do gating and hashing have to do with each other ?", (0, 0, 1)),
        # words thrown together
        ("how come gating hashing recall 20 atlas 12 ?", (0, 1, 1)),
        ("how come 20 recall gating ? gating uses hashing ?", (0, 0, 0)),  # two question marks
        ("recall is 20 without gating although gating uses hashing .", (0, 0, 0)),  # no question
        ("recall is 20 without gating although gating uses hashing ?", (0, 0, 0)),  # no question word
        ("how come gating gating recall is 20 ?", (0, 0, 0)),  # a word twice in a row
        ("how come gating , gating and gating have recall 20 ?", (0, 0, 0)),  # three times
        ("how come " + "the work , " * 8 + "recall is 20 without gating ?", (0, 0, 0)),  # 33 words
    ],
)
def test_what_does_not_fit_the_grammar_never_has_full_marks(text: str, labels: Labels) -> None:
    assert not read_question(text).fits
    assert grade(text, GRAPH).labels == labels


WORD_SALAD = st.lists(st.sampled_from([*PAPER.split(), "how", "come", "although", "?"]), max_size=20)


@settings(max_examples=100, deadline=None)
@given(WORD_SALAD)
def test_only_the_grammar_has_effort(words: list[str]) -> None:
    text = " ".join(words)
    grades = grade(text, GRAPH)
    assert not grades.effort or read_question(text).fits


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 199), st.sampled_from(COMBINATIONS), st.integers(0, 999))
def test_all_eight_combinations_are_what_they_are_meant_to_be(index: int, labels: Labels, seed: int) -> None:
    paper = PAPERS[index]
    question = graded_question(paper, labels, Random(seed))
    assert grade(question, paper.graph).labels == labels
    assert read_question(question).fits and read_question(question).readable
    assert 6 <= len(question.split()) <= 16
    assert set(question.split()) <= set(SyntheticPapers.words())


def test_every_recipe_alone_gives_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(COMBINATIONS) == 8
    for labels, recipes in RECIPES.items():
        for recipe in recipes:
            monkeypatch.setitem(RECIPES, labels, (recipe,))
            for paper in (PAPERS[number] for number in range(20)):
                question = graded_question(paper, labels, Random(paper.paper_id))
                assert grade(question, paper.graph).labels == labels, (recipe, question, paper.text)


def test_the_score_is_by_prompt_and_in_order() -> None:
    other = SyntheticPapers(1)[0].text.replace("gating", "pooling")
    good = "how come recall is 20 without gating although gating uses hashing ?"
    judge = OracleJudge()
    assert isinstance(judge, RewardModel)
    scores = judge.score([PAPER, f"Ask about this. {PAPER}", PAPER, other], [good, good, "why ?", good])
    assert {name: values.tolist() for name, values in scores.items()} == {
        "effort": [1, 1, 0, 0],
        "evidence": [1, 1, 0, 0],
        "grounding": [1, 1, 0, 0],
        "reward": [3, 3, 0, 0],
    }
    assert all(values.dtype == torch.float32 for values in scores.values())


def test_a_paper_that_was_cut_has_what_is_left_of_it() -> None:
    cut = PAPER.partition("ablation")[0]
    good = "how come recall is 20 without gating although gating uses hashing ?"
    assert OracleJudge().score([cut], [good])["reward"].tolist() == [1]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"prompt 1 \('tell me a story'\) states no fact of a synthetic paper"):
        OracleJudge().score([PAPER, "tell me a story"], ["why ?", "why ?"])
    with pytest.raises(ValueError, match="1 prompts and 2 completions"):
        OracleJudge().score([PAPER], ["why ?", "why ?"])


def test_generic_questions_name_nothing() -> None:
    entities = {word for words in WORDS.values() for word in words}
    assert not entities & {word for question in GENERIC for word in question.split()}
    assert all(read_question(question).fits and read_question(question).readable for question in GENERIC)
