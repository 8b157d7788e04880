"""A file that grows by one line at a time and outlives a crash."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from llavar.errors import NotFoundError
from llavar.evals.judge.files import torn


class Log:
    """Appends JSON lines from any thread; each is with the system when :meth:`append` returns.

    A line that an earlier crash left unfinished is cut off.
    """

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise NotFoundError(f"{path} is a folder; name a file to write to")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        content = path.read_bytes()
        if unfinished := torn(content):
            os.ftruncate(self._file, len(content) - unfinished)
        elif content and not content.endswith(b"\n"):
            os.write(self._file, b"\n")

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            os.close(self._file)
            self._file = -1

    def append(self, document: Mapping[str, Any]) -> None:
        rest = memoryview((json.dumps(document) + "\n").encode())
        with self._lock:
            while rest and self._file >= 0:  # threads that outlive an interrupt find it closed
                rest = rest[os.write(self._file, rest) :]
