"""Pictures that strangers name in requests: ``data:`` URLs, and URLs of domains that were allowed.

Nothing else is ever opened: no path, no other scheme, no address that is not public. What is wrong with a
picture is said in one sentence that never repeats the picture.
"""

from __future__ import annotations

import asyncio
import binascii
import gc
import itertools
import os
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from llavar import images, net
from llavar.errors import ConfigError, FetchError, ImageError
from llavar.generate.dialogue import BusyError
from llavar.serve import memory

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}(?=:)")
_LABEL = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_DOMAIN = re.compile(rf"\.?{_LABEL}(\.{_LABEL})*|[0-9a-f.]*:[0-9a-f:.]+")
_MEDIA_TYPE = re.compile(r"[a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,60}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MOST_HEADER = 200
"""Characters before the comma of a data URL."""
_MOST_REDIRECTS = 3
_MOST_DECODERS = 4
_MOST_OPEN = 2
"""As many times the pixels of the largest picture may be open, of all requests together."""
_LARGE = 8_000_000
_TIDY_SECONDS = 3.0
_POLL = 0.005
_PATIENT = 20
"""Looks for room, 0.1 s, before the garbage collector is asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPolicy:
    """Which pictures are taken, and at what cost."""

    domains: tuple[str, ...] = ()
    """Hosts that pictures are fetched from: ``example.org`` is that host, ``.example.org`` all below it."""
    max_bytes: int = 20 * 2**20
    """Length of a picture's file."""
    max_pixels: int = 50_000_000
    """Width times height, by the header of the file."""
    seconds: float = 20.0
    """For one picture, the wait for its turn included."""
    fetches: int = 8
    """Pictures that are fetched at a time."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "seconds", "fetches"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"MediaPolicy.{name} is {getattr(self, name)}, but must be greater than 0.")
        for domain in self.domains:
            if not _DOMAIN.fullmatch(domain.lower()):
                raise ConfigError(
                    f"{domain[:100]!r} is no domain that pictures can be allowed from; give a host alone, as "
                    "example.org, or .example.org for all below it."
                )

    @property
    def taken(self) -> str:
        """What a request may name, for a sentence."""
        listed = f" or an http(s) URL at {', '.join(self.domains)}" if self.domains else ""
        return f"a data URL (data:image/png;base64,...){listed}"


class Fetch(Protocol):
    """:func:`llavar.net.fetch`, or what stands in for it."""

    def __call__(self, url: str, *, policy: net.FetchPolicy) -> net.Fetched: ...


class Intake:
    """Opens the pictures of requests, a bounded number at a time, without holding up the event loop.

    A request that is cancelled or runs out of time is let go at once. Its thread goes on until the fetch or
    the decoder ends by its own limits, and counts as busy until then, so that cancelled requests never make
    more threads than there may be. (The threads that anyio abandons are not counted any more.)
    """

    def __init__(self, policy: MediaPolicy, *, fetch: Fetch = net.fetch) -> None:
        self._policy, self._fetch = policy, fetch
        self._limits = images.Limits(max_pixels=policy.max_pixels, max_bytes=policy.max_bytes)
        self._fetch_policy = net.FetchPolicy(
            max_bytes=policy.max_bytes,
            total_seconds=policy.seconds,
            connect_seconds=min(5.0, policy.seconds),
            max_redirects=_MOST_REDIRECTS,
            hosts=policy.domains,
        )
        # Two pools, so that slow hosts never hold up pictures that are here already.
        self._fetching = ThreadPoolExecutor(policy.fetches, "llavar-fetch")
        self._decoding = ThreadPoolExecutor(min(_MOST_DECODERS, os.cpu_count() or 1), "llavar-picture")
        self._tidying = False
        self._room = _Room(_MOST_OPEN * policy.max_pixels, policy.seconds)

    async def open(self, url: str) -> Image.Image:
        """The picture at ``url`` as 8-bit RGB, upright.

        Raises:
            ConfigError: a URL of a kind or at a host that pictures are not taken from.
            ImageError: no sound data URL, no picture, or beyond a limit.
            FetchError: the host does not give the picture, or leads elsewhere.
            BusyError: the intake is closed, or too many large pictures are open.
        """
        found = _SCHEME.match(url.lstrip())
        scheme = found[0].lower() if found else ""
        if scheme == "data":
            _check_length(len(url) - _MOST_HEADER, 3 * self._policy.max_bytes, self._policy)
            return await self._in_time(self._open(lambda: _data(url, self._policy)), BusyError)
        _check_named(url, scheme, self._policy)
        return await self._in_time(self._fetched(url), FetchError)

    def close(self) -> None:
        """Open nothing more. Threads end with what they are at."""
        for pool in (self._fetching, self._decoding):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _fetched(self, url: str) -> Image.Image:
        fetch = self._fetch
        found = await self._in_thread(self._fetching, lambda: fetch(url, policy=self._fetch_policy))
        return await self._open(lambda: found.data)

    async def _open(self, data: Callable[[], bytes]) -> Image.Image:
        image = await self._in_thread(self._decoding, lambda: self._room.held(data, self._limits))
        if image.width * image.height >= _LARGE and not self._tidying:
            self._tidying = True
            loop = asyncio.get_running_loop()
            loop.call_later(_TIDY_SECONDS, self._tidy, loop)
        return image

    def _tidy(self, loop: asyncio.AbstractEventLoop) -> None:
        """Some time after large pictures, when their requests have let go of them."""
        self._tidying = False
        with suppress(RuntimeError):  # closed meanwhile
            loop.run_in_executor(self._decoding, _give_back)

    async def _in_thread(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            under_way = asyncio.get_running_loop().run_in_executor(pool, work)
        except RuntimeError as error:  # the pool takes nothing after close()
            raise BusyError("The server is shutting down; send the request again later.") from error
        return await under_way

    async def _in_time(self, opening: Coroutine[object, object, T], kind: type[Exception]) -> T:
        try:
            async with asyncio.timeout(self._policy.seconds):
                return await opening
        except TimeoutError as error:
            raise kind(
                f"The picture was not open after {self._policy.seconds:g} s, the limit; send a smaller one, "
                "or again when the server is less busy."
            ) from error


def _give_back() -> None:
    """Give back what large pictures took; of failed requests, cycles hold them."""
    gc.collect()
    memory.give_back()


class _Room:
    """How many pixels are open at a time, wherever the pictures are by now.

    A file of fifty kilobytes can hold fifty million pixels, and every request may bring one. A picture counts
    until nobody refers to it any more. ``most`` may be exceeded by what the decoders are at.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._lock = threading.Lock()
        self._taken = 0
        self._freed: deque[int] = deque()
        """Filled by finalizers, which may run anywhere, also where a lock is held: they take none."""

    def held(self, data: Callable[[], bytes], limits: images.Limits) -> Image.Image:
        """The picture in what ``data`` gives, opened as soon as there is room. For threads of the intake."""
        self._wait()
        image = _opened(data(), limits)
        pixels = image.width * image.height
        with self._lock:
            self._taken += pixels
        weakref.finalize(image, self._freed.append, pixels).atexit = False
        return image

    def _wait(self) -> None:
        end = time.monotonic() + self._seconds
        for tries in itertools.count():
            if self._open() < self._most:
                return
            if time.monotonic() > end:
                raise BusyError("As many large pictures are open as fit into memory; send the request again.")
            if tries == _PATIENT:
                gc.collect()  # requests that failed leave cycles behind, with their pictures in them
            time.sleep(_POLL)

    def _open(self) -> int:
        with self._lock:
            while self._freed:
                self._taken -= self._freed.popleft()
            return self._taken


# ------------------------------------------------------------------------------------------- what is taken


def _check_named(url: str, scheme: str, policy: MediaPolicy) -> None:
    """Raise unless this is an http(s) URL at an allowed host. Nothing has been asked of the network yet."""
    if not scheme:
        raise ConfigError(
            f"The picture is given as {len(url):,} characters that are no URL; "
            f"this server takes {policy.taken}."
        )
    if scheme not in ("http", "https"):
        raise ConfigError(f"The picture's URL begins with '{scheme}:'; this server takes {policy.taken}.")
    host = net.host_of(url)
    if not policy.domains:
        raise ConfigError(
            f"This server fetches no pictures, and this one is at {host[:100]}; send it as {policy.taken}, "
            "or name the domain with --allow-domain when the server is started."
        )
    if not net.is_listed(host, policy.domains):
        raise ConfigError(f"Pictures are not fetched from {host[:100]}; this server takes {policy.taken}.")


def _data(url: str, policy: MediaPolicy) -> bytes:
    """What a data URL holds (RFC 2397), as base64 or percent-encoded; its length is checked first."""
    text = url.lstrip()[len("data:") :]
    comma = text.find(",", 0, _MOST_HEADER)
    if comma < 0:
        raise ImageError(
            "The picture's data URL has no comma before its data; give data:image/png;base64,..."
        )
    kind, *parameters = (part.strip().lower() for part in text[:comma].split(";"))
    if not kind.startswith("image/") or not _MEDIA_TYPE.fullmatch(kind):
        named = f"of the type {kind}" if _MEDIA_TYPE.fullmatch(kind) else "of no type that can be read"
        raise ImageError(
            f"The picture's data URL is {named}; give image/png, image/jpeg or another image type."
        )
    body = text[comma + 1 :]
    if "base64" in parameters[-1:]:
        return _from_base64(_from_percent(body, 3 * policy.max_bytes, policy), policy)
    return _from_percent(body, policy.max_bytes, policy)


def _from_percent(body: str, most: int, policy: MediaPolicy) -> bytes:
    _check_length(len(body) - 2 * body.count("%"), most, policy)
    if not body.isascii() or _BROKEN_PERCENT.search(body):
        raise ImageError(
            "The picture's data URL holds characters that no URL has, or a broken %; "
            "encode its data as base64."
        )
    return unquote_to_bytes(body)


def _from_base64(text: bytes, policy: MediaPolicy) -> bytes:
    text = text.translate(None, b" \t\r\n")  # base64(1) and MIME break lines
    _check_length(len(text) // 4 * 3, policy.max_bytes + 2, policy)
    # a2b_base64 alone skips what is no base64, and its strict mode differs between versions of Python.
    if len(text) % 4 or not _BASE64.fullmatch(text):
        raise ImageError(
            "The picture's data URL is no sound base64; use the standard alphabet, and pad its end with =."
        )
    return binascii.a2b_base64(text)


def _check_length(length: int, most: int, policy: MediaPolicy) -> None:
    if length > most:
        raise ImageError(
            f"The picture's data URL holds more than {policy.max_bytes / 2**20:,.1f} MiB, the limit; "
            "scale the picture down."
        )


def _opened(data: bytes, limits: images.Limits) -> Image.Image:
    try:
        return images.open_image(data, limits=limits)
    except ImageError as error:
        # Its first bytes, which a person at a terminal wants to know, may be private here.
        reason = str(error).partition(": it begins with")[0].rstrip(".")
        raise ImageError(reason.replace("the picture given as bytes", "The picture", 1) + ".") from error
