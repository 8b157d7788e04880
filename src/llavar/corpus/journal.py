"""Outcomes of a shard that is being computed, written down one by one, so that a kill loses none of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from llavar.corpus.item import Item
from llavar.corpus.stage import Outcome
from llavar.records import Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line of a journal: exactly one of the two."""

    index: int
    item: Item | None = None
    reject: Reject | None = None


_LINE = TypeAdapter(_Line)


class Journal:
    """Outcomes of a shard under way, a line each; the first line is the key they belong to.

    A line that a kill has torn, and all that follow it, count as not written.
    """

    def __init__(self, path: Path, key: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._key = path, key
        self._begun = False

    def load(self) -> Iterator[tuple[int, Outcome]]:
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            head = file.readline()
            if head != self._key.encode() + b"\n":
                self.remove()
                return
            self._begun, good = True, len(head)
            for line in file:
                found = _parsed(line)
                if found is None:
                    break
                good += len(line)
                yield found
        os.truncate(self._path, good)

    def add(self, index: int, outcome: Outcome) -> None:
        """Append. The file is not kept open: a run that ends in the middle has nothing to close."""
        line = _Line(
            index=index,
            item=outcome if isinstance(outcome, Item) else None,
            reject=outcome if isinstance(outcome, Reject) else None,
        )
        head = b"" if self._begun else self._key.encode() + b"\n"
        with self._path.open("ab") as file:
            file.write(head + _LINE.dump_json(line) + b"\n")
        self._begun = True

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self._begun = False


def _parsed(line: bytes) -> tuple[int, Outcome] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        found = _LINE.validate_json(line)
    except ValidationError:
        return None
    outcome = found.item or found.reject
    return None if outcome is None else (found.index, outcome)
