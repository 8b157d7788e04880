"""The items that the stage ``teach`` of a corpus is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llavar.corpus.item import Item
from llavar.corpus.shards import Corpus, existing
from llavar.errors import ConfigError


class Given:
    """The shards of a stage, read anew each time they are gone through."""

    def __init__(self, corpus: Corpus, stage: str) -> None:
        self._corpus, self._stage = corpus, stage

    def __iter__(self) -> Iterator[list[Item]]:
        return self._corpus.items(self._stage)


def given_to(root: Path, stage: str) -> Given:
    """What the stage before ``stage`` has kept, in the corpus in ``root``.

    Raises:
        NotFoundError: there is no corpus.
        ConfigError: its last run had no such stage, or has not come so far.
    """
    corpus = existing(root)
    chain = corpus.chain()
    names = [one.stage for one in chain]
    if stage not in names[1:]:
        raise ConfigError(f"the corpus in {root} has no stage {stage!r}; run a recipe whose rows need it")
    place = names.index(stage)
    if chain[place - 1].rows < (chain[place - 2].kept if place > 1 else 0) or not chain[place - 1].shards:
        raise ConfigError(
            f"the corpus in {root} has not come to the stage {stage!r} yet; run the recipe first, until it "
            "stops there"
        )
    return Given(corpus, names[place - 1])
