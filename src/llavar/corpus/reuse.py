"""What need not be computed again where the items of a shard change: outcomes of those that have not changed.

An item's outcome in a stage that works item by item, or many at once, follows from that item alone. So where
one of a thousand is taken out, or is another picture now, the others keep what OCR and the teacher have made
of them; and where all of them have got other clusters, they keep what was read. The old files are linked
aside under the shard's number, and are of use only under the settings that they were made with.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from llavar.corpus.item import Item, Rejected
from llavar.corpus.manifest import Manifest
from llavar.corpus.parquet import Table
from llavar.corpus.stage import AddingStage, Outcome, Stage
from llavar.errors import DataError
from llavar.records import Reject

FOLDER = "reuse"


class Reuse:
    """The old files in the folder of a corpus; without them, nothing is of use."""

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER

    def keep(self, stage: str, shard: int, files: Iterable[Path], *, key: str, given: str) -> None:
        """Link ``files`` (items given, kept, rejects) aside, with the key and the hash of the items given.

        What an earlier call left stays: it was stopped, and what it kept is the old state.
        """
        told = self._path(stage, shard, "json")
        if told.is_file():
            return
        self.folder.mkdir(exist_ok=True)
        for file, name in zip(files, _NAMES, strict=True):
            target = self._path(stage, shard, name)
            target.unlink(missing_ok=True)
            try:
                os.link(file, target)
            except OSError:
                shutil.copyfile(file, target)
        told.write_text(json.dumps({"key": key, "given": given}))

    def keep_chain(
        self,
        manifest: Manifest,
        chain: Sequence[str],
        files: Callable[[str, int], tuple[Path, Path]],
        shards: Container[int] | None = None,
    ) -> None:
        """Put the stages of a ``chain`` behind its first aside, or these ``shards`` of them.

        ``files`` gives the files of a shard of a stage: of items and of rejects.
        """
        for before, stage in pairwise(chain):
            given = {record.shard: record.sha256 for record in manifest.records(before)}
            for record in manifest.records(stage):
                number = record.shard
                if number not in given or (shards is not None and number not in shards):
                    continue
                three = (files(before, number)[0], *files(stage, number))
                if all(file.is_file() for file in three):
                    self.keep(stage, number, three, key=record.key, given=given[number])

    def outcomes(
        self, stage: Stage, shard: int, items: Sequence[Item], key_of: Callable[[str], str]
    ) -> Iterator[tuple[int, Outcome]]:
        """Places in ``items`` with what came of equal items, or of those that are equal to this stage.

        ``key_of`` gives the key that a shard has now by the hash of the items given.
        """
        try:
            told = json.loads(self._path(stage.name, shard, "json").read_bytes())
            if told["key"] != key_of(told["given"]):
                return
            given, kept = (Table(Item).read(self._path(stage.name, shard, name)) for name in _NAMES[:2])
            rejected = Table(Rejected).read(self._path(stage.name, shard, _NAMES[2]))
        except (OSError, ValueError, KeyError, DataError):  # gone or torn: it is computed again
            return
        before = {item.id: item for item in given}
        after: dict[str, Outcome] = {item.id: item for item in kept}
        after.update((one.reject.id, one.reject) for one in rejected)
        basis = stage.basis if isinstance(stage, AddingStage) else _all
        for place, item in enumerate(items):
            if item.id in after and item.id in before and basis(before[item.id]) == basis(item):
                yield place, _outcome(stage, item, after[item.id])

    def clear(self, stage: str | None = None) -> None:
        """Remove what was put aside of a stage, or all of it."""
        if stage is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for path in self.folder.glob(f"{stage}-[0-9]*"):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # others are in it, or it was never made
            self.folder.rmdir()

    def _path(self, stage: str, shard: int, name: str) -> Path:
        return self.folder / f"{stage}-{shard:06d}.{name}"


def _all(item: Item) -> object:
    return item


def _outcome(stage: Stage, item: Item, old: Outcome) -> Outcome:
    """What comes of an item, by what came of one with an equal basis."""
    if isinstance(old, Reject) or not isinstance(stage, AddingStage):
        return old
    return replace(item, **{name: getattr(old, name) for name in stage.adds})


_NAMES = ("given.parquet", "kept.parquet", "rejects.parquet")
