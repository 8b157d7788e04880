"""Who does the items of a stage: processes of this machine, or the nodes of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Protocol, Self

from llavar.corpus.crew import Crew, Lost, Maker
from llavar.corpus.item import Item
from llavar.corpus.stage import Outcome

ItemKey = tuple[int, int]
"""A shard, and a place in it."""


class ItemCrew(Protocol):
    """Does items of one stage. It is closed by leaving it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def results(
        self, tasks: Iterable[tuple[ItemKey, Item]]
    ) -> Generator[tuple[ItemKey, Outcome | Lost], None, None]:
        """What came of each item, in any order, under its key; items are taken as they are needed.

        Raises:
            LlavarError: what a process said while it loaded, or that it could not load.
        """
        ...


class Crews(Protocol):
    """Gives each stage its crew."""

    def crew(
        self, maker: Maker[Callable[[Item], Outcome]], *, workers: int | None, time_limit: float
    ) -> ItemCrew:
        """``workers`` is None where as many as there are CPUs are wanted; ``time_limit`` is for one item."""
        ...


@dataclass(frozen=True, slots=True)
class LocalCrews:
    """Processes of this machine."""

    def crew(
        self, maker: Maker[Callable[[Item], Outcome]], *, workers: int | None, time_limit: float
    ) -> ItemCrew:
        return Crew[ItemKey, Item, Outcome](maker=maker, workers=workers or cpus(), time_limit=time_limit)


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
