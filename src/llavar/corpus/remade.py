"""Files that were removed from a corpus and are needed once more: they are made again, or it is said why not.

``llavar corpus clean`` removes downloads, and pictures of rows that were left out. Whoever is given an item
whose file has gone gets it back from where it came. It has to be the same: all that is known of the item was
found in that file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from llavar.corpus.crew import Lost
from llavar.corpus.item import Item
from llavar.corpus.scanning import SCAN
from llavar.corpus.stage import FetchingStage, MakingStage, Outcome, RowStage, Stage
from llavar.records import Reject

Key = tuple[int, int]
Results = Callable[[RowStage, Iterator[tuple[Key, Item]], ExitStack], Iterable[tuple[Key, Outcome | Lost]]]
"""Has a stage work on items, and gives what came of them under their keys."""


@dataclass(frozen=True, slots=True)
class Remade:
    """``read`` gives the items that a stage kept of a shard."""

    stages: Mapping[str, Stage]
    read: Callable[[str, int], Sequence[Item]]
    results: Results

    def downloads(self, maker: str, items: Sequence[Item]) -> Iterator[tuple[int, str]]:
        """Have what the stage ``maker`` fetched; places in ``items`` where it cannot be had, and why."""
        stage = self.stages.get(maker)
        if not isinstance(stage, FetchingStage):
            return
        gone = [place for place, item in enumerate(items) if stage.is_gone(item)]
        for place, outcome in stage.run([items[place] for place in gone]) if gone else ():
            if outcome != items[gone[place]]:
                is_reject = isinstance(outcome, Reject)
                yield gone[place], outcome.detail if is_reject else "its URL gives another picture now"

    def pictures(self, stage: str, shard: int, items: Mapping[int, Item]) -> Iterator[tuple[int, str]]:
        """Have the pictures that ``stage`` needs of a shard; places where one cannot be had, and why."""
        names = [SCAN, *self.stages]
        maker = next((one for one in self.stages.values() if isinstance(one, MakingStage)), None)
        if maker is None or names.index(stage) <= names.index(maker.name) or not maker.has_lost:
            return
        gone = {item.id: place for place, item in items.items() if maker.is_gone(item)}
        if not gone:
            return
        before = names[names.index(maker.name) - 1]
        given = [item for item in self.read(before, shard) if item.id in gone]
        for place, why in self._made(maker, before, given, items, gone):
            yield gone[given[place].id], why

    def _made(
        self,
        maker: MakingStage,
        before: str,
        given: Sequence[Item],
        items: Mapping[int, Item],
        gone: Mapping[str, int],
    ) -> Iterator[tuple[int, str]]:
        lost = dict(self.downloads(before, given))
        yield from lost.items()
        tasks = (((0, place), item) for place, item in enumerate(given) if place not in lost)
        with ExitStack() as stack:
            for (_, place), outcome in self.results(maker, tasks, stack):
                if not isinstance(outcome, Item):
                    yield place, outcome.detail
                elif outcome.file != items[gone[outcome.id]].file:
                    yield place, "what it was made of is another picture now"
