"""Copies whose edges differ: their texts tell which pictures may be such, their pixels whether they are.

A fingerprint (:func:`llavar.corpus.opening.fingerprint`) is of a whole picture. Cut two per cent off each
side, or put a frame around it, and 30 of its 256 bits are others. So a picture also keeps a small grey copy
of itself without flat margins, and of two such copies one is laid over parts of the other. That is dear, and
done only for pictures in which the same is written: similar texts have keys in common.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

SIDE = 32
"""Of the small grey copy, in pixels: twice the waves that are compared."""
WAVES = 16
BITS = WAVES * WAVES
KEYS = 16
"""Of a text. Of pairs of texts that share seven tenths of their pieces one in 1,000 has no key in common."""

_LOOKED_AT, _PARTS, _FLAT, _LEAST = 512, 32, 16, 8
"""Margins are looked for in a picture of at most 512 pixels; in a row of theirs the means of 32 parts, which
hide grain, span at most 16 shades of grey; what lies between margins has at least 8 pixels."""
_STEPS = (4, 2, 1)
"""Per cent of a side by which the edges of a part are moved, one search after the other."""
_PIECE, _JOINED = 5, 3
"""Letters of a piece of text, and least values that make up a key."""
_AT_ONCE = 16
"""Rows that are looked at together, from an edge inwards."""
_IN_A_GROUP = 16


# ---------------------------------------------------------------------------------------------- pixels


@cache
def cosines(points: int) -> NDArray[np.float64]:
    """(16, points): the slowest waves of the cosine transform of a line of so many points."""
    rows, places = np.arange(WAVES)[:, None], np.arange(points)[None]
    return np.cos(np.pi * rows * (2 * places + 1) / (2 * points))


def above_median(slow: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the waves (..., 256) are above their median, which is taken without the constant first."""
    return slow > np.median(slow[..., 1:], axis=-1, keepdims=True)


def content(picture: Image) -> str:
    """A grey picture without flat margins as 32 x 32 pixels, in base64."""
    from PIL import Image as Pillow

    small = _inner(picture).resize((SIDE, SIDE), Pillow.Resampling.LANCZOS)
    return base64.b64encode(small.tobytes()).decode()


