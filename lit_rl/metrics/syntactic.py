"""How far apart sentences are built: a kernel on dependency trees (qempo.md section 7, our definitions).

The trees are the caller's; no parser is part of lit-rl.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_rl.metrics.embeddings import mean_distance


@dataclass(frozen=True, slots=True)
class DependencyTree:
    """The words of a text by their relations, or a forest of several sentences.

    Args:
        labels: Of each word, such as "nsubj"; the root's too.
        heads: Place of the word each depends on, counted from 0; -1 for a root.

    Raises:
        ValueError: Counts differ, a head does not exist, or heads lead in a circle.
    """

    labels: tuple[str, ...]
    heads: tuple[int, ...]

    def __post_init__(self) -> None:
        count = len(self.labels)
        if len(self.heads) != count:
            raise ValueError(f"DependencyTree: there are {count} labels and {len(self.heads)} heads; give one each.")
        for word, head in enumerate(self.heads):
            if not -1 <= head < count:
                raise ValueError(f"DependencyTree: word {word} has the head {head}; it must lie in -1 .. {count - 1}.")
        for word in range(count):
            steps, place = 0, word
            while place != -1:
                steps, place = steps + 1, self.heads[place]
                if steps > count:
                    raise ValueError(f"DependencyTree: the heads of word {word} lead in a circle; one must be -1.")


def subtree_counts(tree: DependencyTree, iterations: int = 2) -> Counter[str]:
    """How often each label occurs, first alone, then refined ``iterations`` times by those of its neighbours.

    The Weisfeiler-Lehman subtree features (Shervashidze et al., 2011) of the tree without directions.

    Args:
        tree: Of one text.
        iterations: ``h``; 0 counts labels alone.

    Raises:
        ValueError: ``iterations`` is negative.
    """
    if iterations < 0:
        raise ValueError(f"subtree_counts: iterations is {iterations}; it must be at least 0.")
    neighbours: list[list[int]] = [[] for _ in tree.labels]
    for word, head in enumerate(tree.heads):
        if head != -1:
            neighbours[word].append(head)
            neighbours[head].append(word)
    labels = [_compressed(0, label) for label in tree.labels]
    counts = Counter(labels)
    for depth in range(1, iterations + 1):
        labels = [_compressed(depth, labels[w], *sorted(labels[i] for i in near)) for w, near in enumerate(neighbours)]
        counts.update(labels)
    return counts


def subtree_similarity(tree: DependencyTree, other: DependencyTree, iterations: int = 2) -> float:
    """``k(A, B) / sqrt(k(A, A) k(B, B))`` of the `subtree_counts`, in [0, 1]; 0 where a tree is empty."""
    return _cosine(subtree_counts(tree, iterations), subtree_counts(other, iterations))


def syntactic_diversity(trees: Sequence[DependencyTree], iterations: int = 2) -> float:
    """Mean of ``1 - subtree_similarity`` over all pairs; NaN of fewer than 2 trees.

    Args:
        trees: Of the responses to one prompt.
        iterations: ``h`` of the kernel.
    """
    counts = [subtree_counts(tree, iterations) for tree in trees]
    similarities = [[_cosine(ours, theirs) for theirs in counts] for ours in counts]
    return mean_distance(torch.tensor(similarities, dtype=torch.float64))


def _cosine(ours: Counter[str], theirs: Counter[str]) -> float:
    shared = sum(count * theirs[label] for label, count in ours.items())
    size = sum(count**2 for count in ours.values()) * sum(count**2 for count in theirs.values())
    return shared / math.sqrt(size) if size else 0.0


def _compressed(*parts: int | str) -> str:
    """A short name of a label and its neighbours' labels, so that names do not grow with every iteration."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
