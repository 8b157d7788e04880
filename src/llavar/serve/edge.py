"""What surrounds every request: an id, headers, one line of log, one count. Plain ASGI, so that nothing is
buffered and the going away of a client is seen by whoever answers."""

from __future__ import annotations

import logging
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any, cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llavar.serve.exposition import Exposition
from llavar.serve.refusals import Refusal

log = logging.getLogger("llavar.serve")

GONE = 499
"""The status that is logged where the client went away first (nginx's number)."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._~/%:@+-]")
_LONGEST_PATH = 100
_POLLED = ("/health", "/ready", "/metrics")
"""Machines ask these all day; what goes well is not worth a line."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""For responses that set none of their own."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What whoever answers a request adds to its line of log."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    pictures: int = 0
    gone: bool = False


def request_id(request: Request) -> str:
    return cast(str, request.scope["llavar.id"])


def tally(request: Request) -> Tally:
    return cast(Tally, request.scope["llavar.tally"])


class Edge:
    """Middleware. Neither bodies nor queries are logged, since they hold prompts."""

    def __init__(self, app: ASGIApp, *, exposition: Exposition) -> None:
        self._app, self._exposition = app, exposition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        name = asked if _ID.fullmatch(asked) else secrets.token_hex(8)
        scope["llavar.id"], scope["llavar.tally"] = name, Tally()
        started, status, sending = time.perf_counter(), 0, False

        head = scope["method"] == "HEAD"
        if head:  # as GET, without its body (RFC 9110, 9.3.2)
            scope = {**scope, "method": "GET"}

        async def noted(message: Message) -> None:
            nonlocal status, sending
            if head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), name)
            sending = True
            await send(message)
            sending = False

        try:
            await self._app(scope, receive, noted)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a sentence
            if sending:  # the server has refused the rest of a body that is no HTTP, and closed
                scope["llavar.tally"].gone = True
                return
            # Only its kind: the text of an error may hold what was asked.
            log.error("id=%s failed: %s", name, _where(error))
            if status:
                raise Broken() from None
            await Refusal(500, "the server failed on this request; its log says how").response()(
                scope, receive, noted
            )
        finally:
            self._note(scope, name, status, time.perf_counter() - started)

    def _note(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        counts = cast(Tally, scope["llavar.tally"])
        status = GONE if counts.gone or not status else status
        self._exposition.request(_route(scope), status)
        level = logging.DEBUG if _route(scope) in _POLLED and status < 400 else logging.INFO
        log.log(
            level,
            "id=%s %s %s %d %.0f ms prompt=%d completion=%d pictures=%d",
            name,
            _UNSAFE.sub("?", scope["method"][:10]),
            _UNSAFE.sub("?", scope["path"])[:_LONGEST_PATH],
            status,
            1000 * seconds,
            counts.prompt_tokens,
            counts.completion_tokens,
            counts.pictures,
        )


class Broken(Exception):
    """A response that had begun could not be finished; the connection is cut."""


def _add_headers(headers: MutableHeaders, name: str) -> None:
    headers["X-Request-ID"] = name
    for header, value in _HEADERS.items():
        headers.setdefault(header, value)


def _route(scope: Scope) -> str:
    """The route as it was declared: what clients invent must not make new time series."""
    path: Any = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "other"


def _where(error: BaseException) -> str:
    """The kind of an error and the line it came from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}{place}"
