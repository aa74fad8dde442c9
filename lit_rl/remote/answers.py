"""From the body of an answer to a reply."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lit_rl.environments.base import Reply
from lit_rl.remote.failures import RequestFailure

_STOP_REASONS: dict[Any, Literal["end", "length"]] = {"stop": "end", "length": "length"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply and the tokens it cost, 0 where the server does not say."""

    reply: Reply
    prompt_tokens: int = 0
    completion_tokens: int = 0


def read_answer(body: str) -> Answer:
    """Read a chat completion.

    Raises:
        RequestFailure: It is no JSON, holds no choice or no text, or was stopped by a content filter.
    """
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise _unreadable(f"is no JSON ({error})", body) from error
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _unreadable("holds no choice", body)
    used = answer.get("usage")
    used = used if isinstance(used, dict) else {}
    return Answer(_reply(choices[0], body), _count(used, "prompt_tokens"), _count(used, "completion_tokens"))


def _reply(choice: Mapping[str, Any], body: str) -> Reply:
    reason, message = choice.get("finish_reason"), choice.get("message")
    if reason == "content_filter":
        raise RequestFailure("stopped the reply by its content filter")
    if not isinstance(message, dict) or reason not in _STOP_REASONS:
        raise _unreadable(f"has finish_reason {reason!r} instead of 'stop' or 'length', or no message", body)
    if message.get("refusal"):
        raise RequestFailure(f"refused: {message['refusal']}")
    text = message.get("content")
    if text is None and reason == "length":
        text = ""  # all its tokens went into hidden reasoning
    if not isinstance(text, str):
        raise _unreadable("has no text", body)
    return Reply(text=text, stop_reason=_STOP_REASONS[reason])


def _unreadable(what: str, body: str) -> RequestFailure:
    return RequestFailure(f"gave an answer that {what}: {body[:200]!r}", retry=True)


def _count(used: Mapping[str, Any], name: str) -> int:
    value = used.get(name)
    return value if isinstance(value, int) else 0
