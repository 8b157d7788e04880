"""One request for answers: its body, its pictures, its tokens."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from typing import TypeVar

from fastapi import Request
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from llavar.errors import LlavarError
from llavar.serve import questions
from llavar.serve.desk import Desk
from llavar.serve.edge import request_id, tally
from llavar.serve.failures import note
from llavar.serve.refusals import Refusal, malformed, refused
from llavar.serve.replies import Reply
from llavar.serve.running import Run
from llavar.serve.schema import ChatRequest, Completion
from llavar.serve.settings import Settings

Body = TypeVar("Body", bound=BaseModel)

_PING_SECONDS = 15.0
_MARGIN = 30.0
_LONG = 2**16
"""A body of more bytes is read as JSON in a thread."""


async def read(request: Request, kind: type[Body], settings: Settings, take: Callable[[int], None]) -> Body:
    """The body of a request, of which no more than the limit is ever held. ``take`` is told of each part.

    Raises:
        Refusal: it is too long, is not JSON of that form, or does not arrive.
    """
    given = request.headers.get("content-type", "")
    if given.split(";")[0].strip().lower() != "application/json":
        raise Refusal(415, f"the body is {given[:80] or 'of no type'}; send JSON as application/json")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise Refusal(415, f"the body is compressed ({coding[:40]}); send it as it is")
    data = await _received(request, settings, take)
    try:
        if len(data) > _LONG:
            return await asyncio.to_thread(kind.model_validate_json, data)
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise malformed(error) from None  # the chain would hold the body


async def _received(request: Request, settings: Settings, take: Callable[[int], None]) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > settings.max_body_bytes:
        raise _too_long(settings)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.upload_seconds):
            async for chunk in request.stream():  # not body(), which would keep it to the end
                if len(body) + len(chunk) > settings.max_body_bytes:
                    raise _too_long(settings)
                take(len(chunk))
                body += chunk
    except TimeoutError:
        raise Refusal(
            408,
            f"the body was not here after {settings.upload_seconds:g} s, the limit; send less, or faster",
            headers={"Connection": "close"},
        ) from None
    return bytes(body)


def _too_long(settings: Settings) -> Refusal:
    return Refusal(
        413,
        f"the body is longer than {settings.max_body_bytes:,} bytes, the limit; send smaller pictures",
        headers={"Connection": "close"},  # the rest of it is not read
    )


class Handling:
    """From the check of a request to its last token. :meth:`cancel` it at the end, whatever that is."""

    def __init__(self, desk: Desk, request: Request, chat: ChatRequest) -> None:
        self._desk, self._tally, self._id = desk, tally(request), request_id(request)
        self._started = time.perf_counter()
        self._name, self._model = desk.find(chat.model)
        self._usage = bool(chat.stream_options and chat.stream_options.include_usage)
        self._run: Run | None = None
        self._streaming = False
        self._reply = Reply(
            id=f"chatcmpl-{secrets.token_hex(12)}",
            model=self._name,
            created=int(time.time()),
            n=min(chat.n or 1, desk.settings.max_n),  # more is refused, but only by start()
            logprobs=bool(chat.logprobs),
        )

    def cancel(self) -> None:
        """Give up what is not finished. A stream that is not has lost its reader."""
        if self._run is not None:
            self._run.cancel()
        self._tally.gone = self._tally.gone or self._streaming

    async def start(self, chat: ChatRequest) -> None:
        """Open the pictures and queue the answers.

        Raises:
            Refusal: the request cannot be answered, or not now.
        """
        asked = await questions.asked(chat, self._model, self._desk.settings, self._desk.intake)
        self._tally.pictures = questions.pictures(asked[0])
        seconds, whole = self._desk.settings.timeout, not chat.stream
        self._run = Run(self._model, asked, timeout=seconds, whole=whole)
        try:
            await self._run.start()
        except LlavarError as error:
            self._desk.find(self._name)  # which says so if the model has failed
            raise refused(error, closing=self._desk.closing, param="messages") from error

    async def whole(self) -> Completion:
        """Everything at once, after :meth:`start`.

        Raises:
            Refusal: an answer failed.
        """
        assert self._run is not None
        async for found in self._run.pieces():
            if found:
                self._note(found[1].completion_tokens)
                self._reply.add(*found)
        self._finish()
        return self._reply.completion

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events, after :meth:`start`. A failure becomes one too, since the status is sent."""
        assert self._run is not None
        self._streaming = True
        try:
            async for found in self._run.pieces(idle=_PING_SECONDS):
                if found is None:
                    yield b": ping\n\n"  # so that proxies keep the connection
                    continue
                self._note(found[1].completion_tokens)
                for chunk in self._reply.chunks(*found):
                    yield _event(chunk.model_dump_json())
        except Refusal as refusal:
            note(self._id, refusal)
            yield _event(refusal.document.model_dump_json())
            self._streaming = False
            return
        self._finish()
        if self._usage:
            yield _event(self._reply.last_chunk().model_dump_json())
        yield _event("[DONE]")
        self._streaming = False

    def _note(self, tokens: int) -> None:
        if tokens and not self._tally.completion_tokens:
            self._tally.completion_tokens = tokens
            self._desk.exposition.first_token(self._name, time.perf_counter() - self._started)

    def _finish(self) -> None:
        usage = self._reply.usage
        self._tally.prompt_tokens = usage.prompt_tokens
        self._tally.completion_tokens = usage.completion_tokens
        self._desk.exposition.answered(self._name, time.perf_counter() - self._started)


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


class Events(EventSourceResponse):
    """A stream that gives back what it holds however it ends.

    A client that stops reading is let go ``_MARGIN`` after ``seconds``, which is when its answer has ended or
    been given up.
    """

    def __init__(self, events: AsyncIterator[bytes], held: ExitStack, *, seconds: float) -> None:
        super().__init__(events, headers={"X-Accel-Buffering": "no"})  # nginx would hold events back
        self._held, self._seconds = held, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held, suppress(TimeoutError):  # uvicorn closes the connection of what is not complete
            async with asyncio.timeout(self._seconds + _MARGIN):
                await super().__call__(scope, receive, send)
