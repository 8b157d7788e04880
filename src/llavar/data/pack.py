"""Put rows of different lengths into sequences of one capacity, with little left empty.

Planned from lengths alone, as a pure function of its arguments: first-fit decreasing inside windows of a
shuffled order, so that packs stay random samples of the data, and the packs of an epoch can be known before
it begins.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from llavar.data.shuffle import Draws, shuffled
from llavar.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PackPlan:
    """Row numbers of every pack, in training order. ``capacity`` is a pack's, ``tokens`` are all rows'."""

    packs: tuple[tuple[int, ...], ...]
    capacity: int
    tokens: int

    @property
    def padding(self) -> float:
        """Share of the capacity that stays empty."""
        return 1 - self.tokens / (len(self.packs) * self.capacity) if self.packs else 0.0


def plan(
    lengths: Sequence[int], capacity: int, *, seed: int = 0, epoch: int = 0, window: int = 512, most: int = 64
) -> PackPlan:
    """Packs of at most ``capacity`` tokens and ``most`` rows that hold every row exactly once.

    Raises:
        ConfigError: a row is longer than the capacity.
    """
    longest = max(lengths, default=0)
    if longest > capacity:
        _refuse(list(lengths).index(longest), longest, capacity)
    rng = random.Random(f"pack:{seed}:{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    packs: list[tuple[int, ...]] = []
    for start in range(0, len(order), window):
        packs += first_fit(order[start : start + window], lengths, capacity, most)
    rng.shuffle(packs)
    return PackPlan(packs=tuple(packs), capacity=capacity, tokens=sum(lengths))


def first_fit(
    rows: Sequence[int], lengths: Sequence[int] | Mapping[int, int], capacity: int, most: int = 64
) -> list[tuple[int, ...]]:
    """First-fit decreasing: the longest row first, each into the first pack with room for it.

    ``rows`` index ``lengths``; none may be longer than ``capacity``.
    """
    if most == 1:
        return [(row,) for row in sorted(rows, key=lambda row: (-lengths[row], row))]
    packs: list[list[int]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        fitting = (i for i, free in enumerate(room) if free >= lengths[row] and len(packs[i]) < most)
        at = next(fitting, None)
        if at is None:
            packs.append([])
            room.append(capacity)
            at = len(packs) - 1
        packs[at].append(row)
        room[at] -= lengths[row]
    return [tuple(pack) for pack in packs]


def order(
    lengths: NDArray[np.int32], capacity: int, *, seed: int = 0, epoch: int = 0, window: int = 512
) -> NDArray[np.int64]:
    """The row numbers of :func:`plan` with one row a pack, at a few bytes for each of a million rows.

    Raises:
        ConfigError: a row is longer than the capacity.
    """
    if len(lengths) and lengths.max() > capacity:
        _refuse(int(lengths.argmax()), int(lengths.max()), capacity)
    draws = Draws(f"pack:{seed}:{epoch}")
    numbers = shuffled(np.arange(len(lengths)), draws)
    keys = (capacity - lengths[numbers].astype(np.int64)) << 32 | numbers  # the longest first, then by number
    whole = len(keys) // window * window
    keys[:whole].reshape(-1, window).sort(axis=1)
    keys[whole:].sort()
    return shuffled(keys & 0xFFFFFFFF, draws)


def _refuse(row: int, length: int, capacity: int) -> NoReturn:
    raise ConfigError(
        f"row {row} has {length} tokens and a pack holds {capacity}; "
        "raise the capacity or lower the maximal length"
    )
