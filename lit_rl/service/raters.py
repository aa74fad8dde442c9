"""Raters of replies that ask somebody: a party for points, or a judge for yes or no."""

import re
from collections.abc import Sequence

from lit_rl.environments.base import Message
from lit_rl.metrics.reply_quality import DIMENSIONS, HIGHEST, LOWEST, RatedReply, Scores
from lit_rl.parties import Call, Party
from lit_rl.probes.judges import filled
from lit_rl.protocols import Judge
from lit_rl.stream_keys import stream_key

QUESTIONS = {
    "accuracy": "Is everything the reply states right, and does it name what it should?",
    "strategy": "Does the reply carry out the skill it was to carry out, and no other?",
    "fluency": "Is the reply well-formed, natural language?",
    "empathy": "Does the reply take up how the customer feels?",
    "compliance": "Does the reply keep to what it must say and must not say?",
}


class PartyRater:
    """A `lit_rl.metrics.reply_quality.ReplyRater` that asks a party, such as a remote model, for points.

    The reply is to have a line ``dimension: points`` for each dimension, points 1 .. 5; the last such line counts.  A
    reply that the party did not rate on all dimensions has no scores.  The prompt is ours.

    Args:
        party: Whom to ask.
        prompt: With ``{reply}``; further ``{history}``, ``{skill}``, ``{facts}``, ``{required}``, ``{forbidden}``.

    Raises:
        ValueError: The prompt has no ``{reply}``.
    """

    PROMPT = (
        "Rate a reply of a customer service.\n\nDialogue so far:\n{history}\n\nThe reply:\n{reply}\n\n"
        "It was to carry out the skill: {skill}. It should name: {facts}. It must say: {required}. It must not say: "
        "{forbidden}.\n\n"
        + "\n".join(f"{name}: {question}" for name, question in QUESTIONS.items())
        + f"\n\nAnswer each with points from {LOWEST} (not at all) to {HIGHEST} (fully), one line each, such as "
        "'accuracy: 3'. A longer or more flattering reply is not a better one."
    )

    def __init__(self, party: Party, prompt: str = PROMPT):
        if "{reply}" not in prompt:
            raise ValueError("PartyRater: prompt has no '{reply}'; there would be nothing to rate.")
        self.party, self.prompt = party, prompt

    def rate(self, replies: Sequence[RatedReply]) -> list[Scores | None]:
        """Points by dimension of each, in order; None where the party did not give all."""
        calls = []
        for place, reply in enumerate(replies):
            facts = _in_words(reply)
            text = filled(self.prompt, **facts)
            key = stream_key("reply quality", *facts.values())
            calls.append(Call(messages=(Message("user", text),), context=facts, key=key, episode=place, exchange=0))
        return [read_points(answer.text) for answer in self.party.reply(calls)] if calls else []


class JudgeRater:
    """A `lit_rl.metrics.reply_quality.ReplyRater` that asks a `Judge` one question per dimension: yes is 5, no is 1.

    Args:
        judge: Whom to ask; a question has the pieces of text ``question``, ``reply``, ``history``, ``skill``,
            ``facts``, ``required`` and ``forbidden``.
    """

    def __init__(self, judge: Judge):
        self.judge = judge

    def rate(self, replies: Sequence[RatedReply]) -> list[Scores | None]:
        """Points by dimension of each, in order."""
        questions = [_in_words(reply) | {"question": QUESTIONS[name]} for reply in replies for name in DIMENSIONS]
        keys = [stream_key("reply quality", *question.values()) for question in questions]
        verdicts = self.judge.judge(questions, keys) if questions else []
        points = [float(HIGHEST if verdict.accepted else LOWEST) for verdict in verdicts]
        size = len(DIMENSIONS)
        return [dict(zip(DIMENSIONS, points[i * size : (i + 1) * size], strict=True)) for i in range(len(replies))]


def read_points(text: str) -> dict[str, float] | None:
    """Points 1 .. 5 of each dimension as a rater wrote them; None unless all are there.

    Example:
        >>> lines = "accuracy: 5", "strategy: 4", "Fluency: 4", "empathy: 3", "compliance: 5"
        >>> read_points(" ".join(lines))["fluency"], read_points("accuracy: 9")
        (4.0, None)
    """
    found = {}
    for name in DIMENSIONS:
        points = re.findall(rf"\b{name}\W{{0,4}}(\d+)(?![\d.]*\d)", text, re.IGNORECASE)
        if not points or not LOWEST <= int(points[-1]) <= HIGHEST:
            return None
        found[name] = float(points[-1])
    return found


def _in_words(reply: RatedReply) -> dict[str, str]:
    return {
        "reply": reply.text,
        "history": "\n".join(reply.history),
        "skill": reply.skill or "none",
        "facts": "; ".join(reply.facts) or "nothing",
        "required": "; ".join(reply.required) or "nothing",
        "forbidden": "; ".join(reply.forbidden) or "nothing",
    }
