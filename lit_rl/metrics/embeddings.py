"""How far apart texts lie in an embedding: semantic diversity and the Vendi score (qempo.md section 7, our choice).

The embedding is the caller's; the default needs no download and sees spelling, not meaning.
"""

import math
import zlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

SMALLEST_EIGENVALUE = 1e-12  # of the Vendi score; below is rounding


class Embedding(Protocol):
    """Anything that turns texts into vectors, such as a sentence encoder."""

    def embed(self, texts: Sequence[str]) -> Tensor:
        """One row for each text, float ``(K, D)``."""
        ...


class HashedNgrams:
    """Counts of character n-grams, hashed to a fixed number of places; the same on every machine.

    Case and runs of spaces do not matter.  Texts count as alike if they are spelled alike: two ways to say one thing
    are far apart.  For meaning, give an encoder's `Embedding`.

    Args:
        dimension: Places; n-grams that share one look alike.
        smallest: Characters of the shortest n-grams.
        largest: Of the longest.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(self, dimension: int = 4096, smallest: int = 3, largest: int = 5):
        if dimension < 1 or not 1 <= smallest <= largest:
            raise ValueError(
                f"HashedNgrams: dimension {dimension}, smallest {smallest}, largest {largest} must satisfy dimension "
                ">= 1 and 1 <= smallest <= largest."
            )
        self.dimension, self.sizes = dimension, range(smallest, largest + 1)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Counts, float32 ``(K, dimension)``; zero where a text is shorter than ``smallest`` with a space around it."""
        rows = torch.zeros(len(texts), self.dimension)
        for row, text in zip(rows, texts, strict=True):
            places = torch.tensor(self._places(text), dtype=torch.int64)
            row.copy_(torch.bincount(places, minlength=self.dimension))
        return rows

    def _places(self, text: str) -> list[int]:
        padded = f" {' '.join(text.casefold().split())} "
        pieces = (padded[i : i + n] for n in self.sizes for i in range(len(padded) - n + 1))
        # a lone surrogate, which a model can write, has no UTF-8
        return [zlib.crc32(piece.encode("utf-8", "surrogatepass")) % self.dimension for piece in pieces]


def cosine_similarities(embeddings: Tensor) -> Tensor:
    """Cosines of all pairs, float64 ``(K, K)`` on the CPU.

    A zero vector has 0 with all others, and our reading is that it has 1 with itself like them.

    Args:
        embeddings: float ``(K, D)``.

    Raises:
        ValueError: Another shape, or a value that is not finite.
    """
    if embeddings.ndim != 2 or not bool(embeddings.isfinite().all()):
        raise ValueError(
            f"cosine_similarities: embeddings of shape {tuple(embeddings.shape)} must be (texts, dimensions), all "
            "finite."
        )
    vectors = embeddings.detach().to("cpu", torch.float64)
    norms = vectors.norm(dim=1, keepdim=True)
    vectors = vectors / norms.masked_fill(norms == 0, 1.0)
    return (vectors @ vectors.T).clamp(-1, 1).fill_diagonal_(1.0)


def mean_distance(similarities: Tensor) -> float:
    """Mean of ``1 - s`` over all pairs of different items, from similarities ``(K, K)``; NaN of fewer than 2."""
    count = len(similarities)
    if count < 2:
        return math.nan
    pairs = similarities[torch.triu(torch.ones_like(similarities, dtype=torch.bool), diagonal=1)]
    return float((1 - pairs).mean())


def semantic_diversity(embeddings: Tensor) -> float:
    """Mean distance ``1 - cos`` over all pairs of texts; NaN of fewer than 2.

    Args:
        embeddings: Of the responses to one prompt, float ``(K, D)``.

    Example:
        >>> round(semantic_diversity(torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1]])), 6)
        0.8
    """
    return mean_distance(cosine_similarities(embeddings))


def vendi_score(embeddings: Tensor) -> float:
    """How many different texts there are in effect, ``exp(-sum w log w)``: 1 if all are alike, ``K`` if orthogonal.

    ``w`` are the eigenvalues of the cosine matrix over ``K`` (Friedman and Dieng, 2023).  NaN of no text.

    Args:
        embeddings: Of the responses to one prompt, float ``(K, D)``.
    """
    if len(embeddings) == 0:
        return math.nan
    weights = torch.linalg.eigvalsh(cosine_similarities(embeddings) / len(embeddings))
    weights = weights[weights > SMALLEST_EIGENVALUE]
    return float((-(weights * weights.log()).sum()).exp())
