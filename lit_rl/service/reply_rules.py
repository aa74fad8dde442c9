"""What the reply that carries out a skill must say, must not say, and how long it may be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lit_rl.environments.base import Reply
from lit_rl.reply_constraints import says


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyRule:
    """The constraint on the replies of one skill (gopo.md sections 3 and 8).

    Phrases are looked for anywhere in the text, in upper or lower case.

    Args:
        required: Phrases that must all be said, of one word or several.
        forbidden: Phrases of which none may be said.
        max_len: Most tokens of a reply, its end of turn not counted.

    Raises:
        ValueError: A blank phrase, no room, a phrase both required and forbidden, or one that cannot be said.
    """

    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    max_len: int = 64

    def __post_init__(self) -> None:
        if any(not isinstance(phrase, str) or not phrase.strip() for phrase in (*self.required, *self.forbidden)):
            raise ValueError(
                f"required is {list(self.required)} and forbidden {list(self.forbidden)}; phrases are texts, not blank."
            )
        if not isinstance(self.max_len, int) or self.max_len < 1:
            raise ValueError(f"max_len is {self.max_len!r}; a reply needs room for at least 1 token.")
        for phrase in self.required:
            inside = next((bad for bad in self.forbidden if says(phrase, bad)), None)
            if inside is not None:
                raise ValueError(f"required {phrase!r} cannot be said: it contains {inside!r}, which is forbidden.")
            if len(phrase.split()) > self.max_len:
                raise ValueError(f"required {phrase!r} does not fit into max_len {self.max_len}.")

    def faults(self, reply: Reply) -> tuple[str, ...]:
        """What is wrong with a reply, in words; nothing if it keeps to the rule.

        A reply that was cut off is too long, and so is one with more words than ``max_len``, as a word has at least one
        token.
        """
        missing = [f"missing: {phrase}" for phrase in self.required if not says(reply.text, phrase)]
        forbidden = [f"forbidden: {phrase}" for phrase in self.forbidden if says(reply.text, phrase)]
        long = reply.stop_reason == "length" or len(reply.text.split()) > self.max_len
        return (*missing, *forbidden, *(["too long"] if long else []))

    def in_words(self) -> str:
        """The rule as whoever replies is told it; "" if there is nothing to tell.

        Example:
            >>> ReplyRule(required=("7 day returns",), forbidden=("guarantee", "promise")).in_words()
            'say : 7 day returns never : guarantee , promise'
        """
        parts = [("say", self.required), ("never", self.forbidden)]
        return " ".join(f"{verb} : {' , '.join(phrases)}" for verb, phrases in parts if phrases)


def parse_reply_rule(entry: Any, where: str) -> ReplyRule:
    """A rule as it is written in YAML: ``{required: [...], forbidden: [...], max_len: 10}``, each optional.

    Raises:
        ValueError: Not such a mapping, or what `ReplyRule` refuses; ``where`` opens the sentence.
    """
    if not isinstance(entry, Mapping) or (unknown := sorted(entry.keys() - {"required", "forbidden", "max_len"})):
        wrong = f"has {unknown[0]!r}" if isinstance(entry, Mapping) else f"is {entry!r}"
        raise ValueError(f"{where} {wrong}; it is a mapping of required, forbidden and max_len.")
    fields: dict[str, Any] = dict(entry)
    for key in ("required", "forbidden"):
        phrases = fields.get(key, [])
        if not isinstance(phrases, list):
            raise ValueError(f"{where}: {key} is {phrases!r}; give a list of phrases.")
        fields[key] = tuple(phrase.strip() if isinstance(phrase, str) else phrase for phrase in phrases)
    try:
        return ReplyRule(**fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
