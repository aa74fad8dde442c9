"""How much texts repeat each other's words: distinct-n, its length-corrected form, self-BLEU (qempo.md section 7).

The definitions are ours, close to Guo et al. (arXiv 2412.10271): those of the QEMPO paper could not be read.  Words are
what stands between spaces.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from sacrebleu.metrics.bleu import BLEU

ZERO_MATCHES = 0.1  # counted in place of none, so that one order without a match does not make the whole score 0


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different n-grams of all texts over their number; 0 where there is none.

    It falls as texts get longer: compare texts of like length, or use `expectation_adjusted_distinct`.

    Args:
        texts: Responses to one prompt.
        n: Words of an n-gram.

    Example:
        >>> distinct_n(["the cat sat", "the cat"], 1)
        0.6
    """
    found = ngrams(texts, n)
    return len(set(found)) / len(found) if found else 0.0


def expectation_adjusted_distinct(texts: Sequence[str], n: int, *, support: int) -> float:
    """Different n-grams over how many are expected of uniform draws, ``N / (V (1 - ((V - 1) / V)^C))``; 0 without any.

    ``N`` different ones of ``C`` in all, and ``V = support``.

    Args:
        texts: Responses to one prompt.
        n: Words of an n-gram.
        support: How many different n-grams there can be: the size of the vocabulary for ``n = 1``, say its n-th power
            beyond.

    Raises:
        ValueError: ``support`` is below 1, or the texts have more different words than that.
    """
    if support < 1:
        raise ValueError(f"expectation_adjusted_distinct: support is {support}; it must be at least 1.")
    found = ngrams(texts, n)
    different, total = len(set(found)), len(found)
    if n == 1 and different > support:
        raise ValueError(
            f"expectation_adjusted_distinct: support is {support}, but the texts have {different} different words; "
            "give the size of the whole vocabulary."
        )
    if total == 0:
        return 0.0
    # expm1 and log1p: V may be so large that (V - 1) / V rounds to 1
    seen = 1.0 if support == 1 else -math.expm1(total * math.log1p(-1 / support))
    return different / (support * seen)


def self_bleu(texts: Sequence[str], max_order: int = 4) -> float:
    """Mean over texts of `text_bleu` against all others, in [0, 1]; lower is more diverse; NaN of fewer than 2 texts.

    Takes time in the square of the number of texts.

    Args:
        texts: Responses to one prompt.
        max_order: Longest n-grams compared.
    """
    if len(texts) < 2:
        return math.nan
    scores = [text_bleu(text, [*texts[:i], *texts[i + 1 :]], max_order) for i, text in enumerate(texts)]
    return math.fsum(scores) / len(scores)


def text_bleu(text: str, references: Sequence[str], max_order: int = 4) -> float:
    """BLEU of one text in [0, 1]; counts and brevity penalty are sacrebleu's, without its tokenization.

    An order without a match counts 0.1 matches, one longer than the text is left out.  So far this is sacrebleu's
    sentence score with ``smooth_method="floor"`` and ``effective_order``; where nothing matches at all, it stays
    smoothed, and sacrebleu gives 0.  A text without words scores its brevity penalty: 1 if a reference has none
    either, else 0 (our reading).

    Args:
        text: To be scored.
        references: At least one.
        max_order: Longest n-grams compared.
    """
    found = _scorer(max_order).sentence_score(text, list(references))
    logs = [math.log((n or ZERO_MATCHES) / total) for n, total in zip(found.counts, found.totals, strict=True) if total]
    return float(found.bp) * (math.exp(math.fsum(logs) / len(logs)) if logs else 1.0)


def ngrams(texts: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams of each text, pooled; raises ValueError where ``n`` is below 1."""
    if n < 1:
        raise ValueError(f"n is {n}; an n-gram has at least 1 word.")
    words = [text.split() for text in texts]
    return [tuple(own[i : i + n]) for own in words for i in range(len(own) - n + 1)]


@lru_cache
def _scorer(max_order: int) -> BLEU:
    if max_order < 1:
        raise ValueError(f"self_bleu: max_order is {max_order}; it must be at least 1.")
    return BLEU(max_ngram_order=max_order, tokenize="none", force=True, effective_order=True)
