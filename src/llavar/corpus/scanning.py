"""What a source gives, cut into shards: the first files of a corpus."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from llavar.corpus.item import Item, Origin, Rejected
from llavar.corpus.stage import Outcome
from llavar.records import Reject

SCAN = "scan"

Entry = Outcome | Rejected
"""What a source says of one of its entries."""


def shards_of(entries: Iterable[Entry], size: int) -> Iterator[tuple[list[Entry], bool]]:
    """Shards of ``size`` entries, and whether it is the last one. None where there are no entries."""
    coming = iter(entries)
    held = list(itertools.islice(coming, size))
    while held:
        following = list(itertools.islice(coming, size))
        yield held, not following
        held = following


def outcomes_of(entries: Sequence[Entry]) -> tuple[list[Outcome], list[Item]]:
    """The outcomes of entries, and the items that they are of: what is known of it where one is rejected."""
    outcomes = [entry.reject if isinstance(entry, Rejected) else entry for entry in entries]
    return outcomes, [item_of(entry) for entry in entries]


def item_of(entry: Entry) -> Item:
    """The item of an entry; of a reject of which its source says nothing else, one that has its id alone."""
    if isinstance(entry, Rejected):
        return entry.item
    return Item(id=entry.id, origin=Origin(source=SCAN)) if isinstance(entry, Reject) else entry
