"""The journal of what was read: one JSON line per picture file, written the moment it is known.

A process may be killed at any byte. Whatever does not parse when the journal is opened again is taken out and
counted, so that its picture is read anew and nothing is lost or doubled.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from pydantic import TypeAdapter, ValidationError

from llavar.records import Reading, Reject

SYNC_EVERY = 16
"""Lines after which the file is brought to the disk, against loss of power; a killed process loses none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What came of one picture file under some settings (``key``): a reading, or why there is none."""

    key: str
    time_limit: float
    reading: Reading | None = None
    reject: Reject | None = None

    @property
    def result(self) -> Reading | Reject:
        result = self.reading or self.reject
        assert result is not None, f"the entry {self.key} holds neither a reading nor a reject"
        return result


_ENTRY = TypeAdapter(Entry)


class Readings:
    """Entries by key, kept in a file that only grows. A later entry replaces an earlier one of its key."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal; raises OSError if that is impossible."""
        self.path = path
        self.entries: dict[str, Entry] = {}
        self.damaged = 0
        self._unsynced = 0
        if path.exists():
            self._load()
        self._file: IO[bytes] = path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sync()
        self._file.close()

    def add(self, entry: Entry) -> None:
        """Append, so that a process killed right after this has lost nothing."""
        self.entries[entry.key] = entry
        self._file.write(_ENTRY.dump_json(entry) + b"\n")
        self._file.flush()
        self._unsynced += 1
        if self._unsynced >= SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def _load(self) -> None:
        good: list[bytes] = []
        for line in self.path.read_bytes().splitlines(keepends=True):
            entry = _parsed(line)
            if entry is None:
                self.damaged += 1
            else:
                self.entries[entry.key] = entry
                good.append(line)
        if self.damaged:
            self._rewrite(good)

    def _rewrite(self, lines: list[bytes]) -> None:
        aside = self.path.with_name(self.path.name + ".part")
        with aside.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)


def _parsed(line: bytes) -> Entry | None:
    if not line.endswith(b"\n"):  # torn, even where it happens to parse: the next line would be glued to it
        return None
    try:
        entry = _ENTRY.validate_json(line)
    except ValidationError:
        return None
    return entry if (entry.reading is None) != (entry.reject is None) else None
