"""Answers under way: from an engine's thread to the event loop, and given up when nobody waits any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request

from llavar.errors import LlavarError
from llavar.generate.dialogue import Answering, Asked, Finish, Piece, Ticket
from llavar.serve.refusals import Refusal, refused

T = TypeVar("T")


class Gone(Exception):
    """The client went away before its answer."""


class Run:
    """The answers to one request, as they come. All of them are queued or none; :meth:`cancel` ends them.

    Where ``whole`` answers are wanted, what follows the first piece of each comes at once with its end, so
    that the event loop is not woken for every token.
    """

    def __init__(
        self, model: Answering, asked: Sequence[Asked], *, timeout: float, whole: bool = False
    ) -> None:
        self._model, self._asked, self._timeout = model, asked, timeout
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + timeout
        self._pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._lock = threading.Lock()
        self._tickets: list[Ticket] = []
        self._over = False
        self._left = len(asked)
        self._held: list[list[Piece]] | None = [[] for _ in asked] if whole else None

    async def start(self) -> None:
        """Queue the answers. Counting the tokens of a prompt may take a while, so it happens in a thread.

        Raises:
            LlavarError: as of :meth:`llavar.generate.dialogue.Answering.submit`.
        """
        await asyncio.to_thread(self._submit)
        self._asked = ()  # holds pictures

    def cancel(self) -> None:
        """Give up what is not finished; from any thread, any number of times."""
        with self._lock:
            self._over = True
            tickets = list(self._tickets)
        for ticket in tickets:
            ticket.cancel()

    async def pieces(self, *, idle: float | None = None) -> AsyncIterator[tuple[int, Piece] | None]:
        """(index of the answer, piece) until all have ended; None when ``idle`` seconds brought nothing.

        Raises:
            Refusal: an answer failed, was cancelled by the engine, or took too long.
        """
        while self._left:
            wait = self._deadline - self._loop.time()
            try:
                async with asyncio.timeout(wait if idle is None else min(wait, idle)):
                    index, piece = await self._pieces.get()
            except TimeoutError:
                if self._loop.time() < self._deadline:
                    yield None
                    continue
                raise self._late() from None
            self._check(piece)
            self._left -= piece.finish is not None
            yield index, piece

    def _submit(self) -> None:
        for index, asked in enumerate(self._asked):
            try:
                ticket = self._model.submit(asked, partial(self._take, index))
            except BaseException:
                self.cancel()
                raise
            with self._lock:
                self._tickets.append(ticket)
                over = self._over
            if over:  # given up while this thread was counting tokens
                ticket.cancel()
                return

    def _take(self, index: int, piece: Piece) -> None:
        """From the engine's thread."""
        if self._held is not None:
            held = self._held[index]
            held.append(piece)
            if piece.finish is None and len(held) > 1:
                return
            if len(held) > 1:
                piece = _joined(held[1:])
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, (index, piece))
        except RuntimeError:  # the loop has closed, and the server with it
            self.cancel()

    def _check(self, piece: Piece) -> None:
        if piece.finish is Finish.ERROR:
            error = piece.error or LlavarError("it gave no reason")
            raise refused(error, closing=not self._model.alive()) from error
        if piece.finish is Finish.CANCELLED:
            raise Refusal(
                503,
                "the server is shutting down and gave up the answer; send the request again later",
                headers={"Retry-After": "5"},
            )

    def _late(self) -> Refusal:
        return Refusal(
            503,
            f"the answer was not complete after {self._timeout:g} s, the limit; ask for fewer tokens, or "
            "again when the server is less busy",
            code="timeout",
            headers={"Retry-After": "5"},
        )


def _joined(pieces: Sequence[Piece]) -> Piece:
    """Pieces of an answer that followed each other as one."""
    return replace(
        pieces[-1],
        text="".join(piece.text for piece in pieces),
        chances=tuple(chance for piece in pieces for chance in piece.chances),
    )


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled if the client goes away first.

    The request's body must have been read: what comes after it can only be the end of the connection.

    Raises:
        Gone: the client went away.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
