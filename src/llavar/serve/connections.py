"""Connections that ask for nothing: how many there may be, and for how long.

uvicorn waits for ever for the first byte of a request, and for the last one of its headers.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

_FULL = (
    b'{"error":{"message":"as many connections are open as may; connect again later",'
    b'"type":"server_error","param":null,"code":"unavailable"}}'
)
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_FULL), _FULL)
)
_SPARE = 128
"""Files of the process that are no connections."""


class Connection(H11Protocol):
    """uvicorn's, with two limits; made by :func:`limited`."""

    most = 1024
    head_seconds = 20.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.write(_REFUSAL)
            transport.close()
            return
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._busy:
            self._stop_waiting()  # a request is in hand, and has limits of its own
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._stop_waiting()
        super().on_response_complete()
        if not self._busy and (self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]):
            self._wait()  # for the rest of a body that nobody wanted, or of the next request

    @property
    def _busy(self) -> bool:
        cycle = cast(Any, self.cycle)
        return cycle is not None and not cycle.response_complete

    def _wait(self) -> None:
        """Give up some time after the first wait; what trickles in meanwhile does not put that off."""
        if self._patience is None:
            self._patience = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def limited(connections: int, head_seconds: float) -> type[Connection]:
    """The class of connections of one server: at most so many, or as many as the system grants files for.

    ``head_seconds`` are for the first line and the headers of a request.
    """
    most = min(connections, max(1, _files() - _SPARE))
    return type("Connection", (Connection,), {"most": most, "head_seconds": head_seconds})


def _files() -> int:
    try:
        import resource
    except ImportError:  # not on Windows
        return 2**31
    granted = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**31 if granted == resource.RLIM_INFINITY else granted
