"""How sure a model says it is: before it solves a problem that it will, and afterwards that it did."""

import re
from collections.abc import Sequence

from lit_rl.environments.base import Message
from lit_rl.probes.items import ProbeItem
from lit_rl.probes.replies import Replier, ReplyRequest
from lit_rl.sampling import SamplingSettings

CONFIDENCE_QUESTION = "How sure are you, in per cent, that your answer is right? Reply with a number from 0 to 100."
SOLVABLE_QUESTION = (
    "Do not solve this yet. How likely is it, in per cent, that you will solve it? Reply with a number from 0 to 100."
)
_NUMBER = re.compile(r"(?<![\d.])\d+(?:\.\d+)?")


def said_confidence(
    items: Sequence[ProbeItem],
    replier: Replier,
    question: str,
    *,
    before: bool,
    instruction: str | None,
    settings: SamplingSettings,
) -> list[float | None]:
    """The probability a model names of each, in [0, 1]; None where it names none.

    It is asked without reasoning: its think block is opened and closed at once.

    Args:
        items: Untouched replies.
        replier: Samples them all at once.
        question: What it is asked.
        before: Ask below the prompt, or else after the reply.
        instruction: System message before each prompt.
        settings: How its reply is drawn.
    """
    system = (Message("system", instruction),) if instruction else ()
    requests = []
    for item in items:
        if before:
            asked = [Message("user", f"{item.prompt}\n{question}")]
        else:
            asked = [Message("user", item.prompt), Message("assistant", item.text), Message("user", question)]
        ids = replier.prompt_ids([*system, *asked])
        requests.append(ReplyRequest(prompt_ids=ids, key=item.key("sure", question), opening=item.unreasoned()))
    return [None if text is None else read_per_cent(text) for text in replier.reply(requests, settings)]


def read_per_cent(text: str) -> float | None:
    """The first number of a reply as a probability; None if there is none in 0 .. 100.

    Example:
        >>> read_per_cent("About 85%."), read_per_cent("120"), read_per_cent("very")
        (0.85, None, None)
    """
    found = _NUMBER.search(text)
    return float(found[0]) / 100 if found and float(found[0]) <= 100 else None
