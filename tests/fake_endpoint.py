"""A local server that speaks the protocol of chat completions and answers by a script.

Tests get it by the fixture ``fake_endpoint``: ``server = fake_endpoint.serve([...])``. A script is a list of
answers (given one after another, the last for ever) or a function from the request to an answer.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes over the wire. ``cut`` closes the connection in the middle of the body."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """The words of the last message."""
        content = self.body["messages"][-1]["content"]
        if isinstance(content, str):
            return content
        return "".join(part["text"] for part in content if part["type"] == "text")


Script = Sequence[Answer] | Callable[[Asked], Answer]


def say(text: str | None, *, model: str = "scripted-1", finish: str = "stop", usage: bool = True) -> Answer:
    """A successful reply of 10 tokens."""
    document: dict[str, Any] = {
        "model": model,
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
    }
    if usage:
        document["usage"] = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return Answer(body=json.dumps(document).encode(), headers={"Content-Type": "application/json"})


def refuse(status: int, message: str = "", *, code: str = "", retry_after: str = "") -> Answer:
    """An error in OpenAI's format."""
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    return Answer(status=status, body=body, headers={"Retry-After": retry_after} if retry_after else {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that is gone is part of the test
            super().handle_error(request, client_address)


class FakeEndpoint:
    """The server, on a free port of this machine; ``requests`` holds what it was asked."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._lock = threading.Lock()
        self.requests: list[Asked] = []
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            number = len(self.requests)
            self.requests.append(asked)
        if callable(self._script):
            return self._script(asked)
        return self._script[min(number, len(self._script) - 1)]

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Farm:
    """What the fixture gives: makes servers and stops them all. The answers' makers are at hand too."""

    Answer, Asked = Answer, Asked
    say, refuse = staticmethod(say), staticmethod(refuse)

    def __init__(self) -> None:
        self._servers: list[FakeEndpoint] = []

    def serve(self, script: Script) -> FakeEndpoint:
        server = FakeEndpoint(script)
        self._servers.append(server)
        return server

    def close(self) -> None:
        for server in self._servers:
            server.close()


def _handler(endpoint: FakeEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = endpoint.answer(Asked(path=self.path, headers=dict(self.headers), body=body))
            endpoint.closing.wait(answer.delay)
            try:
                self._send(answer)
            except OSError:
                self.close_connection = True  # the client did not wait

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
            self.close_connection = answer.cut

        def log_message(self, format: str, *args: Any) -> None: ...

    return Handler
