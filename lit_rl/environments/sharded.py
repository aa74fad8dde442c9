"""A student and a user who tells a task in parts and never says whether an answer is right (arXiv 2505.06120)."""

from collections.abc import Callable
from typing import Any

from lit_rl.environments.base import Ask, Message, Outcome, Reply
from lit_rl.environments.leaks import BETWEEN
from lit_rl.environments.reply_classes import ReplyClass, classify_reply, kind_of
from lit_rl.environments.sharded_tasks import ShardedProblem, ShardedSource
from lit_rl.environments.sharded_user import (
    USER_INSTRUCTION,
    Told,
    UserContext,
    check_user_instruction,
    read_told,
    user_briefing,
    verbatim,
)
from lit_rl.verification.attempts import Attempt
from lit_rl.verification.extraction import visible

STUDENT, USER = "student", "user"
MAX_DRAFTS = 4
ANSWER_INSTRUCTION = "Give a final answer as \\boxed{...}, and only one in a message."

Classifier = Callable[[ShardedProblem, str, Attempt], ReplyClass]


class ShardedDialogue:
    """One conversation: the user tells the goal, then at most one part in each message; the student answers or asks.

    As published: the first part opens the conversation word for word; only replies of the class "answer" are scored; a
    right one ends the conversation, otherwise it ends after the reply to the message that told the last part.  Our
    reading: at most ``2 n + 2`` messages of the user for ``n`` parts, for a message may tell none; the classes by
    rules (`classify_reply`).

    Both "student" and "user" are asked; `scripted_user` is the user that needs no model.  What it says reaches the
    student only if it keeps the rules (`read_told`); after ``MAX_DRAFTS`` drafts that do not, the student hears what
    the task's own script says.

    Each student turn's ``info`` holds ``kind``, ``answer``, ``correct``, ``reply_class`` and ``incomplete`` (a part was
    still to be told).  Each user turn's holds ``part`` (the number of the part the student was told then, or None),
    ``attempts`` (drafts in this exchange) and ``heard`` (whether in these words).

    Args:
        problem: The task and its parts.
        source: Verifies answers, and knows what a scripted user says.
        student_instruction: Opens the student's first message.  None takes `ANSWER_INSTRUCTION` where the source wants
            boxed answers and nothing elsewhere; "" is nothing.  It should not speak of questions: whether the student
            asks is what is measured.
        user_instruction: For a model that plays the user, with ``{told}`` and ``{left}`` to be filled in.
        classifier: ``(problem, utterance, attempt) -> class`` instead of the rules, such as a language model's verdict.

    Raises:
        ValueError: The user's instruction lacks something.
    """

    def __init__(
        self,
        problem: ShardedProblem,
        source: ShardedSource,
        *,
        student_instruction: str | None = None,
        user_instruction: str = USER_INSTRUCTION,
        classifier: Classifier | None = None,
    ):
        check_user_instruction(user_instruction)
        self.problem, self.source = problem, source
        self.user_instruction, self.classifier = user_instruction, classifier
        if student_instruction is None:
            student_instruction = ANSWER_INSTRUCTION if source.answer_format == "boxed" else ""
        goal = problem.shards[0]
        self.opening = Message("user", f"{student_instruction}\n\n{goal}" if student_instruction else goal)

        self.turn = 0  # student turns taken
        self.left = tuple(range(1, len(problem.shards)))
        self.drafts = 0  # of the user in this exchange; 0 while it is the student's turn
        self.transcript = [("You", goal)]  # as the user reads it
        self.suggestion = ""

    def begin(self) -> Outcome:
        return Outcome(ask=Ask(party=STUDENT, messages=(self.opening,), exchange=0))

    def act(self, reply: Reply) -> Outcome:
        return self._user_spoke(reply) if self.drafts else self._student_spoke(reply.text)

    # -- the student spoke -------------------------------------------------------------------------------------

    def _student_spoke(self, utterance: str) -> Outcome:
        info = self._read(utterance)
        if info["correct"]:
            return Outcome(rewards={STUDENT: 1.0}, info=info, stop_reason="solved", terminated=True)
        self.turn += 1
        if not self.left:
            return Outcome(info=info, stop_reason="all_told", terminated=True)
        if self.turn == max_messages(len(self.problem.shards)):
            return Outcome(info=info, stop_reason="max_messages", truncated=True)
        self.transcript.append(("Assistant", visible(utterance)))
        self.suggestion = self.source.tell(self.problem, self.left, utterance)
        return Outcome(ask=self._ask_user(), info=info)

    def _read(self, utterance: str) -> dict[str, Any]:
        attempt = self.source.verify(self.problem, utterance)
        if self.classifier is None:
            reply_class = classify_reply(utterance, attempt, self.source.answer_format)
        else:
            reply_class = self.classifier(self.problem, utterance, attempt)
        scored = reply_class == "answer"
        return {
            "kind": kind_of(reply_class, attempt),
            "answer": attempt.answer if scored else None,
            "correct": scored and attempt.correct,
            "reply_class": reply_class,
            "incomplete": bool(self.left),
        }

    # -- the user spoke ----------------------------------------------------------------------------------------

    def _ask_user(self) -> Ask:
        self.drafts += 1
        exchange = self.turn - 1
        briefing = Message("system", user_briefing(self.user_instruction, self.problem, self.left))
        said = Message("user", "\n\n".join(f"{name}: {text}" for name, text in self.transcript))
        utterance = self.transcript[-1][1]
        context = UserContext(self.problem, self.left, utterance, exchange, self.suggestion)
        return Ask(party=USER, messages=(briefing, said), exchange=exchange, context=context, restart=True)

    def _user_spoke(self, reply: Reply) -> Outcome:
        public = BETWEEN.join(text for _, text in self.transcript)
        told = read_told(reply, self.problem, self.left, public)
        info: dict[str, Any] = {"part": None, "attempts": self.drafts, "heard": told is not None}
        if told is None and self.drafts < MAX_DRAFTS:
            return Outcome(ask=self._ask_user(), info=info)
        told = told or verbatim(self.suggestion, self.problem, self.left)
        return Outcome(ask=self._tell(told), info=info | {"part": told.part})

    def _tell(self, told: Told) -> Ask:
        self.left = tuple(part for part in self.left if part != told.part)
        self.transcript.append(("You", told.message))
        self.drafts = 0
        message = Message("user", told.message, USER, self.turn - 1)
        return Ask(party=STUDENT, messages=(message,), exchange=self.turn)


def max_messages(shards: int) -> int:
    """Most messages of the user, and so turns of the student, in a conversation about so many shards.

    Example:
        >>> max_messages(1), max_messages(4)
        (1, 10)
    """
    return 1 if shards == 1 else 2 * shards + 2
