"""A listener that is a function."""

from collections.abc import Callable, Sequence
from typing import Any

from lit_rl.listeners.base import Continuation, ListenRequest
from lit_rl.parties import PartyError
from lit_rl.verification.traces import ThinkTags


class ScriptedListener:
    """Says what a script says.

    Args:
        name: In the names of figures.
        script: ``(question, prefix, key) -> text``, the closing tag included.  It must depend on nothing else, or a
            resumed run differs.
        tags: Its think tags; None is ``<think>`` and ``</think>``.
    """

    def __init__(self, name: str, script: Callable[[str, str, int], str], tags: ThinkTags | None = None):
        self.name, self.script, self.tags = name, script, tags or ThinkTags()

    def attach(self, module: Any) -> None:
        """Needs nothing."""

    def continue_(self, requests: Sequence[ListenRequest]) -> list[Continuation]:
        said = []
        for request in requests:
            try:
                text = self.script(request.question, request.prefix, request.key)
            except Exception as error:
                raise PartyError(self.name, f"its script raised {error!r} on {request.prefix[-80:]!r}.") from error
            said.append(Continuation(text=text))
        return said
