"""What every route shares: the models, who may ask, how many are asking, and whether the server is open."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

from llavar.generate.dialogue import Answering
from llavar.serve.exposition import Exposition
from llavar.serve.questions import Opens
from llavar.serve.refusals import Refusal
from llavar.serve.settings import Settings

_SHOWN = 100
_SOON = {"Retry-After": "1"}
_LATER = {"Retry-After": "5"}


class Desk:
    """The state of one server. ``models`` may grow while it runs: those still missing are being loaded."""

    def __init__(self, models: Mapping[str, Answering], settings: Settings, intake: Opens) -> None:
        self.models, self.settings, self.intake = models, settings, intake
        self.exposition = Exposition(models)
        self.created = int(time.time())
        self.closing = False
        self._open = self._turns = self._bytes = 0
        self._keys = tuple(hashlib.sha256(key.encode()).digest() for key in settings.keys)

    # ------------------------------------------------------------------------------------------ who may ask

    def check_key(self, key: str | None) -> None:
        """Raise a 401 unless ``key`` is one of the keys, or none is needed. Takes equally long for any."""
        if not self._keys:
            return
        given = hashlib.sha256((key or "").encode()).digest()
        if not sum(hmac.compare_digest(given, known) for known in self._keys):
            what = "the API key is not one of this server's" if key else "this server wants an API key"
            raise Refusal(
                401,
                f"{what}; send it in the header 'Authorization: Bearer KEY'",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def check_origin(self, request: Request) -> None:
        """Raise a 403 for a browser on a page from elsewhere, where nothing else would stop it."""
        origin = request.headers.get("origin")
        allowed = self.settings.origins
        if not self.settings.local_pages_only or origin is None or origin in allowed or "*" in allowed:
            return
        if not _is_here(origin):
            raise Refusal(
                403,
                f"pages from {origin[:_SHOWN]!r} may not ask this server; allow them with --allow-origin",
            )

    @contextmanager
    def place(self) -> Generator[None]:
        """One of the places for open requests, for as long as it takes.

        Raises:
            Refusal: the server is closing, or there are too many; better said before a body is read.
        """
        if self.closing:
            raise Refusal(503, "the server is shutting down; send the request again later", headers=_LATER)
        loads = [model.load() for model in list(self.models.values())]
        if loads and all(load.waiting >= load.may_wait > 0 for load in loads):
            waiting = sum(load.waiting for load in loads)
            raise Refusal(
                429, f"{waiting} answers wait, as many as may; send the request again later", headers=_SOON
            )
        if self._open >= self.settings.open_requests:
            raise Refusal(
                429, f"{self._open} requests are open, as many as may; send it again later", headers=_SOON
            )
        self._open += 1
        self.exposition.open.set(self._open)
        try:
            yield
        finally:
            self._open -= 1
            self.exposition.open.set(self._open)

    @contextmanager
    def body(self) -> Generator[Callable[[int], None]]:
        """Room for the body of a request: what it gives is called with the length of each part that came.

        Raises:
            Refusal: by that call, where the bodies of all requests together get too long.
        """
        taken = 0

        def take(length: int) -> None:
            nonlocal taken
            if self._bytes + length > self.settings.max_bodies_bytes:
                raise Refusal(
                    429,
                    f"the requests that are being read hold {self.settings.max_bodies_bytes:,} bytes, the "
                    "limit of all together; send it again later",
                    headers=_SOON | {"Connection": "close"},  # the rest of it is not read
                )
            self._bytes += length
            taken += length

        try:
            yield take
        finally:
            self._bytes -= taken

    @contextmanager
    def turn(self) -> Generator[None]:
        """The right to have pictures opened and answers queued, for as long as it takes.

        There are as many as answers that run and wait. Else requests would pile up before the queue, wait
        longer than the queue explains, and be refused after their pictures were opened.

        Raises:
            Refusal: there are too many.
        """
        loads = [model.load() for model in list(self.models.values())]
        if loads and self._turns >= sum(load.slots + load.may_wait for load in loads):
            raise Refusal(
                429, f"{self._turns} requests are in hand, as many as may; send it again later", headers=_SOON
            )
        self._turns += 1
        try:
            yield
        finally:
            self._turns -= 1

    # ------------------------------------------------------------------------------------------- the models

    @property
    def names(self) -> tuple[str, ...]:
        """All models that are or will be served."""
        return self.settings.names or tuple(self.models)

    def find(self, name: str | None) -> tuple[str, Answering]:
        """The model called ``name``, or the only one.

        Raises:
            Refusal: there is none of that name, it is not loaded yet, or has failed.
        """
        names = self.names
        if name is None and len(names) > 1:
            raise Refusal(
                400, f"the request names no model; this server has {', '.join(names)}", param="model"
            )
        wanted = name if name is not None else next(iter(names), "")
        found = self.models.get(wanted)
        if found is None and wanted in names:
            raise Refusal(
                503, f"the model {wanted!r} is being loaded; send the request again later", headers=_LATER
            )
        if found is None:
            raise Refusal(
                404,
                f"there is no model {wanted[:_SHOWN]!r} here; this server has {', '.join(names) or 'none'}",
                param="model",
                code="model_not_found",
            )
        if not found.alive() and not self.closing:
            raise Refusal(
                503, f"the model {wanted!r} cannot answer any more; restart the server", headers=_LATER
            )
        return wanted, found

    def check_ready(self) -> None:
        """Raise a 503 unless every model can answer."""
        if self.closing:
            raise Refusal(503, "the server is shutting down", headers=_LATER)
        if not self.names:
            raise Refusal(503, "no model is loaded", headers=_LATER)
        for name in self.names:
            self.find(name)  # raises for one that is not there or has failed


def _is_here(origin: str) -> bool:
    """Whether a page comes from this machine. A name that only resolves to it does not count."""
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
