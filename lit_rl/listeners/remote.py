"""A listener behind an endpoint, or any other party that replies to messages."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

from lit_rl.environments.base import Message, Reply
from lit_rl.listeners.base import Continuation, ListenRequest
from lit_rl.parties import Call, Party, PartyError
from lit_rl.verification.traces import ThinkTags

Continue = Literal["final_message", "instruction"]
_INSTRUCTION = """{question}

Somebody has begun to think about this.  Go on from where these thoughts stop, as if they were your own, and do not
begin anew.  When you have thought to the end write {close} and then only the answer, as asked for above.

{open}
{prefix}
"""


class PartyListener:
    """Asks a `lit_rl.parties.Party`, such as `lit_rl.remote.RemoteParty`, to go on with a reasoning.

    The chat protocol has no opened think block, so there are two ways to ask:

    * ``continue_with="final_message"``: the last message is the assistant's own and holds the open tag and the prefix.
      The server has to continue it instead of beginning a turn: vLLM and SGLang do with the party's ``extra_body:
      {continue_final_message: true, add_generation_prompt: false}``; others have a field of their own.  A server that
      does not know of it answers as to a finished message, and what comes is no continuation: look at ``none_share``
      and at the lift over an empty prefix.
    * ``continue_with="instruction"``: one user message with the question, the beginning, and the request to go on
      inside it, to write the closing tag, and then to answer.  Works with every endpoint; what the model makes of it
      is the model's (our wording).

    Args:
        name: In the names of figures.
        party: Who is asked; its own settings say how it samples.
        continue_with: How.
        hidden_thinking: The endpoint keeps the model's thinking to itself: what comes is an answer section alone.
        on_error: When the party gives up a request: "stop" raises its error, "drop" leaves the request out, for the
            whole group of rollouts it belongs to (see `lit_rl.callbacks.ListenerExecution`), and counts it.  What any
            other request would meet too stops the run in any case.
        tags: Think tags of the model; None is ``<think>`` and ``</think>``.
        instruction: System message.
    """

    def __init__(
        self,
        name: str,
        party: Party,
        *,
        continue_with: Continue = "instruction",
        hidden_thinking: bool = False,
        on_error: Literal["stop", "drop"] = "stop",
        tags: ThinkTags | None = None,
        instruction: str | None = None,
    ):
        if continue_with not in get_args(Continue):
            raise ValueError(
                f"Listener {name!r}: continue_with is {continue_with!r}; use one of {list(get_args(Continue))}."
            )
        if on_error not in ("stop", "drop"):
            raise ValueError(f"Listener {name!r}: on_error is {on_error!r}; it must be 'stop' or 'drop'.")
        self.name, self.party, self.tags = name, party, tags or ThinkTags()
        self.continue_with, self.hidden_thinking, self.on_error = continue_with, hidden_thinking, on_error
        self.instruction = instruction

    def attach(self, module: Any) -> None:
        """Needs nothing."""

    def figures(self) -> dict[str, float]:
        """Those of the party, where it has some."""
        counts = getattr(self.party, "figures", None)
        return dict(counts()) if counts is not None else {}

    def continue_(self, requests: Sequence[ListenRequest]) -> list[Continuation]:
        # A request is an episode of its own: what is given up is one of them.
        calls = [
            Call(messages=self.messages(request), context=request, key=request.key, episode=number, exchange=0)
            for number, request in enumerate(requests)
        ]
        said: dict[int, Continuation] = {}
        while calls:
            try:
                replies = self.party.reply(calls)
            except PartyError as error:
                left = [call for call in calls if call.episode != error.episode]
                if self.on_error == "stop" or len(left) == len(calls):
                    raise
                warnings.warn(f"Listener {self.name!r} leaves out a request: {error}", stacklevel=2)
                calls = left
                continue
            if len(replies) != len(calls):
                raise PartyError(
                    self.name, f"gave {len(replies)} replies to {len(calls)} calls; give one each, in order."
                )
            said = {call.episode: self._continuation(reply) for call, reply in zip(calls, replies, strict=True)}
            break
        return [said.get(number, Continuation(stop_reason="failed")) for number in range(len(requests))]

    def messages(self, request: ListenRequest) -> tuple[Message, ...]:
        """What the party is sent."""
        system = (Message("system", self.instruction),) if self.instruction else ()
        open_, close = self.tags.open, self.tags.close
        prefix = request.prefix.strip()
        if self.continue_with == "instruction":
            text = _INSTRUCTION.format(question=request.question, open=open_, close=close, prefix=prefix)
            return (*system, Message("user", text))
        begun = f"{open_}\n{prefix}\n" if prefix else f"{open_}\n"
        return (*system, Message("user", request.question), Message("assistant", begun))

    def _continuation(self, reply: Reply) -> Continuation:
        text = f"{self.tags.close}\n{reply.text}" if self.hidden_thinking else reply.text
        return Continuation(text=text, stop_reason="length" if reply.stop_reason == "length" else "end")
