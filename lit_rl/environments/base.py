"""What an environment is: it says who speaks next, what they hear, and what everybody is paid."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message as the listener's chat template sees it."""

    role: Role
    content: str
    party: str | None = None  # who said it; None is context (a problem, an instruction), never a training target
    exchange: int = -1  # the exchange it belongs to or answers, 0-based; -1 for context


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A turn is due: whose it is and what that party hears that it has not heard before.

    A party's own replies are kept by whoever plays the episode; ``messages`` never repeats them.
    """

    party: str
    messages: tuple[Message, ...]
    exchange: int  # 0-based number of the exchange this reply belongs to
    context: Any = None  # facts for scripted parties; never rendered to tokens by the rollout
    constraint: str | None = None  # name of a token constraint known to the sampler; None allows every token
    max_tokens: int | None = None  # overrides the party's own limit
    restart: bool = False  # forget the party's conversation so far: ``messages`` is all it sees, and a row of its own
    role: Role = "assistant"  # under whose header it speaks; "user" is a student in its teacher's place


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What the party said."""

    text: str
    # "said": a script's words, meant as they are; a model's, remote or not, came to an "end" or to the limit "length".
    stop_reason: Literal["end", "length", "said"] = "said"
    token_ids: tuple[int, ...] = ()  # as sampled, with the end-of-turn token if it was sampled


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a reply led to. ``ask=None`` ends the episode and then ``stop_reason`` says why."""

    ask: Ask | None = None
    rewards: Mapping[str, float] = field(default_factory=dict)  # party -> reward of the turn just taken
    info: Mapping[str, Any] = field(default_factory=dict)  # facts about the turn just taken, plain types
    stop_reason: str | None = None
    terminated: bool = False  # the task itself ended: solved, failed for good
    truncated: bool = False  # cut off by a limit (turns, context)
    epilogue: Ask | None = None  # training rows only: what the party would have heard after its last turn

    def __post_init__(self) -> None:
        if self.ask is None and self.stop_reason is None:
            raise ValueError("Outcome: an episode that ends (ask=None) needs a stop_reason such as 'solved'.")


@runtime_checkable
class Environment(Protocol):
    """One episode. A new object for each; all randomness comes from the seed it was built with.

    One that holds something (a game's process, say) may have a method ``close()``, called once when it is over or given
    up.
    """

    def begin(self) -> Outcome:
        """Open the episode: the first ``ask``."""
        ...

    def act(self, reply: Reply) -> Outcome:
        """Take the reply of the party asked last; pay; say who is next.  Raises nothing on bad text: that is a turn."""
        ...
