"""A server of the chat protocol on loopback that fails as told, by itself or in front of a real one."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Name -> (status, headers, body) of an answer that is none.
BAD_ANSWERS: dict[str, tuple[int, dict[str, str], str]] = {
    "status 429": (429, {}, '{"error": {"message": "slow down"}}'),
    "status 429 with Retry-After": (429, {"Retry-After": "0.3"}, '{"error": {"message": "slow down"}}'),
    "status 500": (500, {}, "oops"),
    "status 503": (503, {}, '{"error": "no worker"}'),
    "malformed JSON": (200, {}, '{"choices": [{"mess'),
    "no JSON object": (200, {}, "[]"),
    "an error with status 200": (200, {}, '{"error": {"message": "upstream"}}'),
    "empty choices": (200, {}, '{"choices": []}'),
    "no message": (200, {}, '{"choices": [{"finish_reason": "stop"}]}'),
    "no text": (200, {}, '{"choices": [{"finish_reason": "stop", "message": {"content": null}}]}'),
    "no finish_reason": (200, {}, '{"choices": [{"message": {"content": "half"}}]}'),
}
FAULTS = [*BAD_ANSWERS, "disconnects", "is silent", "drips"]

Body = dict[str, Any]
Plan = Callable[[Body, int], str | tuple[int, dict[str, str], str] | None]


def completion(text: str, finish_reason: str = "stop", **message: Any) -> str:
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text} | message}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})


def echo(body: Body) -> str:
    """A reply that depends on the whole request."""
    return completion(f"{len(body['messages'])} {body['messages'][-1]['content']} {body.get('seed')}")


class FaultyServer:
    """Serves on a free port of loopback from `start` (or ``with``) to `stop`.

    Args:
        plan: ``(request, number of earlier requests)`` -> a fault by name or answer, or None for a good answer.
        answer: Makes good answers; an address forwards to the server there.
    """

    def __init__(self, plan: Plan = lambda body, number: None, answer: Callable[[Body], str] | str = echo):
        self.plan, self.answer = plan, answer
        self.requests: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.now, self.most = 0, 0  # requests being answered, and the most there ever were
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.on_request: Callable[[], object] = lambda: None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.http: ThreadingHTTPServer | None = None

    def start(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server._handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: Any) -> None:
                pass  # clients that hang up are what some tests are about

        self.http = Http(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.stopping.set()
        if self.http is not None:
            self.http.shutdown()
            self.http.server_close()

    def __enter__(self) -> "FaultyServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            number = len(self.requests)
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.times.append(time.monotonic())
            self.now += 1
            self.most = max(self.most, self.now)
        self.on_request()
        try:
            self._react(handler, body, self.plan(body, number))
        finally:
            with self.lock:
                self.now -= 1

    def _react(self, handler: BaseHTTPRequestHandler, body: Body, fault: Any) -> None:
        if fault is None:
            send(handler, *self._good_answer(body))
        elif fault == "disconnects":
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "is silent":
            self.stopping.wait(5)
        elif fault == "drips":
            self._drip(handler)
        else:
            send(handler, *(BAD_ANSWERS[fault] if isinstance(fault, str) else fault))

    def _good_answer(self, body: Body) -> tuple[int, dict[str, str], str]:
        if callable(self.answer):
            return 200, {}, self.answer(body)
        request = urllib.request.Request(
            f"{self.answer}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, {}, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, {}, error.read().decode()

    def _drip(self, handler: BaseHTTPRequestHandler) -> None:
        """A byte now and then: no read of the client ever times out."""
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not self.stopping.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()


def send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: str) -> None:
    data = body.encode()
    handler.send_response(status)
    for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | headers).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)
