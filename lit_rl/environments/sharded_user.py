"""The user who tells a task in parts: what a model in this role is told, and what of its words reaches the student."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lit_rl.environments.base import Reply
from lit_rl.environments.leaks import BETWEEN, leaks
from lit_rl.environments.sharded_tasks import ShardedProblem
from lit_rl.verification.extraction import visible

USER_INSTRUCTION = """You play somebody who wants a task done and talks with an assistant about it. You know the task \
in parts.

Told so far:
{told}

Not told yet:
{left}

Read the conversation and write what you say next. Tell at most one part that was not told yet: the one that fits best \
to what the assistant said last, completely and in your own words. If the assistant asks for something that is in no \
part, say briefly that you do not know, and tell none. Never say whether an answer of the assistant is good or bad. \
Write the number of the part you tell, or none, as <part>2</part>, and your message between <say> and </say>. Only the \
message reaches the assistant."""

_SAY = re.compile(r"<say>((?:(?!<say>).)*?)</say>", re.DOTALL)
_PART = re.compile(r"<part>\s*(\d{1,4}|none)\s*</part>")
_VERDICT = re.compile(
    r"\b(?:in)?correct(?:ly)?\b|\bwrong\b|\bmistaken?\b|\bwell done\b|\bgood job\b|\bnot quite\b"
    r"|\bthat(?:['\u2019]s| is)(?: not)? right\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class UserContext:
    """What a scripted user knows when it speaks."""

    problem: ShardedProblem
    left: tuple[int, ...]  # numbers of the shards not told yet
    utterance: str  # the student's latest
    turn: int  # exchange it answers, 0-based
    suggestion: str  # what the task's own script says here


def scripted_user(context: UserContext, key: int) -> str:
    """The task's own scripted user."""
    return context.suggestion


@dataclass(frozen=True, slots=True)
class Told:
    """A message of the user and the shard it tells, if any."""

    message: str
    part: int | None


def user_briefing(instruction: str, problem: ShardedProblem, left: Sequence[int]) -> str:
    """The user's instruction with the parts told and those left, by number."""
    told = [part for part in range(len(problem.shards)) if part not in left]
    parts = {name: _listed(problem, numbers) for name, numbers in (("{told}", told), ("{left}", left))}
    for name, text in parts.items():
        instruction = instruction.replace(name, text)
    return instruction


def _listed(problem: ShardedProblem, parts: Iterable[int]) -> str:
    return "\n".join(f"{part}: {problem.shards[part]}" for part in parts)


def check_user_instruction(instruction: str) -> None:
    """Raise ValueError if a user would not know the parts, or how to say which one it tells."""
    for wanted in ("{told}", "{left}", "<part>", "<say>"):
        if wanted not in instruction:
            raise ValueError(f"user_instruction must contain {wanted}; it is {instruction!r}.")


def read_told(reply: Reply, problem: ShardedProblem, left: Sequence[int], public: str) -> Told | None:
    """What a user said; None if it cannot be passed on.

    A model names the part and encloses its message, as `USER_INSTRUCTION` asks.  A script's words without such marks
    tell the part that they are word for word, or none.  Not passed on are: no message, a part that is not ``left``,
    another part of those left told beside it word for word, and words that judge the student (but for those of the part
    itself).
    """
    told = verbatim(reply.text, problem, left) if reply.stop_reason == "said" else None
    if told is None or "<say>" in reply.text:
        told = _read_marked(visible(reply.text), left)
    if told is None or not told.message:
        return None
    own = "" if told.part is None else problem.shards[told.part]
    others = (problem.shards[part] for part in left if part != told.part)
    if any(leaks(told.message, other, BETWEEN.join((public, own))) for other in others) or _judges(told.message, own):
        return None
    return told


def verbatim(text: str, problem: ShardedProblem, left: Sequence[int]) -> Told:
    """A script's words, and the part that they are word for word."""
    message = text.strip()
    return Told(message, next((part for part in left if problem.shards[part].strip() == message), None))


def _read_marked(text: str, left: Sequence[int]) -> Told | None:
    messages, parts = _SAY.findall(text), _PART.findall(text)
    if not messages or not parts:
        return None
    part = None if parts[-1] == "none" else int(parts[-1])
    return Told(messages[-1].strip(), part) if part is None or part in left else None


def _judges(message: str, own: str) -> bool:
    """Whether a message says that an answer is right or wrong, in words that the part it tells does not have."""
    return any(found.group().lower() not in own.lower() for found in _VERDICT.finditer(message))
