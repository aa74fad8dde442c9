"""Many calls at once, each until it is answered or given up."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from lit_rl.environments.base import Reply
from lit_rl.parties import Call, PartyError
from lit_rl.remote.answers import Answer
from lit_rl.remote.cache import ReplyCache
from lit_rl.remote.endpoint import Endpoint
from lit_rl.remote.failures import RequestFailure
from lit_rl.remote.patience import Patience

Outcome = Reply | PartyError
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Figures:
    """What a party has asked so far, in this process."""

    calls: int = 0  # requests sent, retries included
    cached: int = 0  # replies that needed none
    retries: int = 0
    failures: int = 0  # replies given up
    prompt_tokens: int = 0  # as far as the server says
    completion_tokens: int = 0


class Asking:
    """Turns calls into replies or errors.

    Args:
        name: Of the party, for error messages.
        max_concurrency: Requests on their way at once; a call that pauses takes no place.
        max_calls: Requests after which no more is sent; None is no limit.
        cache: Where replies are kept as soon as they are there.
        figures: Counted on.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        patience: Patience,
        *,
        name: str,
        max_concurrency: int,
        max_calls: int | None,
        cache: ReplyCache | None,
        figures: Figures,
    ):
        self.endpoint, self.patience, self.name = endpoint, patience, name
        self.max_concurrency, self.max_calls, self.cache, self.figures = max_concurrency, max_calls, cache, figures

    def run(self, calls: Mapping[str, Call]) -> dict[str, Outcome]:
        """One outcome per digest; a failure that meets every call keeps those not yet sent from being sent."""
        from anyio.from_thread import start_blocking_portal

        # A loop of its own in another thread: a notebook has one running in this one.  Ctrl-C cancels it.
        with start_blocking_portal() as portal:
            return portal.call(self._run, calls)

    async def _run(self, calls: Mapping[str, Call]) -> dict[str, Outcome]:
        return await _Batch(self).run(calls)


class _Batch:
    """What belongs to one event loop."""

    def __init__(self, asking: Asking):
        import anyio

        self.asking, self.figures = asking, asking.figures
        self.places = anyio.Semaphore(asking.max_concurrency)
        self.outcomes: dict[str, Outcome] = {}
        self.all_fail: RequestFailure | None = None
        self.hopeless = anyio.Event()

    async def run(self, calls: Mapping[str, Call]) -> dict[str, Outcome]:
        import anyio

        async with self.asking.endpoint.client() as self.client, anyio.create_task_group() as group:
            for digest, call in calls.items():
                group.start_soon(self._settle, digest, call)
        return self.outcomes

    async def _settle(self, digest: str, call: Call) -> None:
        try:
            answer = await self._persist(call)
            self.figures.prompt_tokens += answer.prompt_tokens
            self.figures.completion_tokens += answer.completion_tokens
            self.outcomes[digest] = self._kept(digest, answer.reply)
        except RequestFailure as failure:
            self.outcomes[digest] = self._given_up(failure, call)

    def _kept(self, digest: str, reply: Reply) -> Reply:
        cache = self.asking.cache
        try:
            return cache.put(digest, reply) if cache else reply
        except OSError as error:
            failure = RequestFailure(f"replied, but the cache could not keep it ({error})", every_call=True)
            self._stop(failure)
            raise failure from error

    def _given_up(self, failure: RequestFailure, call: Call) -> PartyError:
        self.figures.failures += 1
        sentence = self.asking.endpoint.without_key(f"{self.asking.endpoint} {failure.what}.")
        # Without an episode the run stops also where it drops dialogues: it would drop all of them.
        error = PartyError(self.asking.name, sentence, None if failure.every_call else call.episode)
        error.__cause__ = failure
        return error

    async def _persist(self, call: Call) -> Answer:
        """Ask until there is an answer."""
        import anyio

        patience, attempt = self.asking.patience, 0
        while True:
            attempt += 1
            try:
                async with self.places:
                    return await self._ask(call)
            except RequestFailure as failure:
                pause = self._pause(failure, call, attempt)
                self.figures.retries += 1
                log.warning(
                    "Party %r in episode %d: %s; attempt %d of %d follows in %.1f s.",
                    self.asking.name, call.episode, self.asking.endpoint.without_key(failure.what), attempt + 1,
                    patience.attempts, pause,
                )  # fmt: skip
            with anyio.move_on_after(pause):
                await self.hopeless.wait()

    def _pause(self, failure: RequestFailure, call: Call, attempt: int) -> float:
        """Seconds until the next attempt; raises the failure if there is none."""
        patience = self.asking.patience
        if not failure.retry:
            raise failure
        if attempt >= patience.attempts:
            raise RequestFailure(f"{failure.what}; given up after {attempt} attempts") from failure
        if failure.wait > patience.longest_wait:
            raise RequestFailure(
                f"{failure.what}; it asks to wait {failure.wait:g} s, longer than longest_wait "
                f"({patience.longest_wait:g} s)"
            ) from failure
        return patience.pause(call.key, attempt, failure.wait)

    async def _ask(self, call: Call) -> Answer:
        if self.all_fail is not None:
            raise self.all_fail
        limit = self.asking.max_calls
        try:
            if limit is not None and self.figures.calls >= limit:
                raise RequestFailure(
                    f"is asked no more, for max_calls ({limit}) requests were sent; raise it to go on", every_call=True
                )
            self.figures.calls += 1
            return await self.asking.endpoint.ask(self.client, call)
        except RequestFailure as failure:
            if failure.every_call:
                self._stop(failure)
            raise

    def _stop(self, failure: RequestFailure) -> None:
        self.all_fail = failure
        self.hopeless.set()
