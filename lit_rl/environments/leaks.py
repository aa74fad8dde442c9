"""Whether a teacher gave the answer away (our rule; arXiv 2602.16066, section 3.1: string matching and a judge)."""

import re
from functools import lru_cache

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|[^\w\s]|_")
BETWEEN = "\n\u241e\n"  # joins utterances, so that no answer is found across two of them


def leaks(message: str, gold: str, public_text: str) -> bool:
    """Whether ``message`` states ``gold`` and nobody had said it before.

    Texts are compared as sequences of lower-case words, numbers and single symbols: 1320 does not contain 132.
    Answers that are only implied ("one more than 131", "digit 2 up" after an 8) are not seen; that takes a judge.

    Args:
        message: Of the teacher.
        gold: The right answer.
        public_text: The problem and all earlier utterances, joined by ``BETWEEN``.

    Example:
        >>> leaks("The total should be 132.", "132", "add 47 85")
        True
        >>> leaks("1320 is too big", "132", "add 47 85")
        False
    """
    return _states(message, gold) and not _states(public_text, gold)


def _states(text: str, gold: str) -> bool:
    wanted = _tokens(gold)
    if not wanted or (wanted[0] not in text.lower() and "," not in text):  # the common case, for one search
        return False
    found, size = _tokens(text), len(wanted)
    return any(found[i : i + size] == wanted for i in range(len(found) - size + 1))


@lru_cache(maxsize=1024)
def _tokens(text: str) -> tuple[str, ...]:
    return tuple(_TOKEN.findall(_THOUSANDS.sub("", text.lower())))
