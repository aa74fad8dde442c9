"""What teacher and student are told, and what of a teacher's words reaches the student (our wording throughout)."""

import re

from lit_rl.environments.base import Reply
from lit_rl.environments.problems import Problem
from lit_rl.verification.attempts import Attempt
from lit_rl.verification.extraction import visible

RETRY = "That is not correct. Please try again."
CANNOT_SAY = "I cannot say that. Please try a step."

STUDENT_INSTRUCTION = (
    "You are solving a problem in a conversation with somebody who can help you. In each message you may ask a "
    "question or give your answer. Give a final answer as \\boxed{...}, and only one in a message."
)

TEACHER_INSTRUCTION = """You are tutoring a student who works on the problem below. You know the answer; the student \
does not, and never sees this message.

Problem:
{problem}

Known to you alone:
{private}

Each message you get is the student's. If the latest one holds an attempt, find the mistake in it that matters most; \
if it asks something, answer that. Then give the one hint that helps most with the next attempt, in at most three \
short sentences. Never state the final answer, and do not solve the problem yourself. You may think first: only what \
you write between <feedback> and </feedback> reaches the student."""

DETAIL = "Known to you alone, what checking this attempt showed:"

_BLOCK = re.compile(r"<feedback>((?:(?!<feedback>).)*?)</feedback>", re.DOTALL)


def teacher_briefing(instruction: str, problem: Problem) -> str:
    """The teacher's instruction with the problem and all that only the teacher knows."""
    private = "\n".join(f"{name}: {text}" for name, text in problem.private.items())
    return instruction.replace("{problem}", problem.prompt).replace("{private}", private)


def with_detail(utterance: str, attempt: Attempt) -> str:
    """A student's words as the teacher hears them, with what only the teacher may know of this attempt."""
    return f"{utterance}\n\n{DETAIL}\n{attempt.detail}" if attempt.detail else utterance


def check_instruction(instruction: str) -> None:
    """Raise ValueError if a teacher would not be told the problem, its answer, or how to reach the student."""
    for wanted in ("{problem}", "{private}", "<feedback>"):
        if wanted not in instruction:
            raise ValueError(f"teacher_instruction must contain {wanted}; it is {instruction!r}.")


def forwarded(reply: Reply) -> str | None:
    """What of a teacher's reply the student hears; None if it cannot be told.

    Only the last feedback block of a model, which may have reasoned privately around it; all that a script says.
    """
    if "<feedback>" not in reply.text:
        return reply.text.strip() or None if reply.stop_reason == "said" else None
    blocks = _BLOCK.findall(visible(reply.text))
    return blocks[-1].strip() or None if blocks else None


def fallback(attempt: Attempt) -> str:
    """What the student hears when the teacher's words cannot be forwarded."""
    return CANNOT_SAY if attempt.kind == "question" else RETRY


def in_block(text: str) -> str:
    """A message as a model teacher should have written it."""
    return f"<feedback> {text} </feedback>"
