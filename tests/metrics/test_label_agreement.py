import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef
from torchmetrics.functional.classification import binary_cohen_kappa, binary_f1_score

from lit_rl.metrics.label_agreement import (
    LabelAgreement,
    axis_agreement,
    binomial_error,
    by_source_accuracy,
    exact_match,
    majority_accuracy,
    score_error,
    score_rank_correlation,
    source_mix_accuracy,
)

AXES = ("effort", "evidence", "grounding")


def columns(*counts: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """``(predictions, labels)`` with so many rows of (prediction, label)."""
    rows = [(said, true) for said, true, count in counts for _ in range(count)]
    said, true = torch.tensor(rows).unbind(1)
    return said, true


def test_golden_values_of_an_axis() -> None:
    """intelli.md 10.8: 15 negatives, 12 of them right, and 5 positives, 4 of them right."""
    said, true = columns((0, 0, 12), (1, 0, 3), (1, 1, 4), (0, 1, 1))
    found = axis_agreement(said, true)
    assert found.accuracy == found.recall_0 == found.recall_1 == found.balanced_accuracy == pytest.approx(0.8)
    assert found.f1 == pytest.approx(2 / 3)  # 2 * 4 / (7 + 5)
    assert found.kappa == pytest.approx(0.5294117647)  # (.8 - .575) / (1 - .575)
    assert found.rows == 20
    assert majority_accuracy(true) == 0.75
    assert binomial_error(0.72, 86) == pytest.approx(0.0484, abs=5e-5)


def test_golden_values_of_triples() -> None:
    """intelli.md 10.8: predictions 0 1 0 and 1 0 1 for labels 0 1 1 and 1 1 0."""
    said, true = torch.tensor([[0, 1, 0], [1, 0, 1]]), torch.tensor([[0, 1, 1], [1, 1, 0]])
    assert [axis_agreement(a, b).accuracy for a, b in zip(said.T, true.T, strict=True)] == [1.0, 0.5, 0.0]
    assert exact_match(said, true) == 0.0
    assert score_error(said, true) == 0.5  # S is 1 and 2, the annotators' 2 and 2
    assert math.isnan(score_rank_correlation(said, true))  # theirs is constant


def test_an_equal_mixture_of_the_published_sources() -> None:
    """intelli.md 12.2: "always 0" has .715, .82 and .71 on equal parts of the four sources of the human table."""
    rates = {"human": (54, 46, 57), "o3": (32, 12, 36), "gemini": (26, 13, 21), "qwen": (2, 1, 2)}
    labels, sources = [], []
    for number, (source, per_cent) in enumerate(rates.items()):
        copies = 3 if source == "human" else 1  # who asked more often must not weigh more
        labels += [[int(row < ones) for ones in per_cent] for row in range(100)] * copies
        sources += [number] * 100 * copies
    table, asked = torch.tensor(labels), torch.tensor(sources)
    found = [source_mix_accuracy(column, asked) for column in table.T]
    assert found == pytest.approx([0.715, 0.82, 0.71])
    assert sum(found) / 3 == pytest.approx(0.748, abs=5e-4)
    assert majority_accuracy(table[:, 0]) == pytest.approx(1 - (3 * 54 + 32 + 26 + 2) / 600)
    assert by_source_accuracy(table[:, 0], asked) == pytest.approx((3 * 54 + 68 + 74 + 98) / 600)


labelled = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=3, max_size=30)


@settings(deadline=None, max_examples=25)
@given(rows=labelled)
def test_as_torchmetrics(rows: list[tuple[int, int]]) -> None:
    said, true = torch.tensor(rows).unbind(1)
    found = axis_agreement(said, true)
    if not math.isnan(found.kappa):
        assert found.kappa == pytest.approx(float(binary_cohen_kappa(said, true)), abs=1e-5)
    if not math.isnan(found.f1):
        assert found.f1 == pytest.approx(float(binary_f1_score(said, true)), abs=1e-5)
    assert found.accuracy <= 1 and majority_accuracy(true) >= 0.5


@settings(deadline=None, max_examples=25)
@given(rows=st.lists(st.lists(st.integers(0, 1), min_size=6, max_size=6), min_size=4, max_size=20))
def test_rank_correlation_as_torchmetrics(rows: list[list[int]]) -> None:
    said, true = torch.tensor(rows).split(3, dim=1)
    found = score_rank_correlation(said, true)
    if not math.isnan(found):
        wanted = spearman_corrcoef(said.sum(1).double(), true.sum(1).double())
        assert found == pytest.approx(float(wanted), abs=1e-5)


def test_missing_labels_are_left_out() -> None:
    said, true = columns((1, 1, 2), (1, -100, 5), (0, 1, 2))
    assert axis_agreement(said, true).accuracy == 0.5 and axis_agreement(said, true).rows == 4
    assert math.isnan(axis_agreement(said, true).balanced_accuracy)  # nobody annotated a 0
    assert majority_accuracy(true) == 1.0
    triples = torch.tensor([[1, 1, 1], [0, 0, -100]])
    assert exact_match(torch.ones(2, 3, dtype=torch.int64), triples) == 1.0
    assert math.isnan(exact_match(triples[1:], triples[1:]))


def batch(rows: int, seed: int) -> tuple[Tensor, Tensor, list[str | None]]:
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(0, 2, (2, rows, 3), generator=generator)
    table[1, 0, 1] = -100
    return table[0], table[1], [["human", "model", None][row % 3] for row in range(rows)]


def test_parts_merged_are_one_pass() -> None:
    whole, parts = LabelAgreement(AXES), [LabelAgreement(AXES) for _ in range(2)]
    for number, part in enumerate(parts):
        for metric in (whole, part):
            metric.update(*batch(7 + number, seed=number))
    parts[0].merge_state(parts[1])
    assert parts[0].compute() == whole.compute()
    whole.reset()
    whole.update(*(part[:0] for part in batch(3, seed=0)))  # as on a rank without rows
    assert whole.compute()["model"]["effort/rows"] == 0 and "accuracy" not in whole.compute()["model"]


def test_what_is_computed() -> None:
    metric = LabelAgreement(AXES)
    said, true, sources = batch(30, seed=4)
    metric.update(said, true, sources)
    found = metric.compute()
    assert list(found) == ["model", "majority", "source_mix", "by_source"]
    for axis, mine, theirs in zip(AXES, said.T, true.T, strict=True):
        assert found["model"][f"{axis}/kappa"] == axis_agreement(mine, theirs).kappa
        assert found["majority"][f"{axis}/accuracy"] == majority_accuracy(theirs)
        assert found["by_source"][f"{axis}/accuracy"] >= found["majority"][f"{axis}/accuracy"]
    by_axis = [found["model"][f"{axis}/accuracy"] for axis in AXES]
    assert found["model"]["accuracy"] == pytest.approx(sum(by_axis) / 3)
    assert found["model"]["accuracy_error"] == binomial_error(found["model"]["accuracy"], 30)
