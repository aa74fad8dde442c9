"""One model at one address, asked once."""

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lit_rl.parties import Call
from lit_rl.remote.answers import Answer, read_answer
from lit_rl.remote.failures import bad_status, no_answer, no_connection
from lit_rl.remote.settings import RemoteSettings

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class Endpoint:
    """Asks a model through the ``openai`` client, whose own retries are off.

    Args:
        base_url: Up to and without ``/chat/completions``.
        model: As the server calls it.
        key_variable: Environment variable with the key; it is read when it is needed and kept nowhere.
        timeout: Seconds for one request, from the connection to the last byte.

    Raises:
        ValueError: The address is none, or the variable is unset.
    """

    def __init__(self, base_url: str, model: str, key_variable: str | None, settings: RemoteSettings, timeout: float):
        if not model:
            raise ValueError("RemoteParty.model is empty; give the name the server knows the model by.")
        self.base_url, self.model, self.key_variable = _checked_url(base_url), model, key_variable
        self.settings, self.timeout = settings, timeout
        self._key()

    def __str__(self) -> str:
        return f"{self.base_url} (model {self.model!r})"

    def client(self) -> "AsyncOpenAI":
        """A client for one event loop; use it as a context manager."""
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=self.base_url, api_key=self._key(), max_retries=0, timeout=self.timeout)

    async def ask(self, client: "AsyncOpenAI", call: Call) -> Answer:
        """One request.

        Raises:
            RequestFailure: It brought no reply.
        """
        import anyio
        import openai

        create = client.chat.completions.with_raw_response.create
        try:
            # The client's timeout holds for each packet, so a server that drips would never end.
            with anyio.fail_after(self.timeout):
                raw = await create(model=self.model, **self.settings.request(call))
        except (TimeoutError, openai.APITimeoutError) as error:
            raise no_answer(self.timeout) from error
        except openai.APIConnectionError as error:
            raise no_connection(error) from error
        except openai.APIStatusError as error:
            raise bad_status(error) from error
        return read_answer(raw.text)

    def without_key(self, sentence: str) -> str:
        """The sentence without the key, which a server may have repeated."""
        return sentence.replace(self._key(), "***") if self.key_variable else sentence

    def _key(self) -> str:
        if self.key_variable is None:
            return "none"  # the client insists on one, and would take OPENAI_API_KEY otherwise
        key = os.environ.get(self.key_variable, "").strip()
        if not key or not key.isascii():
            raise ValueError(
                f"RemoteParty.api_key_variable: the environment variable {self.key_variable} is unset or holds no key; "
                "export it, or give null for a server without keys."
            )
        return key


def _checked_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        valid = False
    if not valid or parts.query or parts.fragment or any(c.isspace() for c in base_url):
        raise ValueError(f"RemoteParty.base_url is {base_url!r}; give an address such as 'http://localhost:8000/v1'.")
    if parts.username or parts.password:
        raise ValueError("RemoteParty.base_url holds a user or password; name a variable in api_key_variable instead.")
    if parts.path.rstrip("/").endswith("/completions"):
        raise ValueError(f"RemoteParty.base_url is {base_url!r}; leave out '/chat/completions', which is added.")
    return base_url.rstrip("/")
