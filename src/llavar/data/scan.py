"""Where the rows of a JSON list or a JSONL file lie, found in one pass that holds a few megabytes.

Nothing is parsed here. Outside of strings, brackets tell how deep one is, and the commas of the outermost
list part its rows; a quote counts unless an odd run of backslashes stands before it. All of it is arithmetic
on bytes: UTF-8 never uses ASCII values inside a character. Whether a row is sound is found out when it is
decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from llavar.errors import DataError, NotFoundError

PLACE = np.dtype([("offset", "<u8"), ("length", "<u4"), ("number", "<u4")])
"""Where a row lies, in bytes; ``number`` counts from 1: the element of a list, the line of JSONL."""

_CHUNK = 4 << 20
_BLANK = b" \t\r\n"
_QUOTE, _OPEN, _CLOSE, _COMMA = 1, 2, 3, 4
_KINDS = bytes(
    {ord('"'): 1, ord("["): 2, ord("{"): 2, ord("]"): 3, ord("}"): 3, ord(","): 4}.get(i, 0)
    for i in range(256)
)
"""The kind of each byte; 0 says nothing about structure."""
_MARKS = bytes(kind > 0 for kind in _KINDS)
_CHANGES = bytes((0, 0, 1, 255, 0))
"""What each kind adds to the depth, as int8."""


class Kind(StrEnum):
    """How rows follow each other."""

    LIST = "list"
    LINES = "lines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The rows of a file: an array of :data:`PLACE`."""

    kind: Kind
    places: NDArray[Any]


def find_rows(path: Path) -> Found:
    """Every row of a file.

    Raises:
        NotFoundError: there is no such file.
        DataError: it is neither a JSON list nor JSONL, or the list is cut short.
    """
    try:
        with path.open("rb") as file:
            start = _skip_blank(file)
            first = file.read(1)
            file.seek(start)
            if first == b"[":
                return Found(kind=Kind.LIST, places=_gathered(_elements(file, path)))
            elif first == b"{":
                return Found(kind=Kind.LINES, places=_gathered(_lines(file)))
            opening = file.read(20).decode("utf-8", "backslashreplace")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"there is no data file at {path}; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; give the JSON file of rows in it") from None
    raise DataError(f"{path} begins with {opening!r}; give a JSON list of rows, or JSONL")


def _skip_blank(file: BinaryIO) -> int:
    """The offset of the first byte that says something; a byte order mark does not."""
    at = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
    file.seek(at)
    while data := file.read(4096):
        said = data.lstrip(_BLANK)
        if said:
            at += len(data) - len(said)
            break
        at += len(data)
    file.seek(at)
    return at


