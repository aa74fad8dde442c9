"""The head of IntelliReward: a small transformer over slices of one feature vector (arXiv 2602.15849, section 5.2)."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lit_rl.reward_models.heads import CLASSES, HeadConfig, check_dropout, initialize

Classifier = Literal["mlp", "linear"]


@dataclass(frozen=True, kw_only=True)
class ChunkTransformer(HeadConfig):
    """Sizes of a `ChunkTransformerHead`; the defaults are those of the authors' three-axis model.

    Args:
        num_chunks: Slices of the feature vector, which its width must be a multiple of.
        width: Of the encoder.
        layers: Of the encoder.
        attention_heads: Of each layer; must divide ``width``.
        feedforward: Width between the two layers of each feed-forward part, and of the residual one.
        dropout: In the encoder, the residual part and the classifier.
        pool_dropout: On the pooled vector.
        classifier: "mlp", as in the authors' code, or "linear", as in the paper's text.
        chunk_position: Add a learned vector to each chunk (ours).  Without it the head treats chunks as a set: its
            logits are the same for every order of them.
    """

    num_chunks: int = 16
    width: int = 512
    layers: int = 4
    attention_heads: int = 8
    feedforward: int = 1024
    dropout: float = 0.15
    pool_dropout: float = 0.15
    classifier: Classifier = "mlp"
    chunk_position: bool = False

    def __post_init__(self) -> None:
        for name in ("num_chunks", "width", "layers", "attention_heads", "feedforward"):
            if getattr(self, name) < 1:
                raise ValueError(f"head.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.width % self.attention_heads:
            raise ValueError(f"head.width is {self.width}; it must be a multiple of {self.attention_heads} heads.")
        if self.classifier not in get_args(Classifier):
            raise ValueError(f"head.classifier is {self.classifier!r}; use one of {list(get_args(Classifier))}.")
        check_dropout(dropout=self.dropout, pool_dropout=self.pool_dropout)

    def build(self, in_features: int) -> nn.Module:
        return ChunkTransformerHead(in_features, self)


class ChunkTransformerHead(nn.Module):
    """From a feature vector to two logits: slices of it, one projection for all, encoder, attention pooling, MLP.

    The encoder's layers normalize behind each part; there is no mask, no position unless ``chunk_position``, and no
    norm at the end.  Pooling is a softmax over chunks of a learned query's products, unscaled.  Linear weights are
    Xavier-uniform, biases zero; each layer is drawn for itself, where the authors' encoder copies one (ours).

    Args:
        in_features: Width of the vector, a multiple of the number of chunks.
        config: Sizes.
    """

    def __init__(self, in_features: int, config: ChunkTransformer):
        super().__init__()
        if in_features % config.num_chunks:
            raise ValueError(
                f"head.num_chunks is {config.num_chunks}, which does not divide the {in_features} features of the "
                "backbone; take a divisor."
            )
        width = config.width
        self.num_chunks = config.num_chunks
        self.project = nn.Linear(in_features // config.num_chunks, width)
        self.position = nn.Parameter(torch.zeros(config.num_chunks, width)) if config.chunk_position else None
        self.encoder = nn.ModuleList(_encoder_layer(config) for _ in range(config.layers))
        self.pool_query = nn.Parameter(torch.zeros(1, 1, width))
        self.pool_norm = nn.LayerNorm(width, eps=1e-4)
        self.pool_dropout = nn.Dropout(config.pool_dropout)
        self.residual = nn.Sequential(
            nn.Linear(width, config.feedforward),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.feedforward, width),
            nn.Dropout(config.dropout),
        )
        self.residual_norm = nn.LayerNorm(width, eps=1e-4)
        self.classifier = _classifier(config)
        self._initialize()

    def forward(self, representations: Tensor) -> Tensor:
        """Logits ``(B, 2)`` of representations ``(B, in_features)``."""
        pooled, _ = self.pool(self.encode(representations))
        hidden = self.residual_norm(pooled + self.residual(pooled))
        logits: Tensor = self.classifier(hidden)
        return logits

    def encode(self, representations: Tensor) -> Tensor:
        """Encoded chunks ``(B, chunks, width)``; a chunk is a contiguous slice of the features."""
        chunks = representations.reshape(len(representations), self.num_chunks, -1)
        hidden: Tensor = self.project(chunks)
        if self.position is not None:
            hidden = hidden + self.position
        for layer in self.encoder:
            hidden = layer(hidden)
        return hidden

    def pool(self, chunks: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled vector ``(B, width)`` of encoded chunks, and the weights ``(B, 1, chunks)`` it is pooled with."""
        weights = (self.pool_query @ chunks.transpose(1, 2)).softmax(-1)
        pooled: Tensor = self.pool_dropout(self.pool_norm((weights @ chunks)[:, 0]))
        return pooled, weights

    def _initialize(self) -> None:
        initialize(self)  # the rest of the encoder's layers is drawn where they are made
        nn.init.normal_(self.pool_query)
        if self.position is not None:
            nn.init.normal_(self.position, std=0.02)


def _encoder_layer(config: ChunkTransformer) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(
        config.width,
        config.attention_heads,
        dim_feedforward=config.feedforward,
        dropout=config.dropout,
        activation="gelu",
        layer_norm_eps=1e-5,
        batch_first=True,
    )
    nn.init.xavier_uniform_(layer.self_attn.in_proj_weight)
    nn.init.zeros_(layer.self_attn.in_proj_bias)
    return layer


def _classifier(config: ChunkTransformer) -> nn.Module:
    if config.classifier == "linear":
        return nn.Linear(config.width, CLASSES)
    return nn.Sequential(
        nn.Linear(config.width, config.width),
        nn.GELU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.width, CLASSES),
    )
