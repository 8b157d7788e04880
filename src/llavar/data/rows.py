"""Rows for training that are encoded when they are wanted.

One pass beforehand encodes every row and keeps only its length, its supervised tokens, the names of its
pictures and a digest, or why it cannot be used. Plans need no more than that. The pass runs in worker
processes and is kept in the cache, so that it is made once for a file, a tokenizer and a limit of length.
"""

from __future__ import annotations

import hashlib
import json
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from llavar.chat import Template
from llavar.data import cache
from llavar.data.encode import Tokenizer, encode
from llavar.data.index import RowSource
from llavar.data.mixture import Mixture
from llavar.data.source import Reason, RowError
from llavar.data.workers import Workers
from llavar.errors import DataError
from llavar.records import IGNORE, Encoded, Example, Reject

_VERSION = 1
_BLOCK = 4096
"""Rows of a task. The digest is made of those of blocks, so that it does not depend on workers."""

_SMALL = 65536
"""Sources with fewer rows are not worth a second process, which takes seconds to start."""


class RowEncoder(Protocol):
    """How rows become tokens. Equal ``key`` gives equal tokens; empty, nothing is kept of what was found."""

    @property
    def key(self) -> str: ...

    def __call__(self, row: Example, /) -> Encoded:
        """Raises:
        RowError: it cannot be learned from.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """How rows become tokens.

    ``image_tokens`` are those of one input of the tower, of which a picture gives ``views``. ``unknown`` is
    the token for what the tokenizer lacks; ``key`` tells encoders apart, empty is none.
    """

    tokenizer: Tokenizer
    template: Template
    image_tokens: int
    views: int = 1
    start_end: bool = True
    max_length: int | None = None
    unknown: int | None = None
    key: str = ""

    @classmethod
    def known(
        cls,
        tokenizer: Tokenizer,
        content: str,
        template: Template,
        *,
        image_tokens: int,
        start_end: bool,
        max_length: int | None,
        unknown: int | None,
        views: int = 1,
    ) -> Encoder:
        """An encoder with a key; ``content`` is all that the tokenizer consists of."""
        settings = (repr(template), image_tokens, start_end, max_length, unknown)
        if views != 1:  # what was measured before there were views is still true
            settings = (*settings, views)
        return cls(
            tokenizer=tokenizer,
            template=template,
            image_tokens=image_tokens,
            views=views,
            start_end=start_end,
            max_length=max_length,
            unknown=unknown,
            key=cache.key(content, *settings),
        )

    def __call__(self, row: Example) -> Encoded:
        """Raises:
        RowError: it cannot be learned from; who writes ``<unk>`` in an answer means it.
        """
        encoded = encode(
            row,
            self.tokenizer,
            self.template,
            image_tokens=self.image_tokens,
            views=self.views,
            start_end=self.start_end,
            max_length=self.max_length,
        )
        if self.unknown is not None and self.unknown in encoded.ids:
            pairs = zip(encoded.ids, encoded.labels, strict=True)
            odd = any(token == self.unknown and label != IGNORE for token, label in pairs)
            if odd and not any("<unk>" in turn.text for turn in row.conversation.turns):
                raise RowError(row.id, Reason.UNWRITABLE, "in an answer; change the answer")
        return encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the pass found in one source.

    ``lengths`` and ``supervised``: int32, tokens of each row, 0 where it cannot be used; ``rejects`` are
    those, by number. ``seconds`` is 0 if the pass was made earlier.
    """

    lengths: NDArray[np.int32]
    supervised: NDArray[np.int32]
    name_ends: NDArray[np.int64]
    names: NDArray[np.uint8]
    rejects: dict[int, Reject]
    digest: str
    seconds: float

    def pictures(self, number: int) -> tuple[str, ...]:
        """The names of the pictures of one row."""
        start = int(self.name_ends[number - 1]) if number else 0
        data = self.names[start : int(self.name_ends[number])].tobytes()
        return tuple(data.decode().split("\0")) if data else ()


@dataclass(frozen=True, slots=True)
class _Block:
    lengths: array[int]
    supervised: array[int]
    name_ends: array[int]
    names: bytes
    rejects: list[tuple[int, Reject]]
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Measuring:
    """The task of a worker: measure the rows from ``start`` on."""

    source: RowSource
    encoder: RowEncoder
    rows: int

    def __call__(self, start: int) -> _Block:
        block = _Block(array("i"), array("i"), array("q"), b"", [], b"")
        names, digest = bytearray(), hashlib.sha256()
        for number in range(start, min(start + self.rows, len(self.source))):
            row = self.source.get(number)
            try:
                found = self.encoder(_raised(row))
            except RowError as error:
                stage = "read" if isinstance(row, RowError) else "encode"
                block.rejects.append((number, error.reject(stage)))
                block.lengths.append(0)
                block.supervised.append(0)
            else:
                block.lengths.append(len(found))
                block.supervised.append(len(found) - found.labels.count(IGNORE))
                names += "\0".join(found.images).encode()
                digest.update(json.dumps((found.id, found.images, len(found))).encode())
                digest.update(array("i", found.ids).tobytes() + array("i", found.labels).tobytes())
            block.name_ends.append(len(names))
        return replace(block, names=bytes(names), digest=digest.digest())


def _raised(row: Example | RowError) -> Example:
    if isinstance(row, RowError):
        raise row
    return row


