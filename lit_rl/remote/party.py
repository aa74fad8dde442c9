"""A party whose words come from a remote model."""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import asdict

from lit_rl.environments.base import Reply
from lit_rl.parties import Call, PartyError
from lit_rl.remote.asking import Asking, Figures, Outcome
from lit_rl.remote.cache import ReplyCache, digest_of
from lit_rl.remote.endpoint import Endpoint
from lit_rl.remote.patience import Patience
from lit_rl.remote.settings import RemoteSettings


class RemoteParty:
    """A model behind any endpoint that speaks OpenAI's chat protocol (the extra ``remote``).

    In a config::

        data:
          class_path: lit_rl.datamodules.DidacticDataModule
          init_args:
            teacher:
              class_path: lit_rl.remote.RemoteParty
              init_args:
                model: Qwen/Qwen3-8B
                base_url: http://localhost:8000/v1
                api_key_variable: null
                settings: {temperature: 0.7, max_tokens: 512}
                cache_folder: runs/teacher_cache

    Refused and broken connections, time-outs, statuses 408, 409, 425, 429 (``Retry-After`` is honoured) and 5xx, and
    answers that cannot be read are asked again.  What is still without a reply after the last attempt, what a content
    filter stopped, and a request refused with 400, 413 or 422 raise `PartyError` for that episode: the run stops, or
    the dialogue is dropped and counted, as ``on_error`` of the data module says.  A failure that any other call would
    meet too (a wrong key, a wrong model, an empty account, ``max_calls``) stops the run in any case.

    Equal calls send equal requests with equal seeds, yet few servers then give equal replies: a run that is to be
    repeated or resumed exactly needs a ``cache_folder``.

    Args:
        model: As the server calls it.
        base_url: E.g. ``https://api.openai.com/v1``.
        api_key_variable: Environment variable with the key; None for a server without keys.
        settings: Sampling, see `RemoteSettings`.
        max_concurrency: Requests on their way at once.
        attempts: Requests for one reply before it is given up, the first included.
        backoff: Seconds before the second attempt; doubled for each further one, times 0.5 to 1.5 by the call's key.
        longest_wait: Seconds; no pause grows beyond, and a server that asks for a longer one is given up.
        timeout: Seconds for one request, from the connection to the last byte.
        max_calls: Requests this process may send, retries included; None is no limit.  A resumed run counts anew.
        cache_folder: Keeps every reply by model, settings, messages and key: a resumed run asks nothing twice, and a
            finished one can be played again without the server.  ``base_url`` is no part of it, so take another folder
            for another server.  Grows by one small file per reply, see `ReplyCache`.  None keeps nothing.
        name: For error messages.

    Raises:
        ValueError: An argument is out of range, ``base_url`` is no address, or the key's variable is unset.
        ImportError: The extra ``remote`` is not installed.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key_variable: str | None = "OPENAI_API_KEY",
        settings: RemoteSettings | None = None,
        max_concurrency: int = 16,
        attempts: int = 5,
        backoff: float = 1.0,
        longest_wait: float = 60.0,
        timeout: float = 120.0,
        max_calls: int | None = None,
        cache_folder: str | None = None,
        name: str = "remote",
    ):
        if importlib.util.find_spec("openai") is None:
            raise ImportError('RemoteParty needs the openai client: pip install "lit-rl[remote]"')
        if max_concurrency < 1:
            raise ValueError(f"RemoteParty.max_concurrency is {max_concurrency}; it must be at least 1.")
        if not 0 < timeout < math.inf:
            raise ValueError(f"RemoteParty.timeout is {timeout}; it must be a number of seconds above 0.")
        if max_calls is not None and max_calls < 0:
            raise ValueError(f"RemoteParty.max_calls is {max_calls}; it must be 0 or more, or null for no limit.")
        self.model, self.settings = model, settings or RemoteSettings()
        self._figures, self._cache = Figures(), None if cache_folder is None else ReplyCache(cache_folder)
        self._asking = Asking(
            Endpoint(base_url, model, api_key_variable, self.settings, timeout),
            Patience(attempts=attempts, backoff=backoff, longest_wait=longest_wait),
            name=name,
            max_concurrency=max_concurrency,
            max_calls=max_calls,
            cache=self._cache,
            figures=self._figures,
        )
        self._left: dict[str, Outcome] = {}  # of the calls beside the one that raised: they come again without it

    def reply(self, calls: Sequence[Call]) -> list[Reply]:
        """Replies in the order of the calls.

        Raises:
            PartyError: For one call that got none; what the others got is kept, and given when they are asked again
                without that one.
        """
        digests = [digest_of(self.model, self.settings, call) for call in calls]
        wanted = dict(zip(digests, calls, strict=True))
        outcomes = self._left if self._left.keys() == wanted.keys() else self._cached(wanted)
        self._left = {}
        missing = {digest: call for digest, call in wanted.items() if digest not in outcomes}
        if missing:
            outcomes = outcomes | self._asking.run(missing)
        # In the order of the calls, whichever answer came first: equal runs fail equally.
        errors = {digest: error for digest in wanted if isinstance(error := outcomes.get(digest), PartyError)}
        if errors:
            # One that stops the run in any case goes first.
            digest = min(errors, key=lambda digest: errors[digest].episode is not None)
            if errors[digest].episode is not None:
                self._left = {other: outcome for other, outcome in outcomes.items() if other != digest}
            raise errors[digest]
        replies = {digest: outcome for digest, outcome in outcomes.items() if isinstance(outcome, Reply)}
        return [replies[digest] for digest in digests]

    def figures(self) -> dict[str, float]:
        """Counts since this process began: calls (requests sent), cached, retries, failures, and tokens if reported."""
        return {name: float(count) for name, count in asdict(self._figures).items()}

    def _cached(self, wanted: dict[str, Call]) -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}
        for digest in wanted if self._cache else ():
            reply = self._cache.get(digest) if self._cache else None
            if reply is not None:
                found[digest] = reply
        self._figures.cached += len(found)
        return found
