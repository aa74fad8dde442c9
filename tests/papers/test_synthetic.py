from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.papers.facts import ENTITIES, KINDS, SENTENCES, WORDS, Fact, read_facts, words_of
from lit_rl.papers.synthetic import SyntheticPapers

indices = st.integers(0, 499)
PAPERS = SyntheticPapers(500)


@settings(max_examples=30, deadline=None)
@given(indices)
def test_the_facts_are_read_back_from_the_text(index: int) -> None:
    paper = PAPERS[index]
    assert read_facts(paper.text) == paper.graph
    assert read_facts(f"Read this. {paper.text.upper()} Thanks.") == paper.graph


@settings(max_examples=30, deadline=None)
@given(indices)
def test_a_paper_is_short_has_three_pages_and_its_facts_are_linked(index: int) -> None:
    paper = PAPERS[index]
    assert len(paper.text.split()) == 49
    assert [page.split(" :")[0] for page in paper.pages] == ["abstract", "method", "ablation"]
    assert paper.text.split("\f")[0].strip() == paper.pages[0]
    sections = [frozenset({first.section, second.section}) for first, second in paper.graph.links()]
    wanted = [{"method", "ablation"}, {"method", "limits"}, {"experiments", "limits"}]
    assert sorted(map(sorted, sections)) == sorted(map(sorted, wanted))
    results = [fact for fact in paper.graph.facts if fact.is_result]
    assert [fact.section for fact in results] == ["experiments", "ablation"]
    numbers = [word for fact in results for word in fact.terms if KINDS[word] == "number"]
    assert len(set(numbers)) == 2  # a number tells which result is meant


def test_papers_depend_on_seed_and_index_alone() -> None:
    assert PAPERS[3].text == SyntheticPapers(4)[3].text
    texts = {paper.text for paper in PAPERS}
    assert len(texts) == 500
    others = {paper.text for paper in SyntheticPapers(500, seed=1)}
    assert not texts & others  # what a reward model learned from is not what a generator is trained on
    assert PAPERS[0].paper_id != SyntheticPapers(1, seed=1)[0].paper_id


def test_the_vocabulary_is_closed_and_small() -> None:
    words = SyntheticPapers.words()
    assert len(words) == len(set(words)) <= 200
    assert {word for paper in PAPERS for word in paper.text.split(" ")} <= set(words)
    kinds = [word for kind in WORDS.values() for word in kind]
    assert len(kinds) == len(set(kinds))  # a word has one kind


def test_a_tiny_model_keeps_every_word_and_the_page_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lit_rl.loading import load_tokenizer
    from lit_rl.tiny import TinyModel, materialize

    monkeypatch.setenv("LIT_RL_CACHE", str(tmp_path))
    tiny = TinyModel(words=SyntheticPapers.words(), hidden_size=16, layers=1, heads=2)
    tokenizer = load_tokenizer(str(materialize(tiny)))
    words = PAPERS[0].text.split(" ")
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode(PAPERS[0].text, add_special_tokens=False)) == words


def test_links_by_hand() -> None:
    removed = Fact("ablation", "recall is 20 without gating")
    explained = Fact("method", "gating uses hashing")
    assert removed.linked(explained) and explained.linked(removed)
    assert not explained.linked(Fact("method", "gating uses sorting"))  # of one section
    assert not removed.linked(Fact("method", "mixing uses hashing"))  # of another part
    assert not removed.linked(Fact("experiments", "recall is 20 on atlas"))  # a metric and a number are no entities
    assert not removed.linked(Fact("abstract", "orion has gating"))  # page one only announces it
    assert removed.entities == {"gating"} and removed.terms == ("recall", "20", "gating")


def test_other_sentences_are_passed_over() -> None:
    text = "Abstract: orion has gating. It is nice. gating uses hashing. Method: orion has gating. gating uses noise."
    assert read_facts(text).facts == (Fact("abstract", "orion has gating"), Fact("method", "gating uses noise"))
    assert read_facts("no paper at all : here .").facts == ()
    assert read_facts("").entities == frozenset()


@settings(max_examples=50, deadline=None)
@given(st.text(" .:a\f" + "é?", max_size=30) | st.lists(st.sampled_from([".", ":", "method", "limits"])).map(" ".join))
def test_any_text_can_be_read(text: str) -> None:
    assert read_facts(text).facts == ()
    assert all(word == word.lower() for word in words_of(text))


def test_every_slot_of_the_sentences_has_words() -> None:
    slots = {slot.strip("{}") for said in SENTENCES.values() for text in said for slot in text.split() if "{" in slot}
    assert slots == set(WORDS) and set(ENTITIES) < slots


def test_bad_sizes_and_places() -> None:
    with pytest.raises(ValueError, match=r"SyntheticPapers.size is 0; it must be at least 1"):
        SyntheticPapers(0)
    with pytest.raises(IndexError):
        SyntheticPapers(2)[2]
    assert len(list(SyntheticPapers(2))) == 2