def measure(
    source: RowSource, encoder: RowEncoder, *, workers: int = 0, folder: Path | None = None
) -> Measured:
    """Encode every row of ``source`` once, in ``workers`` processes where that pays.

    What was found is kept in ``folder`` (the user's cache) for sources and encoders that have a key.
    """
    started = time.perf_counter()
    folder = folder or cache.default_folder()
    key = cache.key("measured", _VERSION, source.key, encoder.key) if source.key and encoder.key else ""
    held = _held(key, folder, len(source)) if key else None
    if held is not None:
        return held
    count = workers if len(source) >= _SMALL else 0
    with Workers(_Measuring(source, encoder, _BLOCK), count) as pool:
        blocks = list(pool.results(range(0, len(source), _BLOCK)))
    arrays, rejects, digest = _joined(blocks)
    found = Measured(**arrays, rejects=rejects, digest=digest, seconds=time.perf_counter() - started)
    if key:
        about = {"digest": digest, "rejects": [[n, asdict(reject)] for n, reject in rejects.items()]}
        cache.save(key, folder, arrays, about)
        held = _held(key, folder, len(source))
        return replace(held, seconds=found.seconds) if held else found
    return found


def _joined(blocks: Sequence[_Block]) -> tuple[dict[str, NDArray[Any]], dict[int, Reject], str]:
    firsts = np.concatenate([[0], np.cumsum([len(block.names) for block in blocks])]).astype(np.int64)
    ends = [np.array(b.name_ends, np.int64) + first for b, first in zip(blocks, firsts, strict=False)]
    arrays: dict[str, NDArray[Any]] = {
        "lengths": np.concatenate([np.empty(0, np.int32), *(np.array(b.lengths, np.int32) for b in blocks)]),
        "supervised": np.concatenate(
            [np.empty(0, np.int32), *(np.array(b.supervised, np.int32) for b in blocks)]
        ),
        "name_ends": np.concatenate([np.empty(0, np.int64), *ends]),
        "names": np.frombuffer(b"".join(block.names for block in blocks), np.uint8),
    }
    rejects = {number: reject for block in blocks for number, reject in block.rejects}
    return arrays, rejects, hashlib.sha256(b"".join(block.digest for block in blocks)).hexdigest()


def _held(key: str, folder: Path, rows: int) -> Measured | None:
    loaded = cache.load(key, folder)
    if loaded is None:
        return None
    arrays, about = loaded
    try:
        rejects = {int(number): Reject(**fields) for number, fields in about["rejects"]}
        found = Measured(**arrays, rejects=rejects, digest=str(about["digest"]), seconds=0.0)
    except (KeyError, TypeError, ValueError):
        return None
    whole = len(found.lengths) == len(found.supervised) == len(found.name_ends) == rows
    return found if whole and (not rows or int(found.name_ends[-1]) == len(found.names)) else None


# Rows to train on.


class Planned(Protocol):
    """What a plan is made from: of every row its tokens and pictures, and which rows an epoch holds."""

    @property
    def lengths(self) -> NDArray[np.int32]: ...
    @property
    def pictures(self) -> NDArray[np.int32]: ...
    @property
    def mixture(self) -> Mixture | None: ...


class LazyRows(Sequence[Encoded]):
    """The usable rows of all sources; each is read and encoded when it is asked for.

    ``encoder`` is that of all sources, or one for each. ``numbers`` count all rows of all sources, ``firsts``
    is where each source begins in that count. A source with pictures of its own has a mark in ``marks``,
    which goes before their names.
    """

    def __init__(
        self,
        sources: Sequence[RowSource],
        encoder: RowEncoder | Sequence[RowEncoder],
        *,
        numbers: NDArray[np.int64],
        lengths: NDArray[np.int32],
        pictures: NDArray[np.int32],
        marks: Sequence[str],
        mixture: Mixture | None = None,
    ) -> None:
        self._sources, self._marks = tuple(sources), tuple(marks)
        self._encoders = tuple(encoder) if isinstance(encoder, Sequence) else (encoder,) * len(sources)
        self._numbers, self.lengths, self.pictures, self.mixture = numbers, lengths, pictures, mixture
        self._firsts = np.concatenate([[0], np.cumsum([len(source) for source in sources])])

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        number = int(self._numbers[index])
        at = int(np.searchsorted(self._firsts, number, side="right")) - 1
        row = self._encoders[at](_raised(self._sources[at].get(number - int(self._firsts[at]))))
        if len(row) != self.lengths[index]:
            raise DataError(f"row {row.id!r} changed after it was counted; start again with files at rest")
        mark = self._marks[at]
        return replace(row, images=tuple(mark + name for name in row.images)) if mark else row

    def __iter__(self) -> Iterator[Encoded]:
        return (self[place] for place in range(len(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    lengths: NDArray[np.int32]
    pictures: NDArray[np.int32]
    mixture: Mixture | None = None


def planned(rows: Sequence[Encoded]) -> Planned:
    """Lengths and pictures of ``rows``, without encoding those that are encoded later."""
    if isinstance(rows, LazyRows):
        return rows
    return _Held(lengths=_int32(len(row) for row in rows), pictures=_int32(len(row.images) for row in rows))


def _int32(values: Iterable[int]) -> NDArray[np.int32]:
    return np.fromiter(values, np.int32)
