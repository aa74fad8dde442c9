"""What a reply in a conversation about a task told in parts is: one of the seven classes of arXiv 2505.06120."""

import re
from typing import Literal

from lit_rl.verification.answers import AnswerFormat
from lit_rl.verification.attempts import Attempt, AttemptKind
from lit_rl.verification.extraction import visible

ReplyClass = Literal["answer", "clarification", "interrogation", "discussion", "hedge", "refusal", "missing"]
SHORT = 40  # words of a reply that can be a clarification

_MARKED_QUESTION = re.compile(r"\bask\b")
_QUESTION = re.compile(r"\?+(?=[\s\"')\]*]|\Z)")
_REFUSAL = re.compile(
    r"\b(?:(?:ca|wo)n['\u2019]?t|cannot|can not|will not|unable to|not able to|refuse to|decline to)\s+(?:\w+\s+){0,3}?"
    r"(?:answer|help|assist|solve|compute|calculate|determine|provide|give|do|complete|say)\b"
    r"|\b(?:insufficient|not enough) information\b",
    re.IGNORECASE,
)


def classify_reply(utterance: str, attempt: Attempt, answer_format: AnswerFormat) -> ReplyClass:
    """The class of a reply, by rules that are ours (the published simulator asks a language model).

    In this order: no visible word is "missing"; exactly one final answer "answer", whatever else is said; several
    different ones "hedge"; more than one question "interrogation"; exactly one, in at most ``SHORT`` words,
    "clarification", in more of them "discussion"; words that decline "refusal"; anything else "discussion".

    Args:
        utterance: Of the student.
        attempt: What the verifier read in it.
        answer_format: In "marked" tasks each word ``ask`` is a question, in "boxed" ones each question mark that ends a
            sentence.
    """
    said = visible(utterance).strip()
    if not said:
        return "missing"
    if attempt.kind in ("answer", "both"):
        return "answer"
    if attempt.kind == "hedge":
        return "hedge"
    questions = len((_MARKED_QUESTION if answer_format == "marked" else _QUESTION).findall(said))
    if questions > 1:
        return "interrogation"
    if questions == 1:
        return "clarification" if len(said.split()) <= SHORT else "discussion"
    return "refusal" if _REFUSAL.search(said) else "discussion"


_KINDS: dict[ReplyClass, AttemptKind] = {
    "answer": "answer",
    "clarification": "question",
    "interrogation": "question",
    "discussion": "malformed",
    "hedge": "hedge",
    "refusal": "malformed",
    "missing": "empty",
}


def kind_of(reply_class: ReplyClass, attempt: Attempt) -> AttemptKind:
    """The kind of attempt a reply counts as, given its class; an answer that also asks stays "both"."""
    return "both" if reply_class == "answer" and attempt.kind == "both" else _KINDS[reply_class]
