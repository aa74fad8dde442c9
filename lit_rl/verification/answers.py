"""What a reply answers, and whether it is right."""

import re

from lit_rl.environments.problems import Attempt

_MARKED = re.compile(r"\bans\b((?:\s+-?\d+)+)")


def marked_answer(utterance: str, gold: str) -> Attempt:
    """An answer of the small worlds: ``ans`` and whole numbers, ``ask`` for a question."""
    words = utterance.split()
    if not words:
        return Attempt("empty")
    answers = [" ".join(match.split()) for match in _MARKED.findall(utterance)]
    asks = "ask" in words
    if not answers:
        return Attempt("question" if asks else "malformed")
    if len(set(answers)) > 1:
        return Attempt("hedge")
    return Attempt("both" if asks else "answer", answers[0], answers[0] == gold)
