"""The file that every reply goes into at once: what a run that was killed goes on from.

JSON lines, appended and never rewritten. A line is whole or it is the torn last one, which is cut off.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from io import BufferedRandom
from pathlib import Path
from typing import Any

from llavar.errors import DataError
from llavar.records import Prediction, Status

_SYNC_EVERY = 1.0
"""Seconds between calls that force lines to the disk. A killed process loses nothing that was written; only
the machine itself going down can cost the last of them."""


class Journal:
    """Predictions under their keys. Use in a ``with`` statement: one process at a time writes a journal."""

    def __init__(self, path: Path) -> None:
        """Open or make the file at ``path``, and read what an earlier run left in it.

        Raises:
            DataError: another process writes it now, or a line is no prediction.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: BufferedRandom = path.open("a+b")
        self._synced = time.monotonic()
        try:
            _lock(self._file, path)
            self.earlier: tuple[tuple[str, Prediction], ...] = tuple(_read(self._file, path))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._sync()
        self._file.close()

    def append(self, key: str, prediction: Prediction) -> None:
        """Write one line; it is with the operating system when this returns."""
        self._file.write(_line(key, prediction).encode())
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def write_predictions(path: Path, rows: Iterable[tuple[str, Prediction]]) -> None:
    """A new file of such lines, under its name only when it is whole."""
    aside = path.with_name(path.name + ".part")
    aside.write_text("".join(_line(key, prediction) for key, prediction in rows), encoding="utf-8")
    aside.replace(path)


def _line(key: str, prediction: Prediction) -> str:
    return json.dumps({"key": key, **asdict(prediction)}) + "\n"


def _parse(record: Any) -> Prediction:
    """A prediction from its JSON object. Raises KeyError, TypeError or ValueError for anything else."""
    return Prediction(
        question=str(record["question"]),
        status=Status(record["status"]),
        text=str(record["text"]),
        error=str(record["error"]),
        seconds=float(record["seconds"]),
    )


def _lock(file: BufferedRandom, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two runs in one folder are then the user's own care
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DataError(
            f"another run is writing {path} now; wait until it ends, or name another folder"
        ) from error


def _read(file: BufferedRandom, path: Path) -> Iterator[tuple[str, Prediction]]:
    """(key, prediction) of every line; a torn last line is cut off the file."""
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        file.truncate(whole)
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            record: Any = json.loads(line)
            yield str(record["key"]), _parse(record)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(
                f"line {number} of {path} is not a prediction ({error!r:.200}); delete it to go on"
            ) from error
