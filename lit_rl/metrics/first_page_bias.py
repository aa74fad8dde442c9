"""First-page bias: how many of a question's words stand on page one of the paper (intelli.md section 6).

The measure is that of arXiv 2602.15849, lower being taken as better; what the paper leaves open (tokens, stop words,
repeats) is our reading.  A question about something that is nowhere in the paper has no bias at all, so look at
``later_only`` and at grounding too.  Page one must be that of the whole paper: of one whose beginning was cut, the
figure falls by itself.
"""

import math
import re
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_rl.metrics.stop_words import STOP_WORDS

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def page_words(text: str) -> list[str]:
    """Lower-case words and numbers in order, without signs and hyphens; a short form such as ``don't`` is one word."""
    return _WORD.findall(text.lower())


def content_words(question: str, *, stop_words: Collection[str] = STOP_WORDS, unique: bool = False) -> list[str]:
    """Words of a question that are no stop words, in order.

    Args:
        question: Any text.
        stop_words: In lower case.
        unique: Each word once.
    """
    words = [word for word in page_words(question) if word not in stop_words]
    return list(dict.fromkeys(words)) if unique else words


def first_page_bias(
    question: str, first_page: str, *, stop_words: Collection[str] = STOP_WORDS, unique: bool = False
) -> float:
    """Share of a question's content words that stand on page one, in [0, 1]; NaN without content words.

    Args:
        question: Any text.
        first_page: Text of page one of the whole paper.
        stop_words: In lower case.
        unique: Count each word once.

    Example:
        >>> first_page_bias("Why does SparseNet improve recall?", "SparseNet, a sparse network.")
        0.3333333333333333
    """
    return page_profile(question, [first_page], stop_words=stop_words, unique=unique)[0]


def page_profile(
    question: str, pages: Sequence[str], *, stop_words: Collection[str] = STOP_WORDS, unique: bool = False
) -> list[float]:
    """Share of a question's content words that stand on each page; NaN without content words.

    Args:
        question: Any text.
        pages: Texts of all pages.
        stop_words: In lower case.
        unique: Count each word once.
    """
    words = content_words(question, stop_words=stop_words, unique=unique)
    return [_share(words, set(page_words(page))) for page in pages]


def later_only(
    question: str, pages: Sequence[str], *, stop_words: Collection[str] = STOP_WORDS, unique: bool = False
) -> float:
    """Share of a question's content words that stand on later pages and not on page one; NaN without content words.

    Args:
        question: Any text.
        pages: Texts of all pages, page one first.
        stop_words: In lower case.
        unique: Count each word once.

    Raises:
        ValueError: There is no page.
    """
    if not pages:
        raise ValueError("later_only: there are no pages; give the texts of all pages, page one first.")
    words = content_words(question, stop_words=stop_words, unique=unique)
    later = {word for page in pages[1:] for word in page_words(page)}
    return _share(words, later - set(page_words(pages[0])))


def _share(words: Sequence[str], vocabulary: Collection[str]) -> float:
    return sum(word in vocabulary for word in words) / len(words) if words else math.nan


class FirstPageBias(Metric):
    """Mean over questions of `first_page_bias` and `later_only`, over batches and ranks.

    Questions without content words are left out of the means and counted.

    Args:
        stop_words: In lower case; None takes the list of `lit_rl.metrics.stop_words`.
        unique: Count each word of a question once.
        kwargs: Of torchmetrics' ``Metric``.

    Example:
        >>> metric = FirstPageBias()
        >>> metric.update(["Why gating?", "What is it?"], [["We use gating.", "More."], ["Gating.", "More."]])
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'first_page_bias': 1.0, 'later_only': 0.0, 'questions': 1, 'skipped': 1}
    """

    full_state_update = False

    bias: Tensor
    later: Tensor
    questions: Tensor
    skipped: Tensor

    def __init__(self, stop_words: Collection[str] | None = None, unique: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(stop_words, str):
            raise ValueError(f"FirstPageBias.stop_words is the text {stop_words[:40]!r}; give a list of words.")
        self.stop_words = STOP_WORDS if stop_words is None else frozenset(stop_words)
        self.unique = unique
        for name, dtype in (("bias", torch.float64), ("later", torch.float64)):
            self.add_state(name, torch.zeros((), dtype=dtype), dist_reduce_fx="sum")
        for name in ("questions", "skipped"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, questions: Sequence[str], pages: Sequence[Sequence[str]]) -> None:
        """Add questions.

        Args:
            questions: Texts, ``E`` of them.
            pages: For each, the texts of all pages of its paper, page one first.

        Raises:
            ValueError: Another number of papers than of questions, or a paper without pages.
        """
        if isinstance(questions, str) or len(questions) != len(pages):
            raise ValueError(
                f"FirstPageBias: there are {len(questions)} questions and pages of {len(pages)} papers; give a list of "
                "questions, and the pages of each one's paper."
            )
        for question, own in zip(questions, pages, strict=True):
            if isinstance(own, str) or not own:
                raise ValueError("FirstPageBias: give the pages of a paper as a list of at least one text.")
            bias = first_page_bias(question, own[0], stop_words=self.stop_words, unique=self.unique)
            if math.isnan(bias):
                self.skipped += 1
                continue
            self.questions += 1
            self.bias += bias
            self.later += later_only(question, own, stop_words=self.stop_words, unique=self.unique)

    def compute(self) -> dict[str, Tensor]:
        """``first_page_bias`` and ``later_only`` in [0, 1], NaN without questions; ``questions``, ``skipped``."""
        return {
            "first_page_bias": self.bias / self.questions,
            "later_only": self.later / self.questions,
            "questions": self.questions.clone(),
            "skipped": self.skipped.clone(),
        }
