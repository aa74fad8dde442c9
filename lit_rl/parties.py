"""Who can take part in an episode: parties sampled from our policy, and parties that reply by other means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from lit_rl.environments.base import Message, Reply, Role
from lit_rl.sampling import SamplingSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One reply wanted from a party that is not sampled by us."""

    messages: tuple[Message, ...]  # the whole conversation as this party sees it, its own replies as "assistant"
    context: Any  # structured facts for scripts, e.g. the private answer
    key: int  # random stream of (run seed, episode, exchange, attempt): equal keys must give equal replies
    episode: int  # index of the episode in the run
    exchange: int
    role: Role = "assistant"  # under whose header it is to speak, for parties that know headers
    max_tokens: int | None = None  # overrides the party's own limit


@runtime_checkable
class Party(Protocol):
    """Replies to many calls at once; order is kept.  A party that cannot reply raises `PartyError`."""

    def reply(self, calls: Sequence[Call]) -> list[Reply]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyParty:
    """A party sampled from our policy.

    Args:
        settings: How its tokens are drawn.
        adapter: Name of its LoRA adapter (any name if the policy trains all weights); None is the frozen base.
    """

    settings: SamplingSettings
    adapter: str | None = None


class PartyError(RuntimeError):
    """A party could not reply. ``episode`` names the episode it was asked in."""

    def __init__(self, party: str, message: str, episode: int | None = None):
        where = "" if episode is None else f" in episode {episode}"
        super().__init__(f"Party {party!r}{where}: {message}")
        self.party, self.episode = party, episode


class ScriptedParty:
    """A party whose words are a function of the facts of the turn (``Call.context``) and a random key.

    Args:
        script: ``(context, key) -> text``.  It must depend on nothing else, or a resumed run differs.
        name: For error messages.
    """

    def __init__(self, script: Callable[[Any, int], str], name: str = "scripted"):
        self.script, self.name = script, name

    def reply(self, calls: Sequence[Call]) -> list[Reply]:
        replies = []
        for call in calls:
            try:
                text = self.script(call.context, call.key)
            except Exception as error:
                raise PartyError(self.name, f"its script raised {error!r}.", call.episode) from error
            replies.append(Reply(text=text))
        return replies
