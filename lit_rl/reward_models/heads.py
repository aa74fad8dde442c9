"""What a head is, and the plain ones that the transformer head is compared with."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

CLASSES = 2


@dataclass(frozen=True)
class HeadConfig(ABC):
    """Says how a head is built; a subclass is a frozen dataclass of plain values, so that it can be saved as JSON."""

    @abstractmethod
    def build(self, in_features: int) -> nn.Module:
        """A fresh head from representations ``(B, in_features)`` to logits ``(B, 2)``; draws from torch's generator."""


def initialize(module: nn.Module) -> None:
    """Give every linear layer inside Xavier-uniform weights and a zero bias, in place."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def check_dropout(**options: float) -> None:
    """Raise ValueError for a share of dropped units outside [0, 1)."""
    for name, value in options.items():
        if not 0 <= value < 1:
            raise ValueError(f"head.{name} is {value}; it must be at least 0 and below 1.")


@dataclass(frozen=True, kw_only=True)
class LinearHead(HeadConfig):
    """One linear layer: the baseline without any hidden layer."""

    def build(self, in_features: int) -> nn.Module:
        head = nn.Linear(in_features, CLASSES)
        initialize(head)
        return head


@dataclass(frozen=True, kw_only=True)
class MLPHead(HeadConfig):
    """A hidden layer half as wide as its input, ReLU, dropout (the baseline in the authors' code).

    Args:
        dropout: Share of hidden units dropped while training.
    """

    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_dropout(dropout=self.dropout)

    def build(self, in_features: int) -> nn.Module:
        hidden = in_features // 2
        if not hidden:
            raise ValueError(f"An MLP head needs at least 2 input features; the backbone has {in_features}.")
        head = nn.Sequential(
            nn.Linear(in_features, hidden), nn.ReLU(), nn.Dropout(self.dropout), nn.Linear(hidden, CLASSES)
        )
        initialize(head)
        return head


def seeded(config: HeadConfig, in_features: int, seed: int) -> nn.Module:
    """A head whose weights depend on ``seed`` alone; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.build(in_features)


def logits_of(heads: nn.ModuleDict, representations: Tensor) -> Tensor:
    """Logits of all heads, float32 ``(B, heads, 2)``, of representations float ``(B, H)``."""
    return torch.stack([head(representations).float() for head in heads.values()], dim=1)
