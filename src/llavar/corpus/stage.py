"""What a stage of the corpus is: a function from a shard of items to a shard of items.

A stage gives each item back with its part added, or a :class:`~llavar.records.Reject` that says why it ends
here. It holds no state between shards and reads nothing but its settings, so that shards can be computed in
any order, anywhere, again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from llavar.corpus.crew import Maker
from llavar.corpus.item import Item, Rejected
from llavar.records import Reject

Outcome = Item | Reject
Judge = Callable[[Sequence[Item]], list[Outcome]]
"""The outcomes of one shard, in its order."""


class Stage(Protocol):
    """What all stages have. ``name`` names its folder and stands in its rejects.

    ``version`` is raised when the code of a stage gives other results for equal settings; ``settings`` is a
    dataclass, and everything in it decides what comes out. A change of either redoes the stage and those
    after it, as far as their input changes.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    @property
    def settings(self) -> object: ...


@runtime_checkable
class RowStage(Stage, Protocol):
    """Works on one item at a time, in processes that are ended when one takes longer than ``time_limit``.

    ``time_limit`` is in seconds; None computes in the runner's own process: for work that can neither hang
    nor die.
    """

    @property
    def time_limit(self) -> float | None: ...

    def maker(self) -> Maker[Callable[[Item], Outcome]]:
        """Loads the function in each process."""
        ...


@runtime_checkable
class ShardStage(Stage, Protocol):
    """Works on many items at once, for whom waiting overlaps: downloads, a teacher behind an endpoint."""

    def run(self, items: Sequence[Item]) -> Iterator[tuple[int, Outcome]]:
        """The outcome of every item under its place in ``items``, in any order, each as soon as it is known.

        It keeps its own limits of time and raises for nothing that concerns one item alone.
        """
        ...


@runtime_checkable
class AddingStage(Stage, Protocol):
    """Adds fields to an item that follow from a part of it: an item that changes elsewhere keeps them."""

    adds: ClassVar[tuple[str, ...]]

    def basis(self, item: Item) -> object:
        """What of an item decides these fields, or its reject."""
        ...


@runtime_checkable
class FetchingStage(ShardStage, Protocol):
    """Makes files that only the next stage reads, so that they may be removed behind it.

    Where they are needed once more, :meth:`run` is given the items that it had made, and gives equal ones.
    """

    def is_gone(self, item: Item) -> bool:
        """Whether the file of an item that it made is not there any more."""
        ...


@runtime_checkable
class MakingStage(RowStage, Protocol):
    """Makes a file of each item, for all stages behind it; given an item again, it makes an equal one."""

    @property
    def has_lost(self) -> bool:
        """Whether any such file may have been removed."""
        ...

    def is_gone(self, item: Item) -> bool:
        """Whether the file of an item that it made is not there any more."""
        ...


@runtime_checkable
class GatherStage(Stage, Protocol):
    """Looks at all shards before it decides on each item: duplicates, clusters."""

    def decide(self, shards: Iterable[list[Item]]) -> bytes:
        """What :meth:`judge` needs of the whole.

        The shards come in order, one in memory at a time, and may be gone through more than once.
        """
        ...

    def judge(self, decision: bytes) -> Judge:
        """What gives the outcomes of one shard after the other; the decision is parsed once for all."""
        ...


class Source(Protocol):
    """Where items come from."""

    @property
    def settings(self) -> object: ...

    def fingerprint(self) -> str:
        """Changes when the source has other items."""
        ...

    def items(self) -> Iterator[Outcome | Rejected]:
        """Items in a fixed order, and rejects for entries that can be none, with what is known of them.

        Ids of items are not repeated.
        """
        ...
