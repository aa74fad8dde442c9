"""How a remote model is asked to answer."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lit_rl.environments.base import Message
from lit_rl.parties import Call
from lit_rl.stream_keys import stream_key

# Fields that have an argument of their own, or that would change what an answer looks like.
_NOT_EXTRA = ("model", "messages", "temperature", "top_p", "max_tokens", "seed", "n", "stream", "tools")


@dataclass(frozen=True, kw_only=True)
class RemoteSettings:
    """What each request says about sampling; None leaves a value to the server.

    Args:
        temperature: 0 is the likeliest token on most servers.
        top_p: Smallest set of tokens with at least this probability, in (0, 1].
        max_tokens: Of one reply.  For a server that wants ``max_completion_tokens``, give None here and that one in
            ``extra_body``.
        extra_body: Further fields of the request, e.g. ``{"top_k": 20}``.
        send_seed: Send a seed derived from `Call.key`, so that equal calls ask for equal replies.  False for servers
            that refuse one.
    """

    temperature: float | None = 0.7
    top_p: float | None = None
    max_tokens: int | None = 512
    extra_body: dict[str, Any] | None = None
    send_seed: bool = True

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise ValueError(f"RemoteSettings.temperature is {self.temperature}; it must be 0 or more, or null.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"RemoteSettings.top_p is {self.top_p}; it must lie in (0, 1], or be null.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"RemoteSettings.max_tokens is {self.max_tokens}; it must be at least 1, or null.")
        self._check_extra_body()

    def _check_extra_body(self) -> None:
        taken = [name for name in _NOT_EXTRA if name in (self.extra_body or {})]
        if taken:
            raise ValueError(f"RemoteSettings.extra_body sets {taken}; it may hold no field of {list(_NOT_EXTRA)}.")
        try:
            json.dumps(self.extra_body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"RemoteSettings.extra_body cannot be written as JSON: {error}.") from error

    def request(self, call: Call) -> dict[str, Any]:
        """Arguments of the client's ``chat.completions.create``, without the model."""
        known: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        request = {name: value for name, value in known.items() if value is not None}
        if self.send_seed:
            request["seed"] = stream_key(call.key, "seed") >> 32  # 31 bits: some servers take no more
        if self.extra_body:
            request["extra_body"] = self.extra_body
        return request | {"messages": as_chat(call.messages)}

    def facts(self) -> dict[str, Any]:
        """What a reply depends on, as plain types."""
        return asdict(self)


def as_chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as the protocol writes them."""
    return [{"role": message.role, "content": message.content} for message in messages]
