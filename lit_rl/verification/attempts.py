"""What an utterance turned out to be: an answer, a question, both, or neither."""

from dataclasses import dataclass
from typing import Literal

AttemptKind = Literal["answer", "question", "both", "hedge", "malformed", "empty"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One utterance of somebody who is to answer, as read by a verifier.

    Attributes:
        kind: "both" is an answer and a question, "hedge" several different answers, "malformed" neither answer nor
            question.
        answer: The one answer given, None if there is not exactly one.
        correct: Whether it is right; only "answer" and "both" can be.
        detail: What checking it showed, such as which test a program fails; private, for the teacher alone.
    """

    kind: AttemptKind
    answer: str | None = None
    correct: bool = False
    detail: str = ""
