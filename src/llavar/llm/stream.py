"""Reading an answer that comes in pieces: server-sent events, as chat completions use them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llavar.errors import FetchError

DONE = b"[DONE]"
"""What follows the last piece. Not every server sends it."""


def events(chunks: Iterable[bytes], *, limit: int) -> Iterator[bytes]:
    """The data of each event, however the bytes of the body were cut; comments and other fields are skipped.

    Ends after :data:`DONE`, which is yielded, or with the body.

    Raises:
        FetchError: more than ``limit`` bytes came.
    """
    total, rest = 0, b""
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise FetchError(f"the answer has more than {limit} bytes; ask for fewer tokens")
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            data = _data(line)
            if data:
                yield data
            if data == DONE:
                return
    data = _data(rest)
    if data:
        yield data


def _data(line: bytes) -> bytes:
    """What a line carries; the servers meant here put every event into one."""
    return line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
