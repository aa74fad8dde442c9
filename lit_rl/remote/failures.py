"""Why a request brought no reply, and whether to ask again."""

import json
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openai

_BUSY = (408, 409, 425, 429)
_THIS_CALL_ONLY = (400, 413, 422)  # a prompt that is too long, say: other calls may be well
_ADVICE = {
    400: "Look at the settings, extra_body and the length of the conversation",
    401: "Check the key in the variable that api_key_variable names",
    402: "Check the account that the key belongs to",
    403: "Check what the key in the variable that api_key_variable names is allowed to do",
    404: "Check model, and base_url, which mostly ends in /v1",
    422: "Look at the settings and extra_body",
}
_MOST_WORDS = 300


class RequestFailure(Exception):
    """A request brought no reply.

    Args:
        what: A sentence without its end, which follows the name of the endpoint.
        retry: The same request may be answered later.
        wait: Seconds the server asked to wait.
        every_call: Any other request would fail too.
    """

    def __init__(self, what: str, *, retry: bool = False, wait: float = 0.0, every_call: bool = False):
        super().__init__(what)
        self.what, self.retry, self.wait, self.every_call = what, retry, wait, every_call


def no_answer(seconds: float) -> RequestFailure:
    """Of a request that took too long."""
    return RequestFailure(f"gave no answer within {seconds:g} s", retry=True)


def no_connection(error: Exception) -> RequestFailure:
    """Of a connection that was refused or broke."""
    return RequestFailure(f"could not be reached or broke off ({error.__cause__ or error})", retry=True)


def bad_status(error: "openai.APIStatusError") -> RequestFailure:
    """Of an answer that is an error."""
    status, code, said = error.status_code, error.code, _words(error.body or error.response.text)
    what = f"answered with status {status}: {said}"
    if code == "content_filter":
        return RequestFailure(f"refused by its content filter: {said}")
    if status >= 500 or (status in _BUSY and code != "insufficient_quota"):
        return RequestFailure(what, retry=True, wait=retry_after(error.response.headers))
    if status in _ADVICE:
        what += f". {_ADVICE[status]}"
    return RequestFailure(what, every_call=status not in _THIS_CALL_ONLY)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a ``Retry-After`` of either form (seconds, a date) asks to wait; 0 without a readable one."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(0.0, seconds) if not math.isnan(seconds) else 0.0


def _words(body: Any) -> str:
    """What an error body says to people; servers nest it in different ways."""
    while isinstance(body, dict):
        body = next((body[key] for key in ("error", "message", "detail") if body.get(key)), json.dumps(body))
    text = " ".join(str(body).split()).rstrip(".") or "nothing more"
    return text if len(text) <= _MOST_WORDS else text[:_MOST_WORDS] + " ..."
