"""Questions with a few options, each with a letter: their prompts, and options found in a text."""

import re
from collections.abc import Mapping, Sequence

from lit_rl.verification.labels import letters

MOST_OPTIONS = 26
_LETTERED = re.compile(r"(?<!\S)\(([A-Z])\)\s")
_HEADER = re.compile(r"\s*\boptions:?\s*\Z", re.IGNORECASE)
_LISTED = re.compile(r"\s*^\s*options:[^\S\n]*(?:\n[^\S\n]*-[^\n]*)*\s*\Z", re.IGNORECASE | re.MULTILINE)


def choice_prompt(parts: Sequence[str], options: Mapping[str, str]) -> str:
    """What a model reads: parts that are not empty, a blank line between them, then a line for each option."""
    lines = [f"({label}) {text}" for label, text in options.items()]
    return "\n\n".join([*(part for part in parts if part), "\n".join(lines)])


def lettered(texts: Sequence[str]) -> dict[str, str]:
    """Texts by letter, A first.

    Raises:
        ValueError: Fewer than two or more than 26, one that is empty, or two that are equal.
    """
    if not 2 <= len(texts) <= MOST_OPTIONS:
        raise ValueError(f"there are {len(texts)} options; wanted 2 .. {MOST_OPTIONS}.")
    if len({text.strip().casefold() for text in texts} - {""}) < len(texts):
        raise ValueError(f"the options {list(texts)} are not all different, or one is empty.")
    return dict(zip(letters(len(texts)), (text.strip() for text in texts), strict=True))


def inline_options(text: str) -> tuple[str, dict[str, str]]:
    """Question and options of a text that ends with ``(A) one (B) two``, on one line or on several.

    Raises:
        ValueError: There is no such ending, or its options are no `lettered` ones.
    """
    marks = list(_LETTERED.finditer(text))
    # The longest run, and of equals the last: options may name each other, and the question may name options.
    run = max((_run(marks[start:]) for start in reversed(range(len(marks)))), key=len, default=[])
    if len(run) < 2:
        raise ValueError(f"no options (A), (B), ... stand at the end of {text[-60:]!r}.")
    ends = [mark.start() for mark in run[1:]] + [len(text)]
    options = lettered([text[mark.end() : end] for mark, end in zip(run, ends, strict=True)])
    return _HEADER.sub("", text[: run[0].start()]).strip(), options


def _run(marks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """The marks A, B, ... in this order, whatever stands between them."""
    run: list[re.Match[str]] = []
    for mark in marks:
        if ord(mark[1]) == ord("A") + len(run):
            run.append(mark)
    return run


def without_list(text: str) -> str:
    """A question without ``Options:`` and a list of dashes at its end, for which lettered options will stand."""
    return _LISTED.sub("", text).strip()
