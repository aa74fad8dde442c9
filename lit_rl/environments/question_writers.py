"""Who writes a student's questions in Q-priming, and what of their words is the question (our wording throughout)."""

import re

from lit_rl.environments.base import Reply
from lit_rl.environments.teachers import TeacherContext
from lit_rl.verification.extraction import visible

QUESTION_INSTRUCTION = """You are a student in a conversation with a teacher about the problem below. You were about \
to send a message that is not right. Ask the teacher a question instead.

Problem:
{problem}

Conversation so far:
{conversation}

The message you were about to send:
{attempt}

What only the teacher knows, and nobody may notice that you know:
{private}

Find the step of your message that is wrong and write exactly one short question about it, whose reply would help you \
most. Never state the answer, and give no attempt. You may think first: only what you write between <question> and \
</question> is sent."""

_BLOCK = re.compile(r"<question>((?:(?!<question>).)*?)</question>", re.DOTALL)
_PLACE = re.compile(r"\{(problem|private|conversation|attempt)\}")


def check_question_instruction(instruction: str) -> None:
    """Raise ValueError if a writer would not be told all it needs, or how to hand over its question."""
    for wanted in ("{problem}", "{private}", "{conversation}", "{attempt}", "<question>"):
        if wanted not in instruction:
            raise ValueError(f"q_priming.instruction must contain {wanted}; it is {instruction!r}.")


def question_briefing(instruction: str, context: TeacherContext) -> str:
    """The instruction with the problem, all that only the teacher knows, the conversation and the attempt filled in."""
    filled = {
        "problem": context.problem.prompt,
        "private": "\n".join(f"{name}: {text}" for name, text in context.problem.private.items()),
        "conversation": "\n".join(f"You: {ours}\nTeacher: {theirs}" for ours, theirs in context.history),
        "attempt": context.utterance,
    }
    return _PLACE.sub(lambda place: filled[place[1]], instruction)  # in one pass: what is filled in may hold braces


def question_in(reply: Reply) -> str | None:
    """The question of a writer: a model's last block, all that a script says; None if there is none."""
    if reply.stop_reason == "said" and "<question>" not in reply.text:
        return reply.text.strip() or None
    blocks = _BLOCK.findall(visible(reply.text))
    return blocks[-1].strip() or None if blocks else None


class FixedQuestion:
    """Asks the same in every turn, as in a world where one question is all there is to ask.

    Args:
        text: The question.
    """

    def __init__(self, text: str = "ask"):
        if not text.strip():
            raise ValueError("FixedQuestion.text is empty; give the question.")
        self.text = text

    def __call__(self, context: TeacherContext, key: int) -> str:
        return self.text


class AskWrongDigit:
    """Asks for the first wrong digit of an attempt at `DigitEdit`; for any where the attempt has another length."""

    def __call__(self, context: TeacherContext, key: int) -> str:
        gold = context.problem.gold.split()
        given = (context.attempt.answer or "").split()
        if len(given) != len(gold):
            return f"ask digit {1 + key % len(gold)}"
        wrong = [place for place, (ours, theirs) in enumerate(zip(given, gold, strict=True), 1) if ours != theirs]
        return f"ask digit {wrong[0]}"
