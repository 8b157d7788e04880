"""The page for people, as files: ``llavar serve --page`` puts it beside the API.

Everything is read once and served from memory, so no request ever names a file. The page loads nothing from
elsewhere and its content security policy says so. A server that the user types in is asked from an empty
frame whose policy allows that one origin and nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import FastAPI, Request, Response

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""No inline script or style, no other origin. Pictures of the user are ``blob:`` or ``data:`` URLs."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
"""What is served; anything else in the folder is for developers."""

_ORIGIN = re.compile(r"https?://(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(:[0-9]{1,5})?")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
_PAGE = _HEADERS | {"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY", "Cache-Control": "no-cache"}
"""Browsers ask each time whether a file is still the same (304), so a new release is seen at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file of the page, ready to be sent."""

    content: bytes
    packed: bytes | None
    kind: str
    etag: str

    def response(self, request: Request) -> Response:
        """The file, or 304 for a client that has it."""
        headers = _PAGE | {"ETag": self.etag, "Vary": "Accept-Encoding"}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = self.content
        if self.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            content, headers = self.packed, headers | {"Content-Encoding": "gzip"}
        return Response(content, media_type=self.kind, headers=headers)


def mount(app: FastAPI) -> None:
    """Serve the page at ``/`` and ``/page``, and its files below ``/page/``. Needs no API key itself."""
    files = dict(_files(resources.files("llavar.serve").joinpath("page"), ""))

    async def index(request: Request) -> Response:
        return files["index.html"].response(request)

    async def file(request: Request, name: str) -> Response:
        found = files.get(name)
        return found.response(request) if found else _plain(f"The page has no file {name[:100]!r}.", 404)

    async def relay(to: str = "") -> Response:
        return _relay(to)

    for path, answer in (("/", index), ("/page", index), ("/page/relay", relay), ("/page/{name:path}", file)):
        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, _File]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif kind := _TYPES.get("." + entry.name.rpartition(".")[2]):
            yield prefix + entry.name, _read(entry, kind)


def _read(entry: Traversable, kind: str) -> _File:
    content = entry.read_bytes()
    packed = None if kind == "image/png" else gzip.compress(content, 6, mtime=0)
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    return _File(content=content, packed=packed, kind=kind, etag=etag)


def _relay(origin: str) -> Response:
    """The empty frame: its window may ask ``origin``, and only our page may hold it."""
    if not _ORIGIN.fullmatch(origin):
        return _plain(f"{origin[:100]!r} is no origin; give one like http://127.0.0.1:8001.", 400)
    policy = f"default-src 'none'; connect-src {origin}; frame-ancestors 'self'"
    headers = _HEADERS | {
        "Content-Security-Policy": policy,
        "X-Frame-Options": "SAMEORIGIN",
        "Cache-Control": "no-store",
    }
    title = "<!doctype html><html lang=en><title>Requests to another server</title></html>\n"
    return Response(title, media_type=_TYPES[".html"], headers=headers)


def _plain(sentence: str, status: int) -> Response:
    headers = _HEADERS | {"Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store"}
    return Response(sentence + "\n", status_code=status, media_type=_TYPES[".txt"], headers=headers)
