"""What was computed of earlier prompts, for those that begin in the same way: chats that go on."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llavar.models.past import Past

Keys = NDArray[np.int64]
"""The tokens of a prompt and its answer; those of a picture are a negative number made of its fingerprint."""


_MOST = 256
"""Rows kept at most: looking through them takes a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    keys: Keys
    past: Past


def common(one: Keys, other: Keys) -> int:
    """How many first tokens are the same."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


class Prefixes:
    """Rows that have ended, the most recently used ones that fit into ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def bytes(self) -> int:
        return self._bytes

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def find(self, keys: Keys) -> tuple[Past, int] | None:
        """The row that begins like ``keys`` for longest, and for how many tokens; None if none does."""
        best, longest = None, 0
        for index, entry in self._entries.items():
            shared = common(entry.keys, keys)
            if shared > longest:
                best, longest = index, shared
        if best is None:
            return None
        self._entries.move_to_end(best)
        return self._entries[best].past, longest

    def add(self, keys: Keys, past: Past) -> None:
        """Keep a row; those that it continues go, and those used longest ago where it gets too much."""
        if past.bytes > self._limit:
            return
        for index, entry in list(self._entries.items()):
            if common(entry.keys, keys) == min(len(entry.keys), len(keys)):
                if len(entry.keys) > len(keys):
                    self._entries.move_to_end(index)
                    return
                self._drop(index)
        self._entries[self._count] = _Entry(keys=keys, past=past)
        self._bytes += past.bytes
        self._count += 1
        while self._bytes > self._limit or len(self) > _MOST:
            self._drop(next(iter(self._entries)))

    def _drop(self, index: int) -> None:
        self._bytes -= self._entries.pop(index).past.bytes
