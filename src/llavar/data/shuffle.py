"""The order that ``random.shuffle`` gives, in less than half of its time.

Runs of a million rows shuffle them twice an epoch, and an order that was begun with has to be gone on with,
so that no other generator will do. Its words are drawn by numpy, many at once, and those that ``random``
would refuse are left out; and all exchanges are made at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORDS = 1 << 12
"""Drawn at once. Their bounds differ by as much, so that few more have to be looked at one by one."""


class Draws:
    """The words of ``random.Random(seed)``, 32 bits each, in order."""

    def __init__(self, seed: str) -> None:
        *key, place = random.Random(seed).getstate()[1]
        self._twister: Any = np.random.MT19937()
        self._twister.state = {
            "bit_generator": "MT19937",
            "state": {"key": np.array(key, np.uint32), "pos": place},
        }
        self._ready: NDArray[np.int64] = np.empty(0, np.int64)

    def picks(self, count: int) -> Iterator[NDArray[np.int64]]:
        """What ``randrange(i + 1)`` gives for ``i`` from ``count - 1`` down to 1, in pieces."""
        at = count - 1
        while at > 0:
            bits = (at + 1).bit_length()
            left = at + 1 - max(1, (1 << (bits - 1)) - 1)  # as long as that many bits are drawn
            found = self._below(at, bits, left)
            at -= len(found)
            yield found

    def _below(self, at: int, bits: int, most: int) -> NDArray[np.int64]:
        """At most ``most`` numbers, the first at most ``at``, the next at most one less, and so on."""
        self._fill()
        words = self._ready >> (32 - bits)
        taken = words <= at - _WORDS
        before = np.cumsum(taken)
        more = 0
        for place in np.flatnonzero(~taken & (words <= at)).tolist():
            if words[place] <= at - int(before[place]) - more:
                taken[place] = True
                more += 1
        chosen = np.flatnonzero(taken)[:most]
        used = int(chosen[-1]) + 1 if len(chosen) == most else len(words)
        self._ready = self._ready[used:]
        return words[chosen]

    def _fill(self) -> None:
        lacking = _WORDS - len(self._ready)
        if lacking:
            drawn: NDArray[np.uint64] = self._twister.random_raw(lacking)
            self._ready = np.concatenate([self._ready, drawn.astype(np.int64)])


def shuffled(numbers: NDArray[np.int64], draws: Draws) -> NDArray[np.int64]:
    """``numbers`` as ``random.shuffle`` would leave them.

    From the last place down, each is exchanged with the one that was drawn for it. An exchange needs those
    before it, but where a number ends can be told from the drawn places alone. A place gets what lies in its
    drawn place at that moment: what the exchange before put there that drew the same, or what began there.
    That exchange put there what it found in its own place, which was put there by an earlier one, or began
    there; such chains are short, and are followed for all places at once.
    """
    count = len(numbers)
    drawn = np.zeros(count, np.int64)
    drawn[1:] = np.concatenate([np.empty(0, np.int64), *draws.picks(count)])[::-1]
    places = np.arange(count)
    keys = np.sort(drawn << 32 | places)  # by what was drawn, from the first place up
    grouped, group = (keys & 0xFFFFFFFF).astype(np.int32), (keys >> 32).astype(np.int32)
    same = group[1:] == group[:-1]

    before = np.full(count, -1, np.int32)  # the exchange before, which drew the same
    before[grouped[:-1][same]] = grouped[1:][same]
    filled = np.full(count, -1, np.int32)  # the last exchange that drew a place before that place had its own
    firsts = np.concatenate([np.ones(min(count, 1), np.bool_), ~same])
    filled[group[firsts]] = grouped[firsts]
    filled = np.where(filled == places, before, filled)

    begun = np.where(filled < 0, places, filled)  # becomes where the content of a place began
    while not np.array_equal(further := begun[begun], begun):
        begun = further
    source = np.where(before < 0, drawn, begun[before])
    return numbers[source]
