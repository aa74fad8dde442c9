"""How well a reward model agrees with annotators, beside what anybody reaches who has not read the questions.

With most labels 0, accuracy alone misleads: "always 0" may look better than a model (arXiv 2602.15849, whose human
table gives it .748 on an equal mixture of its four sources).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class AxisAgreement(NamedTuple):
    """Agreement on one binary axis; NaN where a figure is undefined."""

    accuracy: float
    balanced_accuracy: float  # mean of the two recalls
    recall_0: float
    recall_1: float
    f1: float  # of class 1
    kappa: float  # Cohen's
    rows: int


def axis_agreement(predictions: Tensor, labels: Tensor) -> AxisAgreement:
    """Agreement of predicted with annotated classes, int64 ``(N,)`` each; rows with a negative label are left out.

    Example:
        >>> axis_agreement(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])).accuracy
        0.75
    """
    said, true = predictions[labels >= 0], labels[labels >= 0]
    count = len(true)
    hits, zeros, ones = int((said == true).sum()), int((true == 0).sum()), int((true == 1).sum())
    both = int(((said == 1) & (true == 1)).sum())
    said_ones = int((said == 1).sum())
    recall_1 = _ratio(both, ones)
    recall_0 = _ratio(hits - both, zeros)
    accuracy = _ratio(hits, count)
    by_chance = _ratio(said_ones * ones + (count - said_ones) * zeros, count**2)
    return AxisAgreement(
        accuracy=accuracy,
        balanced_accuracy=(recall_0 + recall_1) / 2,
        recall_0=recall_0,
        recall_1=recall_1,
        f1=_ratio(2 * both, said_ones + ones),
        kappa=_ratio(accuracy - by_chance, 1 - by_chance),
        rows=count,
    )


def exact_match(predictions: Tensor, labels: Tensor) -> float:
    """Share of rows right on all axes, of int64 ``(N, axes)`` each; rows that lack a label are left out."""
    whole = (labels >= 0).all(1)
    return _ratio(int((predictions == labels)[whole].all(1).sum()), int(whole.sum()))


def score_error(predictions: Tensor, labels: Tensor) -> float:
    """Mean absolute error of the sum over axes ``S``, of int64 ``(N, axes)`` each; incomplete rows are left out."""
    said, true = _sums(predictions, labels)
    return _ratio(float((said - true).abs().sum()), len(true))


def score_rank_correlation(predictions: Tensor, labels: Tensor) -> float:
    """Spearman's correlation of ``S`` with the annotators' sum, ties sharing their mean rank; NaN if one is constant.

    Args:
        predictions: int64 ``(N, axes)``.
        labels: Likewise; incomplete rows are left out.
    """
    said, true = (_mean_ranks(sums) for sums in _sums(predictions, labels))
    said, true = said - said.mean(), true - true.mean()
    return _ratio(float(said @ true), math.sqrt(float(said @ said) * float(true @ true)))


def majority_accuracy(labels: Tensor) -> float:
    """Accuracy of the better constant, chosen knowing the labels, int64 ``(N,)``; negative ones are left out."""
    rate = _ratio(int((labels == 1).sum()), int((labels >= 0).sum()))
    return max(rate, 1 - rate)


def source_mix_accuracy(labels: Tensor, sources: Tensor) -> float:
    """Accuracy of the better constant if every source had asked equally often (the published mixture).

    Args:
        labels: int64 ``(N,)``; negative ones are left out.
        sources: Number of who asked, int64 ``(N,)``.
    """
    rate = _mean([float((mine == 1).double().mean()) for mine in _labels_by_source(labels, sources)])
    return max(rate, 1 - rate)


def by_source_accuracy(labels: Tensor, sources: Tensor) -> float:
    """Accuracy of who knows the source alone, and its better constant; arguments as `source_mix_accuracy`."""
    right = [len(mine) * majority_accuracy(mine) for mine in _labels_by_source(labels, sources)]
    return _ratio(sum(right), int((labels >= 0).sum()))


def binomial_error(accuracy: float, count: int) -> float:
    """Standard error of a share of ``count`` rows.

    Example:
        >>> round(binomial_error(0.72, 86), 4)
        0.0484
    """
    return math.sqrt(accuracy * (1 - accuracy) / count) if count else math.nan


class LabelAgreement(Metric):
    """All of these over batches and ranks, beside the baselines.

    Args:
        axes: Names of the axes, in the order of the columns.
        kwargs: Of torchmetrics' ``Metric``.

    Example:
        >>> metric = LabelAgreement(["effort", "evidence"])
        >>> metric.update(torch.tensor([[0, 1], [0, 0]]), torch.tensor([[0, 1], [1, 0]]), ["human", "model"])
        >>> metric.compute()["model"]["accuracy"]
        0.75
    """

    full_state_update = False

    said: list[Tensor]
    true: list[Tensor]
    asked: list[Tensor]

    def __init__(self, axes: Sequence[str], **kwargs: Any):
        super().__init__(**kwargs)
        self.axes = tuple(axes)
        for name in ("said", "true", "asked"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self._open()

    def update(self, predictions: Tensor, labels: Tensor, sources: Sequence[str | None]) -> None:
        """Add rows.

        Args:
            predictions: int64 ``(N, axes)``, 0 or 1.
            labels: int64 ``(N, axes)``, 0 or 1, negative where nobody annotated.
            sources: Who asked each; None is a source like others.
        """
        self.said.append(predictions)
        self.true.append(labels)
        self.asked.append(torch.tensor([_number(source) for source in sources], dtype=torch.int64).to(labels.device))

    def compute(self) -> dict[str, dict[str, float]]:
        """Figures of "model" and of the baselines "majority", "source_mix" and "by_source"; the undefined are left out.

        Of each ``accuracy`` (mean over axes) and ``AXIS/accuracy``; of the model also what `AxisAgreement` has,
        ``balanced_accuracy`` (mean over axes), ``accuracy_error`` (of as many rows as there are), ``exact_match``,
        ``score_error`` and ``score_rank_correlation``.
        """
        said, true, asked = (dim_zero_cat(state).cpu() for state in (self.said, self.true, self.asked))
        columns = dict(zip(self.axes, zip(said.unbind(1), true.unbind(1), strict=True), strict=True))
        agreement = {axis: axis_agreement(*column) for axis, column in columns.items()}
        model = {f"{axis}/{name}": x for axis, found in agreement.items() for name, x in found._asdict().items()}
        model["accuracy"] = _mean([found.accuracy for found in agreement.values()])
        model["balanced_accuracy"] = _mean([found.balanced_accuracy for found in agreement.values()])
        model["accuracy_error"] = binomial_error(model["accuracy"], int((true >= 0).any(1).sum()))
        model["exact_match"] = exact_match(said, true)
        model["score_error"] = score_error(said, true)
        model["score_rank_correlation"] = score_rank_correlation(said, true)
        found = {
            "model": model,
            "majority": _baseline({axis: majority_accuracy(labels) for axis, (_, labels) in columns.items()}),
            "source_mix": _baseline({axis: source_mix_accuracy(x, asked) for axis, (_, x) in columns.items()}),
            "by_source": _baseline({axis: by_source_accuracy(x, asked) for axis, (_, x) in columns.items()}),
        }
        return {name: {key: x for key, x in figures.items() if not math.isnan(x)} for name, figures in found.items()}

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        self._open()

    def _open(self) -> None:
        # A rank without rows must take part in gathering, with tensors of the right shape and type.
        empty = torch.zeros(0, len(self.axes), dtype=torch.int64, device=self.device)
        self.said.append(empty)
        self.true.append(empty.clone())
        self.asked.append(empty[:, 0].clone())


def _baseline(accuracy: Mapping[str, float]) -> dict[str, float]:
    return {"accuracy": _mean(list(accuracy.values()))} | {f"{axis}/accuracy": x for axis, x in accuracy.items()}


def _labels_by_source(labels: Tensor, sources: Tensor) -> list[Tensor]:
    known = labels >= 0
    return [labels[known & (sources == source)] for source in torch.unique(sources[known]).tolist()]


def _sums(predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the axes of rows with all labels, float64 ``(N,)`` each."""
    whole = (labels >= 0).all(1)
    return predictions[whole].sum(1).double(), labels[whole].sum(1).double()


def _mean_ranks(values: Tensor) -> Tensor:
    _, group, counts = torch.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2)[group].double()


def _mean(values: Sequence[float]) -> float:
    return _ratio(sum(values), len(values))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _number(source: str | None) -> int:
    """The same on every rank, whichever sources it has seen."""
    digest = hashlib.blake2b(repr(source).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
