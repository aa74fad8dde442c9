"""BLEU: golden values of gopo.md 11, sums over ranks, and sacrebleu's own score of a corpus."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from lit_rl.metrics.bleu import CorpusBLEU, bleu_counts, corpus_bleu, sentence_bleu

SAID = ["your order ships today with free returns", "we have a seven day return policy"]
WANTED = ["your order will ship today with free returns", "we offer a seven day return policy"]


def test_values_of_section_11() -> None:
    assert sentence_bleu(SAID[0], [WANTED[0]]) == pytest.approx(0.423837, abs=1e-6)
    assert corpus_bleu(SAID, [[text] for text in WANTED]) == pytest.approx(0.532684, abs=1e-6)
    by_hand = math.exp(-1 / 7) * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25
    assert by_hand == pytest.approx(0.423837, abs=1e-6)


def test_counts_of_section_11() -> None:
    """Matches 6/7, 4/6, 2/5, 1/4; 7 words against 8."""
    found = bleu_counts(SAID[:1], [WANTED[:1]])
    assert found.tolist() == [6, 4, 2, 1, 7, 6, 5, 4, 7, 8]


def test_references() -> None:
    assert sentence_bleu("a b c d", ["x y", "a b c d"]) == pytest.approx(1.0)
    assert sentence_bleu("a b c", ["a b c"]) == 0.0  # there are no four words in a row
    assert sentence_bleu("", ["a b"]) == 0.0
    assert sentence_bleu("A b c d", ["a b c d"]) == 0.0
    assert sentence_bleu("A b c d", ["a b c d"], lowercase=True) == pytest.approx(1.0)


WORDS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=8).map(" ".join)


@settings(max_examples=25)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=2, max_size=6), st.integers(1, 5))
def test_ranks_add_up_to_sacrebleus_score_of_the_corpus(pairs: list[tuple[str, str]], cut: int) -> None:
    ranks = [CorpusBLEU(), CorpusBLEU()]
    for metric, mine in zip(ranks, (pairs[:cut], pairs[cut:]), strict=True):
        metric.update([said for said, _ in mine], [[wanted] for _, wanted in mine])
    for name, reduction in ranks[0]._reductions.items():  # what torchmetrics does with the states of all ranks
        assert callable(reduction)
        setattr(ranks[0], name, reduction(torch.stack([getattr(m, name) for m in ranks])))
    theirs = BLEU(smooth_method="none", force=True).corpus_score(
        [said for said, _ in pairs], [[wanted for _, wanted in pairs]]
    )
    assert ranks[0].compute().item() == pytest.approx(theirs.score / 100)


def test_case_and_nothing() -> None:
    metric = CorpusBLEU(lowercase=True)
    assert metric.compute().isnan()
    metric.update(["A B C D"], [["a b c d"]])
    assert metric.compute().item() == pytest.approx(1.0)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"got 2 replies and references of 1, of which 0 are empty"):
        corpus_bleu(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match=r"of which 1 are empty; each reply needs one reference or more"):
        corpus_bleu(["a"], [[]])
    with pytest.raises(ValueError, match=r"corpus_bleu got no reply"):
        corpus_bleu([], [])
