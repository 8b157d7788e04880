"""Listening, loading, and an end that finishes what runs."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from llavar.errors import ConfigError
from llavar.generate.dialogue import Answering
from llavar.serve.connections import limited
from llavar.serve.desk import Desk

_KEEP_ALIVE = 75
"""Seconds; longer than the 60 of nginx, so that a proxy never sends into a connection that just closed."""
_MARGIN = 5.0
"""After the grace period, for the last words of answers that were given up."""
_SWITCH = 0.001
"""Seconds after which an engine's thread lets the event loop in, which has words to send and little to do."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen, resolved."""

    host: str
    port: int
    family: socket.AddressFamily
    at: tuple[Any, ...]

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ip_address(str(self.at[0]).partition("%")[0]).is_loopback


def resolve(host: str, port: int) -> Address:
    """The address of ``host``.

    Raises:
        ConfigError: there is none, or no such port.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"there is no port {port}; give 1 to 65535, or 0 for any that is free")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{host[:100]!r} is no address of this machine ({reason}); use 127.0.0.1, or 0.0.0.0 for all"
        ) from error
    family, _, _, _, at = found[0]
    return Address(host=host, port=port, family=family, at=at)


def check_exposure(address: Address, *, keys: bool, forced: bool) -> None:
    """Refuse to be open to strangers by accident.

    Raises:
        ConfigError: others reach the address and nothing asks them for a key.
    """
    if not (address.loopback or keys or forced):
        raise ConfigError(
            f"{address.host} can be reached from other machines, and without a key anybody there can use the "
            "model; give one with LLAVAR_API_KEY or --api-key-file, or force it with --unsafe-public"
        )


def bind(address: Address) -> socket.socket:
    """A socket that listens, so that nobody waits for a model to load only to hear that the port is taken.

    Raises:
        ConfigError: it cannot listen there.
    """
    # With the protocol named, asyncio sends small parts of a response at once; without it each reply waits
    # for the client's delayed acknowledgement, 40 ms.
    made = socket.socket(address.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address.at)
        made.listen(2048)  # else two servers could bind the port, and the second would fail later
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {address.port} of {address.host} is in use; stop what listens there, or give another "
                "with --port (0 takes any that is free)"
            ) from error
        raise ConfigError(
            f"cannot listen at {address.host}, port {address.port} ({error.strerror}); give an address of "
            "this machine and a port above 1023"
        ) from error
    made.setblocking(False)
    return made


def url_of(address: Address, listener: socket.socket) -> str:
    """What to type into a browser on this machine; for an address that means all, its loopback one."""
    port = cast(int, listener.getsockname()[1])
    own = ip_address(str(address.at[0]).partition("%")[0])
    host = address.host
    if own.is_unspecified:
        host = "127.0.0.1" if own.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


Loader = Callable[[], Mapping[str, Answering]]


def serve(
    app: FastAPI,
    listener: socket.socket,
    models: dict[str, Answering],
    load: Loader,
    *,
    ready: Callable[[], None],
    grace: float = 30.0,
) -> None:
    """Answer until a signal or :meth:`Server.stop`, then finish what runs for up to ``grace`` seconds.

    The server listens at once and is not ready until ``load`` has returned in a thread; what that gives goes
    into ``models``, of which ``app`` was built. ``ready`` is called then. SIGINT or SIGTERM ends it in good
    order, and a second one at once.

    Raises:
        LlavarError: loading failed.
    """
    Server(app, models, grace=grace).answer(listener, load, ready)


class Server(uvicorn.Server):
    """uvicorn, with engines to load and to close."""

    def __init__(self, app: FastAPI, models: dict[str, Answering], *, grace: float) -> None:
        settings = cast(Desk, app.state.desk).settings
        super().__init__(
            uvicorn.Config(
                app,
                http=limited(settings.connections, settings.head_seconds),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,  # it would write queries
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=int(grace + _MARGIN),
            )
        )
        self._desk, self._models, self._grace = cast(Desk, app.state.desk), models, grace
        self._lock = threading.Lock()
        self._closers: list[threading.Thread] = []
        self._failure: Exception | None = None
        self._signalled = False

    def answer(self, listener: socket.socket, load: Loader, ready: Callable[[], None]) -> None:
        """As :func:`serve`."""
        loading = threading.Thread(target=self._load, args=(load, ready), name="loading", daemon=True)
        loading.start()
        before = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH)
        try:
            self.run(sockets=[listener])
        finally:
            sys.setswitchinterval(before)
            listener.close()
            self.stop()
            for closer in self._closers:
                closer.join()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Begin the end; from any thread, any number of times."""
        with self._lock:
            self.should_exit = True
            if not self._desk.closing:
                self._desk.closing = True
                for model in self._models.values():
                    self._close(model)

    def _close(self, model: Answering) -> None:
        """In a thread, since it waits for what runs; whoever waits for that goes on meanwhile."""
        closer = threading.Thread(target=model.close, args=(self._grace,), name=f"closing {model.name}")
        closer.start()
        self._closers.append(closer)

    def _load(self, load: Loader, ready: Callable[[], None]) -> None:
        try:
            loaded = load()
            with self._lock:
                self._models.update(loaded)
                if self._desk.closing:  # nobody wants them any more
                    for model in loaded.values():
                        self._close(model)
                    return
            ready()
        except Exception as error:  # noqa: BLE001 - raised again by whoever started the server
            self._failure = error
            self.stop()

    # ------------------------------------------------------------------------------------------- signals

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Ours instead of uvicorn's, which wants SIGINT to end at once and raises the first one again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        del frame
        if self._signalled:
            sys.stdout.flush()
            os._exit(128 + sig)  # at once, whatever the engine is at
        self._signalled = True
        # In a thread: the lock may be held by what this signal interrupted.
        threading.Thread(target=self.stop, name="stopping").start()
