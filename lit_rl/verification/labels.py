"""Answers that are one label of a few, such as the letter of an option: read strictly, or not at all."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from lit_rl.verification.attempts import Attempt
from lit_rl.verification.traces import ThinkTags, split_trace

_LABEL = re.compile(r"[A-Z]|0|[1-9]\d{0,3}")
_CUE = r"(?i:\b(?:final\s+answer|answer|option|choice)\b\s*(?:is\b)?)\s*[:=]?\s*[(\[]?\s*"
_EMPHASIS = re.compile(r"\*+")  # of Markdown: "**Answer:** B" says "Answer: B"


def extract_label(
    text: str,
    labels: Sequence[str],
    aliases: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> str | None:
    """The label an answer section gives, None if it gives none (REMUL, arXiv:2602.16154; the rule is ours).

    The first kind found counts, and of a kind the last occurrence: a label behind "answer", "option" or "choice"; one
    in round or square brackets; the whole text; a word of ``aliases``; the text of an option.

    Args:
        text: What stands behind the reasoning, never the reasoning itself.
        labels: Capital letters, or (our extension, for small worlds) numbers below 10000 without leading zeros.
        aliases: Words or phrases in any case and the label each means, such as ``{"true": "A"}``.
        options: Text of each label.

    Raises:
        ValueError: A label of another form, or an alias or an option of something that is no label.

    Example:
        >>> extract_label("Option A is wrong. Answer: D", "ABCD"), extract_label("A cat sat", "ABCD")
        ('D', None)
    """
    patterns = _patterns(tuple(labels), tuple((aliases or {}).items()))
    text = _EMPHASIS.sub("", text)
    for pattern in (patterns.cued, patterns.bracketed):
        if found := pattern.findall(text):
            return str(found[-1])
    if whole := patterns.whole.fullmatch(text):
        return whole[1]
    if aliases and (found := patterns.alias.findall(text)):
        meant = {_plain(alias): label for alias, label in aliases.items()}
        return meant[_plain(found[-1])]
    return option_label(text, options or {})


def option_label(text: str, options: Mapping[str, str]) -> str | None:
    """The label whose option has this text, in any case and with or without a full stop; None if not exactly one."""
    found = [label for label, option in options.items() if _plain(option) == _plain(text) != ""]
    return found[0] if len(found) == 1 else None


def letters(count: int) -> list[str]:
    """The first capital letters: A, B, ..."""
    return [chr(ord("A") + place) for place in range(count)]


def same_label(one: str | None, other: str | None) -> bool:
    """Whether two answers agree; None agrees with nothing, not even with None."""
    return one is not None and one == other


def canonical_label(
    gold: str,
    labels: Sequence[str],
    aliases: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> str:
    """The label of a gold value: ``(A)``, ``A`` and the text of option A are one; an option's own text goes first.

    Raises:
        ValueError: It is none of the labels.
    """
    label = option_label(gold, options or {}) or extract_label(gold, labels, aliases, options)
    if label is None:
        known = [*labels, *(aliases or {}), *(options or {}).values()]
        raise ValueError(f"the gold answer {gold!r} is none of the labels, aliases or options {known}.")
    return label


def verify_label(
    utterance: str,
    gold: str,
    labels: Sequence[str],
    aliases: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    tags: ThinkTags | None = None,
) -> Attempt:
    """What a reply is as an attempt: "answer", "empty", or "malformed" if no label can be read.

    Args:
        utterance: The whole reply.
        gold: The right label.
        labels: As for `extract_label`, as are ``aliases`` and ``options``.
        aliases: Other words for labels.
        options: Text of each label.
        tags: Of the think block, which must be closed for an answer to count; None reads the whole reply.
    """
    trace = None if tags is None else split_trace(utterance, tags)
    section = utterance if trace is None else trace.answer_section  # empty if the block is not closed
    label = extract_label(section, labels, aliases, options)
    if label is None:
        return Attempt("malformed" if utterance.strip() else "empty")
    return Attempt("answer", label, same_label(label, gold))


class _Patterns:
    """What to look for, compiled once for each set of labels."""

    def __init__(self, labels: tuple[str, ...], aliases: tuple[str, ...]):
        one_of = "|".join(map(_ending, sorted(labels, key=len, reverse=True)))
        self.cued = re.compile(rf"{_CUE}({one_of})")
        self.bracketed = re.compile(rf"[(\[]\s*({one_of})\s*[)\]]")
        # A sign or a point before a number makes another number of it.
        before = r"\W*" if all(label.isalpha() for label in labels) else r"[\s\"'(\[]*"
        self.whole = re.compile(rf"{before}({'|'.join(labels)})\W*")
        words = [r"\s+".join(map(re.escape, alias.split())) for alias in sorted(aliases, key=len, reverse=True)]
        self.alias = re.compile(rf"(?<!\w)({'|'.join(words)})(?!\w)", re.IGNORECASE)


def _ending(label: str) -> str:
    """A label that does not go on: not "Another", "A's" or, of numbers, "3.5"."""
    return label + (r"(?!\w|['’])" if label.isalpha() else r"(?!\w|['’]|\s*[.,:/*^+-]+\s*\d)")


@lru_cache(maxsize=1024)
def _patterns(labels: tuple[str, ...], aliases: tuple[tuple[str, str], ...]) -> _Patterns:
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"labels are {list(labels)}; give at least one, each once.")
    if odd := [label for label in labels if not _LABEL.fullmatch(label)]:
        raise ValueError(f"labels hold {odd[0]!r}; they must be capital letters A .. Z or numbers 0 .. 9999.")
    for alias, label in aliases:
        if label not in labels or not alias.strip():
            raise ValueError(f"aliases have {alias!r} mean {label!r}; give words, each for one of {list(labels)}.")
    return _Patterns(labels, tuple(alias for alias, _ in aliases))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().removesuffix(".").strip()
