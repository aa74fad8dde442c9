"""What the beginning of a reasoning gives away, and what must not stand in it."""

import re
from typing import Literal

from lit_rl.listeners.spoken import Spoken
from lit_rl.verification.labels import extract_label, same_label
from lit_rl.verification.traces import ThinkTags

LeakSearch = Literal["parser", "mention"]


def gives_away(prefix: str, answer: str, spoken: Spoken, search: LeakSearch = "parser") -> bool:
    """Whether a beginning of a reasoning states the answer already (section 13 of our specification of REMUL).

    Args:
        prefix: The beginning.
        answer: The speaker's label.
        spoken: Its labels, aliases and options.
        search: "parser" reads the beginning as if it were an answer; "mention" also looks for the label, its aliases
            and its option's text as whole words, which an honest reasoning may well contain.
    """
    if same_label(extract_label(prefix, spoken.labels, spoken.aliases, spoken.options), answer):
        return True
    if search == "parser":
        return False
    words = [alias for alias, label in spoken.aliases.items() if label == answer]
    words += [spoken.options[answer]] if answer in spoken.options else []
    return _has_word(prefix, answer) or any(_has_word(prefix, word, re.IGNORECASE) for word in words)


def without_tags(text: str, *tags: ThinkTags) -> str:
    """``text`` without any think tag that is written out in it: a prefix must neither close nor open a block."""
    written = [tag for pair in tags for tag in (pair.open, pair.close)]
    while any(tag in text for tag in written):  # what is left may make another one
        for tag in written:
            text = text.replace(tag, "")
    return text


def _has_word(text: str, word: str, flags: int = 0) -> bool:
    return re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", text, flags) is not None
