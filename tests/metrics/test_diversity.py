"""Diversity metrics: golden values of qempo.md 10.5, edge cases of its section 7, property 12 of its section 11."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import sentence_bleu
from torch import Tensor

from lit_rl.metrics.diversity import (
    AnswerDiversity,
    LexicalDiversity,
    SemanticDiversity,
    SequenceEntropy,
    SyntacticDiversity,
)
from lit_rl.metrics.embeddings import HashedNgrams, cosine_similarities, semantic_diversity, vendi_score
from lit_rl.metrics.lexical import distinct_n, expectation_adjusted_distinct, self_bleu, text_bleu
from lit_rl.metrics.sampled_answers import (
    answer_entropy,
    at_quality,
    distinct_correct,
    expected_distinct,
    pass_at_k,
    sequence_entropy,
    token_entropy,
)
from lit_rl.metrics.syntactic import DependencyTree, subtree_similarity, syntactic_diversity

CATS = ["the cat sat on the mat", "the cat sat on a rug", "a dog ran in the park"]
POINTS = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
A = DependencyTree(("det", "nsubj", "root"), (1, 2, -1))
B = DependencyTree(("det", "nsubj", "root", "advmod"), (1, 2, -1, 2))
C = DependencyTree(("nsubj", "root"), (1, -1))
TEXTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join), min_size=2, max_size=5)


def close(value: float) -> Any:
    return pytest.approx(value, abs=1e-6)


# -- words -----------------------------------------------------------------------------------------------------


def test_distinct_n_by_section_10_5() -> None:
    assert [distinct_n(CATS, n) for n in (1, 2, 3)] == [close(11 / 18), close(12 / 15), close(10 / 12)]
    assert expectation_adjusted_distinct(CATS, 1, support=50) == close(0.721632)
    assert expectation_adjusted_distinct(CATS, 1, support=1000) == close(0.616322)
    assert expectation_adjusted_distinct(CATS, 2, support=2500) == close(0.802242)


def test_self_bleu_by_section_10_5() -> None:
    assert [text_bleu(text, [t for t in CATS if t != text], 2) for text in CATS] == [
        close(0.632456),
        close(0.707107),
        close(0.081650),
    ]
    assert self_bleu(CATS, 2) == close(0.473737)
    assert [text_bleu(text, [t for t in CATS if t != text]) for text in CATS] == [
        close(0.508133),
        close(0.537285),
        close(0.048549),
    ]
    assert self_bleu(CATS, 4) == close(0.364656)
    assert self_bleu([CATS[0]] * 3) == close(1.0)


def test_edges_of_words() -> None:
    for n in (1, 2):
        for texts in ([], [""], [" ", ""]):
            assert distinct_n(texts, n) == 0 and expectation_adjusted_distinct(texts, n, support=9) == 0
    assert distinct_n(["a", "b"], 2) == 0, "no text has two words"
    assert expectation_adjusted_distinct(["a a a"], 1, support=1) == 1
    assert expectation_adjusted_distinct(["a b c"], 2, support=1) == 2, "more than the support is allowed beyond words"
    assert expectation_adjusted_distinct(CATS, 2, support=10**18) == close(0.8), "nothing repeats by chance"
    with pytest.raises(ValueError, match="support is 10, but the texts have 11 different words"):
        expectation_adjusted_distinct(CATS, 1, support=10)
    with pytest.raises(ValueError, match="support is 0"):
        expectation_adjusted_distinct(CATS, 1, support=0)
    with pytest.raises(ValueError, match="n is 0"):
        distinct_n(CATS, 0)


def test_edges_of_self_bleu() -> None:
    assert math.isnan(self_bleu([])) and math.isnan(self_bleu(CATS[:1]))
    # no match: precisions 0.1/2 and 0.1/1; sacrebleu itself gives 0
    assert text_bleu("x y", ["a b"], 4) == close(math.sqrt(0.05 * 0.1))
    assert text_bleu("a", ["a", "b c d"], 4) == close(1.0), "orders longer than the text are skipped"
    assert text_bleu("a b", ["a b c", "a"], 1) == close(1.0), "equally close: the shorter one, so not too brief"
    assert text_bleu("a b", ["a b c", "a b c d"], 1) == close(math.exp(1 - 3 / 2))
    assert text_bleu("a a a", ["a b", "a a"], 1) == close(2 / 3), "matches are clipped to the most of one reference"
    assert text_bleu("", ["a"]) == 0 and text_bleu("", ["", "a"]) == 1
    with pytest.raises(ValueError, match="max_order is 0"):
        self_bleu(CATS, 0)


def slow_bleu(text: str, references: list[str], max_order: int) -> float:
    """From the definition, without sacrebleu."""
    words, others = text.split(), [reference.split() for reference in references]
    logs = []
    for n in range(1, max_order + 1):
        grams: list[Counter[tuple[str, ...]]] = [
            Counter(tuple(own[i : i + n]) for i in range(len(own) - n + 1)) for own in [words, *others]
        ]
        if not grams[0]:
            continue
        matches = sum(min(count, max(g[gram] for g in grams[1:])) for gram, count in grams[0].items())
        logs.append(math.log((matches or 0.1) / grams[0].total()))
    closest = min((abs(len(own) - len(words)), len(own)) for own in others)[1]
    brevity = 1.0 if len(words) >= closest else math.exp(1 - closest / len(words)) if words else 0.0
    return brevity * (math.exp(sum(logs) / len(logs)) if logs else 1.0)


@given(texts=TEXTS, max_order=st.integers(1, 4))
def test_bleu_against_a_second_implementation(texts: list[str], max_order: int) -> None:
    text, others = texts[0], texts[1:]
    assert text_bleu(text, others, max_order) == pytest.approx(slow_bleu(text, others, max_order))
    if max_order == 4 and set(text.split()) & {word for other in others for word in other.split()}:
        theirs = sentence_bleu(text, others, smooth_method="floor", smooth_value=0.1, tokenize="none")
        assert text_bleu(text, others) == pytest.approx(theirs.score / 100)


@given(texts=TEXTS)
def test_properties_of_words(texts: list[str]) -> None:
    assert self_bleu([texts[0]] * len(texts)) == pytest.approx(1)
    assert self_bleu(texts) == pytest.approx(self_bleu(texts[::-1])) and 0 <= self_bleu(texts) <= 1 + 1e-9
    for n in (1, 2, 3):
        plain, adjusted = distinct_n(texts, n), expectation_adjusted_distinct(texts, n, support=4**n)
        assert 0 <= plain <= 1 and plain <= adjusted + 1e-12, "some repetition is due to length"


# -- meaning and syntax ----------------------------------------------------------------------------------------


def test_embeddings_by_section_10_5() -> None:
    assert semantic_diversity(POINTS) == close(0.8) and vendi_score(POINTS) == close(2.638250)


def test_edges_of_embeddings() -> None:
    zero = torch.zeros(1, 3)
    assert semantic_diversity(torch.cat([zero, zero])) == 1, "zero vectors are like nothing"
    assert vendi_score(torch.cat([zero, POINTS[:1]])) == close(2)
    assert math.isnan(semantic_diversity(POINTS[:1])) and math.isnan(semantic_diversity(POINTS[:0]))
    assert vendi_score(POINTS[:1]) == close(1) and math.isnan(vendi_score(POINTS[:0]))
    assert semantic_diversity(torch.stack([POINTS[0], -POINTS[0]])) == close(2)
    for bad in (torch.tensor([[math.nan]]), torch.tensor([1.0, 2.0]), torch.tensor([[math.inf, 1.0]])):
        with pytest.raises(ValueError, match="cosine_similarities: embeddings of shape"):
            cosine_similarities(bad)


@given(count=st.integers(1, 8), dimension=st.integers(1, 8), seed=st.integers(0, 99))
def test_vendi_lies_between_1_and_k(count: int, dimension: int, seed: int) -> None:
    points = torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))
    assert 1 - 1e-9 <= vendi_score(points) <= min(count, dimension) + 1e-9
    assert vendi_score(points[:1].expand(count, -1)) == close(1)
    assert vendi_score(torch.eye(count) * 3) == close(count)
    assert vendi_score(points) == pytest.approx(vendi_score(points.flip(0) * 5))


def test_hashed_ngrams() -> None:
    embed = HashedNgrams().embed
    near = cosine_similarities(embed(["The cat  sat.", "the cat sat.", "the cats sat.", "quartz prices fell"]))
    assert near[0, 1] == pytest.approx(1) and 0.5 < near[0, 2] < 1 and near[0, 3] < 0.2
    assert embed(["", "a\ud800"]).sum(1).tolist() == [0, 3], "no text has no n-gram; one of two characters has three"
    assert embed([]).shape == (0, 4096) and HashedNgrams(16, 1, 1).embed(["ab"]).sum() == 4
    once, again = embed(["some text"]), HashedNgrams().embed(["some text"])
    assert torch.equal(once, again) and once.argmax() == again.argmax()
    for options in ((0, 3, 5), (8, 0, 2), (8, 3, 2)):
        with pytest.raises(ValueError, match="must satisfy dimension >= 1 and 1 <= smallest <= largest"):
            HashedNgrams(*options)


@pytest.mark.parametrize(
    ("iterations", "kernels"),
    [
        (0, (0.866025, 0.816497, 0.707107)),
        (1, (0.721688, 0.612372, 0.353553)),
        (2, (0.577350, 0.408248, 0.235702)),
    ],
)
def test_trees_by_section_10_5(iterations: int, kernels: tuple[float, ...]) -> None:
    found = [subtree_similarity(x, y, iterations) for x, y in ((A, B), (A, C), (B, C))]
    assert found == [close(kernel) for kernel in kernels]
    assert syntactic_diversity([A, B, C], iterations) == close(1 - sum(kernels) / 3)
    if iterations == 2:
        assert syntactic_diversity([A, B, C]) == close(0.592900)


def test_edges_of_trees() -> None:
    assert math.isnan(syntactic_diversity([A])) and math.isnan(syntactic_diversity([]))
    empty = DependencyTree((), ())
    assert syntactic_diversity([empty, A]) == 1 and syntactic_diversity([A, A, A]) == close(0)
    reordered = DependencyTree(("root", "advmod", "det", "nsubj"), (-1, 0, 3, 0))
    assert subtree_similarity(B, reordered) == close(1), "the order of words is no matter, nor is direction"
    two = DependencyTree(("root", "root"), (-1, -1))
    assert 0 < subtree_similarity(two, DependencyTree(("root", "root"), (-1, 0))) < 1
    for labels, heads, message in (
        (("root",), (), "1 labels and 0 heads"),
        (("a", "b"), (-1, 2), r"word 1 has the head 2; it must lie in -1 .. 1"),
        (("a", "b"), (1, 0), "the heads of word 0 lead in a circle"),
        (("a",), (0,), "the heads of word 0 lead in a circle"),
    ):
        with pytest.raises(ValueError, match=message):
            DependencyTree(labels, heads)
    with pytest.raises(ValueError, match="iterations is -1"):
        syntactic_diversity([A, B], -1)


# -- answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [(10, 3, 1, 0.3), (10, 3, 2, 0.533333), (10, 3, 5, 0.916667), (10, 0, 5, 0), (10, 8, 5, 1)],
)
def test_pass_at_k_by_section_10_5(n: int, c: int, k: int, value: float) -> None:
    assert pass_at_k(n, c, k) == close(value)


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_pass_at_k_counts_subsets_and_grows(drawn: tuple[int, int]) -> None:
    n, c = drawn
    values = [pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert values == sorted(values) and values[0] == pytest.approx(c / n)
    for k, value in enumerate(values, 1):
        assert value == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k))
    if n <= 6:
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), min(2, n)))
        assert pass_at_k(n, c, min(2, n)) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0), (0, 0, 1)])
def test_impossible_pass_at_k(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass_at_k"):
        pass_at_k(n, c, k)


def test_answers_by_section_10_5() -> None:
    assert answer_entropy(["a", "a", "b", "c"]) == close(1.039721)
    assert (
        answer_entropy(["a", None, "a"]) == 0 and math.isnan(answer_entropy([None])) and math.isnan(answer_entropy([]))
    )
    assert distinct_correct(["a", "a", "b", "c", None], [True, True, True, False, True]) == 2
    assert distinct_correct([], []) == 0


def test_entropies() -> None:
    log_probs, lengths = torch.tensor([-2.0, -4.0]), torch.tensor([1, 5])
    assert sequence_entropy(log_probs) == 3 and token_entropy(log_probs, lengths) == 1
    assert math.isnan(sequence_entropy(log_probs[:0])) and math.isnan(token_entropy(log_probs[:0], lengths[:0]))
    assert math.isnan(token_entropy(torch.zeros(1), torch.zeros(1, dtype=torch.int64)))


def test_expected_distinct_by_section_10_1() -> None:
    rlhf, qempo = (0.707479, 0.057923, 0.142271), (0.457609, 0.301448, 0.198578)
    assert [expected_distinct(rlhf, k) for k in (4, 16)] == [
        pytest.approx(1.663755, abs=1e-5),
        pytest.approx(2.529251, abs=1e-5),
    ]
    assert [expected_distinct(qempo, k) for k in (4, 16)] == [
        pytest.approx(2.262814, abs=1e-5),
        pytest.approx(2.967770, abs=1e-5),
    ]


def test_quality() -> None:
    # qempo.md 10.1, entropies of QEMPO along its frontier
    qualities, entropies = [0.95, 0.75, 0.85], [0.903296, 1.606379, 1.377855]
    assert at_quality(qualities, entropies, 0.80) == close((1.606379 + 1.377855) / 2)
    assert at_quality(qualities, entropies, 0.95) == 0.903296 and math.isnan(at_quality(qualities, entropies, 0.96))
    assert at_quality([0.5, 0.5, 0.7], [1.0, 3.0, 4.0], 0.5) == 2 and math.isnan(at_quality([], [], 0.5))


# -- torchmetrics ----------------------------------------------------------------------------------------------

GROUPS = torch.tensor([7, 7, 3, 7, 3])
CORRECT = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
TALK = [CATS[0], CATS[1], "so be it", CATS[2], "so be it"]


def numbers(metric: Any) -> dict[str, float]:
    return {name: float(value) for name, value in metric.compute().items()}


def test_lexical_diversity() -> None:
    metric = LexicalDiversity(orders=(1, 2), bleu_order=2, vocabulary_size=50)
    metric.update(TALK, GROUPS, CORRECT)
    found = numbers(metric)
    assert found["distinct_1"] == close((11 / 18 + 1 / 2) / 2) and found["distinct_2"] == close((0.8 + 0.5) / 2)
    assert found["self_bleu_2"] == close((0.473737 + 1) / 2)
    assert found["ead_2"] == close((0.802242 + expectation_adjusted_distinct(["so be it"] * 2, 2, support=2500)) / 2)
    # of the right ones: texts 0 and 3 of prompt 7, one of prompt 3, which is too few
    assert found["distinct_1_correct"] == close(10 / 12) and found["self_bleu_2_correct"] == close(
        self_bleu([CATS[0], CATS[2]], 2)
    )
    plain = LexicalDiversity()
    plain.update(TALK, GROUPS)
    assert math.isnan(numbers(plain)["distinct_3_correct"]) and "ead_1" not in numbers(plain)


class Lookup:
    def __init__(self, rows: Tensor):
        self.rows = rows

    def embed(self, texts: Sequence[str]) -> Tensor:
        return self.rows[[int(text) for text in texts]]


def test_semantic_diversity_with_an_embedding_of_ones_own() -> None:
    metric = SemanticDiversity(Lookup(POINTS))
    metric.update(["0", "1", "2", "1", "1", "0"], torch.tensor([0, 0, 0, 1, 1, 2]))
    found = numbers(metric)
    assert found["semantic_diversity"] == close((0.8 + 0.0) / 2), "one text alone says nothing"
    assert found["vendi"] == close((2.638250 + 1 + 1) / 3)
    with pytest.raises(ValueError, match=r"Lookup.embed gave \(3, 3\) for 2 texts"):
        broken = Lookup(POINTS)
        broken.embed = lambda texts: POINTS
        SemanticDiversity(broken).update(["0", "1"], torch.tensor([0, 0]))
    offline = SemanticDiversity()
    offline.update(TALK, GROUPS)
    assert 0 < numbers(offline)["semantic_diversity"] < 1


def test_syntactic_diversity() -> None:
    metric = SyntacticDiversity()
    metric.update([A, B, C, A, A], torch.tensor([0, 0, 0, 1, 1]))
    assert numbers(metric)["syntactic_diversity"] == close((0.592900 + 0) / 2)
    with pytest.raises(ValueError, match="SyntacticDiversity.iterations is -1"):
        SyntacticDiversity(-1)


def test_sequence_entropy() -> None:
    metric = SequenceEntropy()
    log_probs, lengths = torch.tensor([-1.0, -2.0, -8.0, -3.0, -4.0]), torch.tensor([1, 2, 4, 3, 0])
    metric.update(log_probs, lengths, torch.tensor([True, False, False, False, True]), GROUPS)
    assert numbers(metric) == {
        "sequence_entropy": close((2 + 6) / 2),
        "token_entropy": close((6 / 6 + 12 / 4) / 2),
        "truncated_share": close((1 / 3 + 1 / 2) / 2),
        "mean_length": close((2 + 2) / 2),
    }


def test_answer_diversity() -> None:
    metric = AnswerDiversity(ks=(1, 2))
    metric.update(["a", "b", "x", "a", None], CORRECT, GROUPS, quality=torch.tensor([0.5, 0.0, 1.0, 1.0, 0.0]))
    entropy = math.log(3) - 2 / 3 * math.log(2)
    assert numbers(metric) == {
        "distinct_correct": 1.0,
        "answer_entropy": close((entropy + 0) / 2),
        "effective_answers": close((math.exp(entropy) + 1) / 2),
        "quality": close((0.5 + 0.5) / 2),
        "pass_at_1": close((2 / 3 + 1 / 2) / 2),
        "pass_at_2": 1.0,
    }
    metric.reset()
    metric.update([None, None], torch.zeros(2), torch.tensor([0, 0]))
    found = numbers(metric)
    assert math.isnan(found["answer_entropy"]) and found["quality"] == found["distinct_correct"] == 0
    with pytest.raises(ValueError, match="k is 2, but 1 answers were drawn"):
        metric.update(["a"], torch.ones(1), torch.tensor([0]))
    for ks in ((), (0, 1)):
        with pytest.raises(ValueError, match="AnswerDiversity.ks is"):
            AnswerDiversity(ks)


@pytest.mark.parametrize(
    ("make", "items"),
    [
        (LexicalDiversity, TALK),
        (SemanticDiversity, TALK),
        (SyntacticDiversity, [A, B, C, C, A]),
    ],
)
def test_ranks_and_batches_add_up(make: Callable[[], Any], items: list[Any]) -> None:
    """Two prompts on two ranks, and in two updates, are what both are at once."""
    whole, here, there, apart = (make() for _ in range(4))
    whole.update(items, GROUPS, CORRECT)
    for group, rank in ((7, here), (3, there)):
        rows = [row for row, own in enumerate(GROUPS.tolist()) if own == group]
        part = ([items[row] for row in rows], GROUPS[rows], CORRECT[rows])
        rank.update(*part)
        apart.update(*part)
    here.merge_state(there)
    wanted = {name: pytest.approx(value, nan_ok=True) for name, value in numbers(whole).items()}
    assert numbers(here) == wanted and numbers(apart) == wanted


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_nothing_added_is_not_zero() -> None:
    for metric in (LexicalDiversity(), SequenceEntropy(), AnswerDiversity()):
        assert all(math.isnan(value) for value in numbers(metric).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orders": ()}, "LexicalDiversity.orders is"),
        ({"orders": (0, 1)}, "LexicalDiversity.orders is"),
        ({"bleu_order": 0}, "LexicalDiversity.bleu_order is 0"),
        ({"vocabulary_size": 0}, "LexicalDiversity.vocabulary_size is 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LexicalDiversity(**options)
    with pytest.raises(ValueError, match=r"There are 5 responses and \(2,\) group_ids"):
        LexicalDiversity().update(TALK, torch.tensor([0, 1]))