def _inner(grey: Image) -> Image:
    """What lies between the margins, with at most a 512th of them; brought down if it is large."""
    factor = -(-max(grey.size) // _LOOKED_AT)
    if factor == 1:
        return grey.crop(_without_margins(np.asarray(grey)))
    small = grey.reduce(factor)
    left, top, right, bottom = _without_margins(np.asarray(small))
    wide, high = grey.size
    box = (left * factor, top * factor, min(wide, right * factor), min(high, bottom * factor))
    if max(box[2] - box[0], box[3] - box[1]) > _LOOKED_AT * (factor - 1):
        return small.crop((left, top, right, bottom))
    return _inner(grey.crop(box))  # small enough for a closer look


def _without_margins(grey: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what lies between flat rows and columns; all of it if that is too little.

    Margins may lie in margins: rows and columns are taken away until none at an edge is flat.
    """
    top, left = 0, 0
    bottom, right = grey.shape
    while True:
        inner = grey[top:bottom, left:right]
        down, across = _not_flat(inner), _not_flat(inner.T)
        if down is None or across is None:
            return 0, 0, grey.shape[1], grey.shape[0]
        found = (left + across[0], top + down[0], left + across[1], top + down[1])
        if found == (left, top, right, bottom):
            break
        left, top, right, bottom = found
    if right - left < _LEAST or bottom - top < _LEAST:
        return 0, 0, grey.shape[1], grey.shape[0]
    return left, top, right, bottom


def _not_flat(grey: NDArray[np.uint8]) -> tuple[int, int] | None:
    """From which row to behind which one a picture is not flat; rows between them are not looked at."""
    first = _first_not_flat(grey)
    return None if first is None else (first, len(grey) - (_first_not_flat(grey[::-1]) or 0))


def _first_not_flat(grey: NDArray[np.uint8]) -> int | None:
    for start in range(0, len(grey), _AT_ONCE):
        found = np.flatnonzero(_spans(grey[start : start + _AT_ONCE]) > _FLAT)
        if len(found):
            return start + int(found[0])
    return None


def _spans(grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(rows,): how far apart the means of the parts of each row lie."""
    belongs, widths = _parts_of(grey.shape[1])
    # A product with ones and noughts: exact, since sums are whole numbers, and quicker than np.add.reduceat.
    return np.ptp((grey.astype(np.float32) @ belongs) / widths, axis=1)


@lru_cache(maxsize=16)
def _parts_of(length: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(length, parts): which part a pixel of a row belongs to, as one; and how long each part is."""
    starts = np.unique(np.linspace(0, length, _PARTS, endpoint=False, dtype=np.int64))
    widths = np.diff(starts, append=length)
    return np.repeat(np.eye(len(starts), dtype=np.float32), widths, axis=0), widths


def fewest_bits(one: str, other: str, reach: int) -> int:
    """In how many of 256 bits two :func:`content` differ, laid over each other as well as can be.

    Up to ``reach`` per cent at each side of one of them have no counterpart in the other.
    """
    if not one or not other:
        return BITS
    first, second = (
        np.frombuffer(base64.b64decode(text), np.uint8).reshape(SIDE, SIDE) for text in (one, other)
    )
    if min(np.ptp(first), np.ptp(second)) <= _FLAT:  # nothing to be seen in so small a copy
        return BITS
    return min(_fitted(first, second, reach), _fitted(second, first, reach))


def _fitted(large: NDArray[np.uint8], small: NDArray[np.uint8], reach: int) -> int:
    """Fewest differing bits between parts of ``large`` and all of ``small``; first a coarse search."""
    whole = cosines(SIDE)
    wanted = above_median((whole @ small @ whole.T).reshape(BITS))
    edges = range(0, reach + 1, _STEPS[0])
    down = across = [(start, end) for start in edges for end in edges]
    best = BITS
    for step in _STEPS:
        found = _waves_of(large, down, across)
        differ = np.count_nonzero(above_median(found) != wanted, axis=-1)
        row, column = np.unravel_index(int(differ.argmin()), differ.shape)
        best = min(best, int(differ[row, column]))
        down, across = (_around(part, step // 2, reach) for part in (down[int(row)], across[int(column)]))
    return best


def _around(part: tuple[int, int], step: int, reach: int) -> list[tuple[int, int]]:
    """Parts whose edges lie ``step`` per cent beside those of a part."""
    starts, ends = (sorted({min(reach, max(0, edge + way * step)) for way in (-1, 0, 1)}) for edge in part)
    return [(start, end) for start in starts for end in ends]


def _waves_of(
    grey: NDArray[np.uint8], down: list[tuple[int, int]], across: list[tuple[int, int]]
) -> NDArray[np.float64]:
    """(rows, columns, 256): the slowest waves of every part that one of each makes up."""
    rows, columns = (np.stack([_window(*part) for part in parts]) for parts in (down, across))
    found = (rows @ grey)[:, None] @ columns.transpose(0, 2, 1)[None]
    return found.reshape(len(down), len(across), BITS)


@cache
def _window(cut: int, cut_at_end: int) -> NDArray[np.float64]:
    """(16, 32): from a line of pixels to the waves of its part without so many per cent at both ends."""
    start, end = SIDE * cut / 100, SIDE * (100 - cut_at_end) / 100
    places = start + (np.arange(SIDE) + 0.5) * (end - start) / SIDE - 0.5
    weights = np.maximum(0, 1 - np.abs(np.clip(places, 0, SIDE - 1)[:, None] - np.arange(SIDE)[None]))
    return cosines(SIDE) @ weights


# ---------------------------------------------------------------------------------------------- texts


def keys_of(text: str) -> NDArray[np.uint64]:
    """(16,): similar texts have some of these in common, unlike ones hardly any; all 0 without a letter.

    The text's pieces of five letters or digits are hashed in 48 ways, and three least values make up a key
    (MinHash, Broder 1997): texts share a least value as often as they share a piece.
    """
    letters = "".join(letter for letter in text.casefold() if letter.isalnum())
    if not letters:
        return np.zeros(KEYS, dtype=np.uint64)
    codes = np.frombuffer(letters.encode("utf-32-le", "replace"), dtype=np.uint32).astype(np.uint64)
    codes = np.pad(codes, (0, max(0, _PIECE - len(codes))))
    pieces = np.zeros(len(codes) - _PIECE + 1, dtype=np.uint64)
    for place in range(_PIECE):
        pieces = _mixed(pieces ^ codes[place : place + len(pieces)])
    least = _mixed(pieces[:, None] ^ _seeds()[None]).min(axis=0).reshape(_JOINED, KEYS)
    joined = np.arange(1, KEYS + 1, dtype=np.uint64)
    for row in least:
        joined = _mixed(joined ^ row)
    return joined


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64 bits that leaves nothing in its place (the end of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _seeds() -> NDArray[np.uint64]:
    """Equal on every machine and with every version of numpy."""
    digests = (hashlib.sha256(b"%d" % number).digest()[:8] for number in range(KEYS * _JOINED))
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def same_words(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs (later, earlier) of the rows of ``keys`` (N, 16) that have one in common, as (M, 2), each once.

    Where more than 16 rows have it, they are told of the first 16 only: a text of which there are thousands
    is a copy of one of these, or is printed on so many different things that its other keys have to tell.
    """
    found: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    for column in keys.T:
        for group in equal_rows(column[:, None]):
            if column[group[0]]:
                later, earlier = np.meshgrid(group, group[:_IN_A_GROUP], indexing="ij")
                found.append((later * len(keys) + earlier)[later > earlier])
    codes = np.unique(np.concatenate(found))
    return np.stack(np.divmod(codes, max(1, len(keys))), axis=1)


def equal_rows(keys: NDArray[np.unsignedinteger]) -> Iterator[NDArray[np.int64]]:
    """Groups of at least two equal rows of ``keys`` (N, K), each with its places in ascending order."""
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    starts = np.flatnonzero(np.any(ordered[1:] != ordered[:-1], axis=1)) + 1
    edges = np.concatenate([[0], starts, [len(keys)]])
    for place in np.flatnonzero(np.diff(edges) > 1):
        yield np.sort(order[edges[place] : edges[place + 1]])