def _gathered(parts: Iterator[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate([np.empty(0, PLACE), *parts])


def _places(starts: NDArray[np.int64], ends: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[Any]:
    lengths = ends - starts
    if len(lengths) and int(lengths.max()) >= 1 << 32:
        raise DataError(f"row {int(numbers[lengths.argmax()])} has 4 GiB or more; no row is as long as that")
    places = np.empty(len(starts), PLACE)
    places["offset"], places["length"], places["number"] = starts, lengths, numbers
    return places


# A list.


@dataclass(slots=True)
class _State:
    """What carries over from chunk to chunk."""

    inside: bool = False
    """Whether a string is open."""
    escapes: bool = False
    """Whether an odd number of backslashes came last."""
    depth: int = 0


def _elements(file: BinaryIO, path: Path) -> Iterator[NDArray[Any]]:
    """``file`` stands at the opening bracket."""
    state, base, number = _State(), file.tell(), 0
    start = base + 1
    while chunk := file.read(_CHUNK):
        bounds, ended = _bounds(chunk, state)
        ends = bounds.astype(np.int64) + base
        starts = np.concatenate([np.array([start], np.int64), ends + 1])[:-1]
        if ended and not number and len(ends) == 1 and _is_blank(file, int(starts[0]), int(ends[0])):
            starts = ends = ends[:0]
        yield _places(starts, ends, np.arange(number + 1, number + 1 + len(ends)))
        if ended:
            _nothing_more(file, base + int(bounds[-1]) + 1, path)
            return
        number += len(ends)
        start = int(ends[-1]) + 1 if len(ends) else start
        base += len(chunk)
        file.seek(base)
    where = "inside a string" if state.inside else f"{state.depth} brackets deep"
    raise DataError(
        f"{path} is not valid JSON (it ends {where}, after {number} whole rows); repair or download it again"
    )


def _bounds(data: bytes, state: _State) -> tuple[NDArray[np.int64], bool]:
    """Where rows end in ``data``: at the commas of the outermost list and its end, which may be reached."""
    chunk = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(np.frombuffer(data.translate(_MARKS), np.bool_))
    kind = np.frombuffer(_KINDS, np.uint8)[chunk[at]]
    quotes = kind == _QUOTE
    escaped, state.escapes = _escaped(chunk, at[quotes], state.escapes)
    quotes[np.flatnonzero(quotes)[escaped]] = False
    inside = (np.cumsum(quotes, dtype=np.int32) + state.inside) % 2 == 1
    outer = ~inside & ~quotes  # a quote that closes a string counts as outside of it, and says nothing
    change = np.frombuffer(_CHANGES, np.int8)[kind] * outer
    depth = state.depth + np.cumsum(change, dtype=np.int32)
    state.inside = bool((int(quotes.sum()) + state.inside) % 2)
    state.depth = int(depth[-1]) if len(depth) else state.depth
    bound = outer & (depth == 1) & (kind == _COMMA)
    closed = np.flatnonzero((depth == 0) & outer & (kind == _CLOSE))
    if not len(closed):
        return at[bound], False
    bound[closed[0]] = True
    bound[closed[0] + 1 :] = False
    return at[bound], True


def _escaped(
    chunk: NDArray[np.uint8], quotes: NDArray[np.int64], carried: bool
) -> tuple[NDArray[np.bool_], bool]:
    """Which quotes have an odd run of backslashes before them, and whether the chunk ends in such a run.

    ``carried``: the chunk before it did.
    """
    slashes = np.flatnonzero(chunk == 0x5C)
    odd = np.zeros(len(quotes), np.bool_)
    if not len(slashes):
        odd[: 1 if carried else 0] = quotes[: 1 if carried else 0] == 0
        return odd, carried and not len(chunk)
    begins = np.concatenate([[True], np.diff(slashes) != 1])
    first = np.maximum.accumulate(np.where(begins, np.arange(len(slashes)), 0))
    length = np.arange(len(slashes)) - first + 1
    length += carried & (slashes[first] == 0)
    before = np.searchsorted(slashes, quotes) - 1
    follows = (before >= 0) & (slashes[before] == quotes - 1)
    odd[follows] = length[before[follows]] % 2 == 1
    if carried and len(quotes) and quotes[0] == 0:
        odd[0] = True
    return odd, bool(slashes[-1] == len(chunk) - 1 and length[-1] % 2)


def _is_blank(file: BinaryIO, start: int, end: int) -> bool:
    file.seek(start)
    return not file.read(end - start).strip(_BLANK)


def _nothing_more(file: BinaryIO, at: int, path: Path) -> None:
    file.seek(at)
    while data := file.read(_CHUNK):
        more = data.lstrip(_BLANK)
        if more:
            at += len(data) - len(more)
            raise DataError(
                f"{path} is not valid JSON (something follows the list at byte {at}); "
                "repair or download it again"
            )
        at += len(data)


# Lines.


def _lines(file: BinaryIO) -> Iterator[NDArray[Any]]:
    base = start = file.tell()
    number = 0
    while chunk := file.read(_CHUNK):
        data = np.frombuffer(chunk, np.uint8)
        ends = np.flatnonzero(data == 0x0A) + base
        starts = np.concatenate([np.array([start], np.int64), ends + 1])
        start = int(starts[-1])
        opened = data[np.maximum(starts[:-1] - base, 0)] == ord("{")  # a line of the chunk before: any byte
        yield _not_blank(file, starts[:-1], ends, number, opened)
        number += len(ends)
        base += len(chunk)
        file.seek(base)
    yield _not_blank(file, np.array([start]), np.array([base]), number, np.zeros(1, np.bool_))


def _not_blank(
    file: BinaryIO,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    before: int,
    opened: NDArray[np.bool_],
) -> NDArray[Any]:
    """Lines that hold something. Those known to begin as a row does need not be looked at."""
    numbers = np.arange(before + 1, before + 1 + len(starts))
    kept = opened & (ends > starts)
    for index in np.flatnonzero(~kept):
        kept[index] = not _is_blank(file, int(starts[index]), int(ends[index]))
    return _places(starts[kept], ends[kept], numbers[kept])
