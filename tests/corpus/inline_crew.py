"""A crew that does its items in this process, for tests of what stands around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from llavar.corpus.crew import Maker
from llavar.corpus.crews import ItemKey
from llavar.corpus.item import Item
from llavar.corpus.stage import Outcome


class Here:
    """Stands for the processes of this machine; nothing that hangs or dies may be given to it."""

    def __init__(self, work: Callable[[Item], Outcome]) -> None:
        self._work = work

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def results(self, tasks: Iterable[tuple[ItemKey, Item]]) -> Iterator[tuple[ItemKey, Outcome]]:
        return ((key, self._work(item)) for key, item in tasks)


def crew(_crews: object, maker: Maker[Callable[[Item], Outcome]], **_settings: Any) -> Here:
    """For :meth:`llavar.corpus.crews.LocalCrews.crew`."""
    return Here(maker())
