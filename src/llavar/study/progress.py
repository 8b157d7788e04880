"""What long work tells the person who waits: a bar in a terminal, lines elsewhere, and a ledger of times.

The ledger is kept on disk, so that a study that was stopped and goes on reports what its steps took in all.
It is written while a step counts, so that a kill costs it ten seconds.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from llavar import files
from llavar.errors import DataError

_NOTED = 10.0
"""Seconds between two entries of a step that goes on."""


class Watch:
    """Announces steps, counts inside them, and remembers their seconds in ``ledger``."""

    def __init__(self, ledger: Path, *, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._ledger, self._quiet = ledger, quiet
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty() and not quiet
        self._shown, self._noted = 0.0, math.inf
        self._title = ""
        self.seconds: dict[str, float] = _read(ledger)

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self._quiet:
            print(f"\r\x1b[K{text}" if self._live else text, file=self._stream, flush=True)

    @contextmanager
    def step(self, title: str) -> Generator[None]:
        """Time what happens inside, also if it is interrupted."""
        self._title, self._shown = title, 0.0
        self._noted = time.monotonic()
        self.say(f"{title} ...")
        try:
            yield
        finally:
            if self._live:
                print("\r\x1b[K", end="", file=self._stream, flush=True)
            self._note()
            self._noted = math.inf  # what comes between steps belongs to none

    def count(self, done: int, total: int, note: str = "") -> None:
        """How far the step is; in a terminal at once, elsewhere every ten seconds."""
        now = time.monotonic()
        if now - self._noted >= _NOTED:
            self._note()
        if self._quiet or (now - self._shown < (0.1 if self._live else 10) and done != total):
            return
        self._shown = now
        if self._live:
            filled = round(24 * done / max(total, 1))
            bar = "#" * filled + "." * (24 - filled)
            print(
                f"\r\x1b[K  {self._title}  [{bar}] {done}/{total} {note}",
                end="",
                file=self._stream,
                flush=True,
            )
        else:
            print(f"  {self._title}: {done}/{total} {note}", file=self._stream, flush=True)

    @property
    def total(self) -> float:
        """Seconds of all steps together."""
        return sum(self.seconds.values())

    def _note(self) -> None:
        """Add the time since the last note to the step and keep it."""
        now = time.monotonic()
        self.seconds[self._title] = self.seconds.get(self._title, 0.0) + now - self._noted
        self._noted = now
        files.write_text(self._ledger, json.dumps(self.seconds, indent=1))


def _read(ledger: Path) -> dict[str, float]:
    if not ledger.exists():
        return {}
    try:
        return {str(name): float(value) for name, value in json.loads(ledger.read_text("utf-8")).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{ledger} is damaged ({error}); remove it, only the times of earlier steps are lost"
        ) from error
