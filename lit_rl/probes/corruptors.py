"""Mistakes put into a unit of reasoning: by the task's own rules, by negation, or by a model."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lit_rl.environments.base import Message
from lit_rl.environments.trace_solutions import Solution, corrupt
from lit_rl.parties import Call, Party
from lit_rl.probes.items import ProbeItem
from lit_rl.probes.judges import filled
from lit_rl.probes.replies import Replier, ReplyRequest
from lit_rl.sampling import SamplingSettings

# Each word and its contrary; the first of a unit that has one is changed.
_CONTRARIES = {
    "is": "is not", "are": "are not", "was": "was not", "were": "were not", "can": "cannot", "must": "need not",
    "does": "does not", "do": "do not", "has": "has no", "have": "have no", "will": "will not", "all": "not all",
    "every": "not every", "some": "no", "true": "false", "false": "true", "yes": "no", "no": "some", "not": "indeed",
    "cannot": "can", "left": "right", "right": "left", "before": "after", "after": "before", "more": "fewer",
    "north": "south", "south": "north", "east": "west", "west": "east",
}  # fmt: skip
_NEGATED = re.compile(r"\b(is|are|was|were|does|do|has|have|will|must|can) not\b", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]+")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """A mistake wanted in ``unit``, which follows the units ``before`` in the reasoning of ``item``."""

    item: ProbeItem
    before: tuple[str, ...]
    unit: str
    key: int  # of its random stream


class Corruptor:
    """Puts mistakes into units of reasoning; a subclass says how, for one or for all at once.

    A result that equals its unit but for white space, or None, is no mistake: whoever asked counts it as failed.
    """

    def corrupt(self, item: ProbeItem, unit: str, rng: random.Random) -> str | None:
        """The unit with a mistake; None if this one cannot be given any."""
        raise NotImplementedError(f"{type(self).__name__} must say how a unit gets a mistake.")

    def corrupt_all(self, mistakes: Sequence[Mistake], replier: Replier) -> list[str | None]:
        """The unit of each with a mistake, in order; ``replier`` speaks for the model that is measured."""
        return [self.corrupt(m.item, m.unit, random.Random(m.key)) for m in mistakes]


class ExactCorruptor(Corruptor):
    """By the task's own operator: a stated fact is replaced by another valid one, which is wrong there.

    That is ``source.corrupt(problem, unit, rng)`` where the source of an item's problem has such a method, and
    `lit_rl.environments.trace_solutions.corrupt` for trace tasks.

    Args:
        otherwise: Takes items of tasks without an operator; None has those fail.
    """

    def __init__(self, otherwise: Corruptor | None = None):
        self.otherwise = otherwise

    def corrupt(self, item: ProbeItem, unit: str, rng: random.Random) -> str | None:
        operator = exact_operator(item)
        return None if operator is None else operator(item.problem, unit, rng)

    def corrupt_all(self, mistakes: Sequence[Mistake], replier: Replier) -> list[str | None]:
        found = super().corrupt_all(mistakes, replier)
        others = [i for i, mistake in enumerate(mistakes) if exact_operator(mistake.item) is None]
        if self.otherwise is not None and others:
            for i, text in zip(others, self.otherwise.corrupt_all([mistakes[i] for i in others], replier), strict=True):
                found[i] = text
        return found


class NegationCorruptor(Corruptor):
    """By rules: takes a "not" away, or changes a word into its contrary or a number into its neighbour.

    Fails on units with nothing of the kind.
    """

    def corrupt(self, item: ProbeItem, unit: str, rng: random.Random) -> str | None:
        return negated(unit, rng)


class PromptedCorruptor(Corruptor):
    """By a model that is asked to contradict the unit: the one that is measured, or any other party.

    Args:
        prompt: With ``{prompt}``, ``{reasoning}`` (what stands before) and ``{unit}``.
        party: Whom to ask instead of the model that is measured.
        max_tokens: Of the measured model's mistake; it is greedy, and its think block is opened and closed at once.
    """

    PROMPT = (
        "Here is a question and the beginning of somebody's reasoning about it.\n\nQuestion: {prompt}\n\nReasoning so "
        "far:\n{reasoning}\n\nNext step: {unit}\n\nWrite this next step again in the same style, but with a mistake in "
        "it that changes what follows from it. Write the step alone."
    )

    def __init__(self, prompt: str = PROMPT, party: Party | None = None, max_tokens: int = 30):
        if "{unit}" not in prompt:
            raise ValueError("PromptedCorruptor: prompt has no '{unit}'; the model has to see what it contradicts.")
        self.prompt, self.party = prompt, party
        self.settings = SamplingSettings(temperature=0.0, max_tokens=max_tokens)

    def corrupt_all(self, mistakes: Sequence[Mistake], replier: Replier) -> list[str | None]:
        messages = [Message("user", self._asked(mistake)) for mistake in mistakes]
        if self.party is not None:
            calls = [
                Call(messages=(message,), context=mistake, key=mistake.key, episode=place, exchange=0)
                for place, (message, mistake) in enumerate(zip(messages, mistakes, strict=True))
            ]
            return [first_line(reply.text) for reply in self.party.reply(calls)] if calls else []
        requests = [
            ReplyRequest(prompt_ids=replier.prompt_ids([message]), key=m.key, opening=m.item.unreasoned())
            for message, m in zip(messages, mistakes, strict=True)
        ]
        return [None if text is None else first_line(text) for text in replier.reply(requests, self.settings)]

    def _asked(self, mistake: Mistake) -> str:
        reasoning = "\n".join(mistake.before)
        return filled(self.prompt, prompt=mistake.item.prompt, reasoning=reasoning, unit=mistake.unit)


def exact_operator(item: ProbeItem) -> Callable[..., str | None] | None:
    """The exact operator ``(problem, unit, rng) -> unit`` of an item's task, None if it has none."""
    if item.problem is None:
        return None
    if isinstance(item.problem.meta.get("solution"), Solution):
        return corrupt
    operator: Callable[..., str | None] | None = getattr(item.source, "corrupt", None)
    return operator


def is_mistake(unit: str, corrupted: str | None) -> bool:
    """Whether a corrupted unit says something, and something else than the unit, white space aside."""
    return corrupted is not None and corrupted.split() not in ([], unit.split())


def negated(unit: str, rng: random.Random) -> str | None:
    """A unit that says the contrary, by rules of English; None if none applies.

    Example:
        >>> negated("So Ann is not left of Bob", random.Random(0)), negated("Hmm", random.Random(0))
        ('So Ann is left of Bob', None)
    """
    if _NEGATED.search(unit):
        return _NEGATED.sub(r"\1", unit, count=1)
    for word in _WORD.finditer(unit):
        if contrary := _CONTRARIES.get(word[0].lower()):
            return unit[: word.start()] + contrary + unit[word.end() :]
    number = _NUMBER.search(unit)
    if number is None:
        return None
    other = f"{float(number[0]) + rng.choice((-1, 1)):g}"
    return unit[: number.start()] + other + unit[number.end() :]


def first_line(text: str) -> str:
    """The first line that says something; empty if none does."""
    return next((line.strip() for line in text.split("\n") if line.strip()), "")
