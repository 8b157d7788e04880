"""Data files whose rows are read when they are wanted, by number, without holding the file.

One pass finds where the rows lie (:mod:`llavar.data.scan`); what it found is kept in the user's cache and
mapped, so that a million rows open at once in every process, and the processes share what the system holds
of file and index.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from llavar.data import cache
from llavar.data.scan import PLACE, Found, Kind, find_rows
from llavar.data.source import RowError, decode_row
from llavar.errors import DataError
from llavar.records import Example

_VERSION = 1


class RowSource(Protocol):
    """Rows by number. Sources travel to worker processes, which open their own handles."""

    name: str
    """What the source is called in rows and sentences."""
    key: str
    """Tells the content from any other; empty where nothing made from it is worth keeping."""

    def __len__(self) -> int: ...

    def get(self, number: int) -> Example | RowError:
        """Row ``number``, counted from 0; the error in its place if it is malformed."""
        ...


class RowFile:
    """The rows of a JSON list or of JSONL.

    ``seconds``: what the pass over the file took, 0 if it was made earlier.
    """

    def __init__(self, path: Path, found: Found, *, key: str = "", seconds: float = 0.0) -> None:
        self.path, self.name, self.key, self.seconds = path, path.name, key, seconds
        self._kind, self._places = found.kind, found.places
        self._handle: int | None = None

    def __len__(self) -> int:
        return len(self._places)

    def get(self, number: int) -> Example | RowError:
        """Raises:
        DataError: the file is shorter than it was.
        """
        place = self._places[number]
        try:
            data = self.read(number)
            return decode_row(data, self._kind, number=int(place["number"]), source=self.name)
        except RowError as error:
            return error

    def read(self, number: int) -> bytes:
        """The bytes of one row."""
        if self._handle is None:
            self._handle = os.open(self.path, os.O_RDONLY)
        place = self._places[number]
        length = int(place["length"])
        data = os.pread(self._handle, length, int(place["offset"]))
        if len(data) != length:
            raise DataError(f"{self.path} was cut while it was in use; start again with the whole file")
        return data

    def close(self) -> None:
        """Let go of the file; it is opened again when a row is read."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        """For another process. A kept index is mapped there again, any other travels along."""
        state = dict(self.__dict__)
        state["_handle"] = None
        mapped = getattr(self._places, "filename", None)
        if mapped is not None:
            state["_places"] = Path(mapped)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._places, Path):
            self._places = mapped(self._places)


def mapped(path: Path) -> NDArray[Any]:
    """An array of the cache.

    Raises:
        DataError: it is gone.
    """
    import numpy as np

    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"the index {path} cannot be read ({error}); start again to make it anew") from None
    return found


def open_rows(path: Path, *, folder: Path | None = None) -> RowFile:
    """The rows of ``path``, with an index from the cache in ``folder`` (the user's own) if there is one.

    Raises:
        NotFoundError: there is no such file.
        DataError: it is neither a JSON list nor JSONL.
    """
    started = time.perf_counter()
    if not path.is_file() or not cache.worth_keeping(path):
        return RowFile(path, find_rows(path), seconds=time.perf_counter() - started)
    folder = folder or cache.default_folder()
    key = cache.key("rows", _VERSION, cache.identity(path))
    held = _held(key, folder, path)
    if held is not None:
        return RowFile(path, held, key=key)
    found = find_rows(path)
    cache.save(key, folder, {"places": found.places}, {"kind": found.kind.value, "file": str(path)})
    seconds = time.perf_counter() - started
    return RowFile(path, _held(key, folder, path) or found, key=key, seconds=seconds)


def _held(key: str, folder: Path, path: Path) -> Found | None:
    """The index of the cache, if it is one and stays inside the file."""
    loaded = cache.load(key, folder)
    if loaded is None:
        return None
    places, kind = loaded[0].get("places"), loaded[1].get("kind")
    if places is None or places.dtype != PLACE or places.ndim != 1 or kind not in tuple(Kind):
        return None
    last = places[-1]
    inside = int(last["offset"]) + int(last["length"]) <= path.stat().st_size
    return Found(kind=Kind(kind), places=places) if inside else None


class HeldRows:
    """Rows that are in memory already."""

    key = ""

    def __init__(self, rows: Sequence[Example | RowError], *, name: str = "") -> None:
        self._rows, self.name = rows, name

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, number: int) -> Example | RowError:
        return self._rows[number]
