"""How often and after what pause a request is made again."""

import math
from dataclasses import dataclass

from lit_rl.stream_keys import stream_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """Exponential backoff whose jitter is a function of the call, so that equal runs wait alike.

    Args:
        attempts: Requests for one reply, the first included.
        backoff: Seconds before the second attempt, on average; doubled for each further one.
        longest_wait: Seconds; backoff stops growing there, and a server that asks for more is given up.
    """

    attempts: int
    backoff: float
    longest_wait: float

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"RemoteParty.attempts is {self.attempts}; it must be at least 1.")
        for name, value in (("backoff", self.backoff), ("longest_wait", self.longest_wait)):
            if not 0 <= value < math.inf:
                raise ValueError(f"RemoteParty.{name} is {value}; it must be a number of seconds, 0 or more.")

    def pause(self, key: int, attempt: int, asked_for: float) -> float:
        """Seconds after attempt number ``attempt`` (1-based) of the call with this key, never less than asked for."""
        jitter = 0.5 + stream_key(key, "pause", attempt) / 2**63  # in [0.5, 1.5)
        return max(asked_for, min(self.longest_wait, self.backoff * 2.0 ** min(attempt - 1, 60) * jitter))
