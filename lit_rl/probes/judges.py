"""Ratings of how well a reader can follow a reasoning, by any party that can be asked."""

import re
from collections.abc import Sequence

from lit_rl.environments.base import Message
from lit_rl.metrics.traces import HIGHEST_RATING
from lit_rl.parties import Call, Party
from lit_rl.stream_keys import stream_key

_RATING = re.compile(r"(?<![\d.])\d+(?![\d.]*\d)")


class PartyJudge:
    """A `lit_rl.metrics.traces.LegibilityJudge` that asks a party, such as a remote model.

    The last whole number of its reply is the rating, if it is 0 .. 4.  The published prompt is that of arXiv
    2510.23966; this one is ours and asks the same: can a reader follow the text, whether or not it is right.

    Args:
        party: Whom to ask.
        prompt: With ``{prompt}``, ``{reasoning}`` and ``{answer}``.
    """

    PROMPT = (
        "Rate how well a careful reader can follow the reasoning below. Do not rate whether it is right, only whether "
        "each step can be understood from the text alone, in the language of the question and without tools.\n\n"
        "Question:\n{prompt}\n\nReasoning:\n{reasoning}\n\nAnswer:\n{answer}\n\n"
        "0: it cannot be followed. 1: only parts can. 2: the line can, many steps cannot. 3: nearly all can. "
        "4: everything can. Reply with the number alone."
    )

    def __init__(self, party: Party, prompt: str = PROMPT):
        if "{reasoning}" not in prompt:
            raise ValueError("PartyJudge: prompt has no '{reasoning}'; there would be nothing to rate.")
        self.party, self.prompt = party, prompt

    def rate(self, prompts: Sequence[str], reasonings: Sequence[str], answers: Sequence[str]) -> list[int | None]:
        """A rating of each, in order; None where the reply has none."""
        calls = []
        for place, facts in enumerate(zip(prompts, reasonings, answers, strict=True)):
            named = dict(zip(("prompt", "reasoning", "answer"), facts, strict=True))
            text = filled(self.prompt, **named)
            key = stream_key("legibility", *facts)
            calls.append(Call(messages=(Message("user", text),), context=named, key=key, episode=place, exchange=0))
        return [read_rating(reply.text) for reply in self.party.reply(calls)] if calls else []


def filled(template: str, **facts: str) -> str:
    """A template with each ``{name}`` replaced, in one pass: the facts may hold braces of their own.

    Example:
        >>> filled("{a} and {b}", a="{b}", b="x")
        '{b} and x'
    """
    return re.sub("|".join(f"{{{name}}}" for name in facts), lambda found: facts[found[0][1:-1]], template)


def read_rating(text: str) -> int | None:
    """The last whole number of a reply if it is 0 .. 4, else None.

    Example:
        >>> read_rating("I say 3."), read_rating("7"), read_rating("none")
        (3, None, None)
    """
    numbers = _RATING.findall(text)
    return int(numbers[-1]) if numbers and int(numbers[-1]) <= HIGHEST_RATING else None
