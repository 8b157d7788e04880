"""Taking pictures out of a corpus, everywhere, for good.

``removed.jsonl`` in the folder of a corpus remembers hashes and nothing else: of files, of their pixels, of
URLs and paths. An entry of the source whose URL or path is among them is withheld before anything is known of
it; a picture that comes from elsewhere with such a file or such pixels ends behind ``open``. Removing records
what is to go and runs the stages again, so that what is left is what a run would have made that never had the
picture. Copies that were left out as its duplicates go with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from llavar.corpus.dedup import EXACT, NEAR
from llavar.corpus.item import Item
from llavar.corpus.manifest import Manifest
from llavar.corpus.reuse import Reuse
from llavar.corpus.rows import path_of
from llavar.corpus.scanning import SCAN, Entry, item_of
from llavar.corpus.shards import MANIFEST, STAGES, Corpus, existing
from llavar.corpus.stage import Outcome, Source
from llavar.corpus.teaching.lesson import Request, lesson, take
from llavar.corpus.teaching.replies import STORE, Paid, Replies
from llavar.corpus.teaching.stage import EndpointTeachStage
from llavar.errors import ConfigError, DataError
from llavar.records import Reject

REMOVED = "removed.jsonl"
STAGE = "removed"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Mark(StrEnum):
    """What a hash is of."""

    FILE = "file"
    PIXELS = "pixels"
    URL = "url"
    PATH = "path"


Marked = tuple[Mark, str]
"""A kind and the 64 hexadecimal digits of a SHA-256."""
_REASON = "removed on request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """What may not come in."""

    marks: frozenset[Marked] = frozenset()

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(sorted(self.marks)).encode()).hexdigest()

    def source_mark(self, item: Item) -> Marked | None:
        """By which of them an entry of the source is withheld."""
        return next((mark for mark in _source_marks(item) if mark in self.marks), None)

    def is_picture(self, item: Item) -> bool:
        return any(mark in self.marks for mark in _picture_marks(item))


def read_removed(root: Path) -> Withdrawn:
    """The list of a corpus; an empty one where nothing was removed.

    Raises:
        DataError: the list is damaged.
    """
    path = root / REMOVED
    if not path.is_file():
        return Withdrawn()
    try:
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        return Withdrawn(marks=frozenset((Mark(line["kind"]), str(line["sha256"])) for line in lines))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}); mend it, since nobody else knows what was removed"
        ) from error


def _save(root: Path, withdrawn: Withdrawn) -> None:
    lines = (json.dumps({"kind": kind, "sha256": digest}) for kind, digest in sorted(withdrawn.marks))
    aside = root / (REMOVED + ".part")
    with aside.open("w") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(root / REMOVED)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _source_marks(item: Item) -> Iterator[Marked]:
    if item.origin.url:
        yield Mark.URL, _hash(item.origin.url)
    if item.origin.path:
        yield Mark.PATH, _hash(item.origin.path)


def _picture_marks(item: Item) -> Iterator[Marked]:
    if item.file is not None:
        yield Mark.FILE, item.file.sha256
        if item.file.original_sha256:
            yield Mark.FILE, item.file.original_sha256
    if item.origin.download is not None and item.origin.download.sha256:
        yield Mark.FILE, item.origin.download.sha256
    if item.fingerprint is not None:
        yield Mark.PIXELS, item.fingerprint.pixels


# ------------------------------------------------------------------------------------------- keeping out


@dataclass(frozen=True, slots=True)
class Withheld:
    """A source without what was removed from a corpus: a reject that names nothing stands in its place."""

    source: Source
    withdrawn: Withdrawn

    @property
    def settings(self) -> object:
        return self.source.settings

    def fingerprint(self) -> str:
        return _hash(self.source.fingerprint() + self.withdrawn.digest)

    def items(self) -> Iterator[Entry]:
        for entry in self.source.items():
            mark = self.withdrawn.source_mark(item_of(entry))
            yield entry if mark is None else Reject(id=f"removed {mark[1][:16]}", stage=SCAN, reason=_REASON)


def withheld(source: Source, root: Path) -> Source:
    """A source as the corpus in ``root`` may use it."""
    withdrawn = read_removed(root)
    return Withheld(source, withdrawn) if withdrawn.marks else source


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedSettings:
    """The list, as one hash."""

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedStage:
    """Ends pictures that were removed and come again from elsewhere."""

    withdrawn: Withdrawn
    time_limit: None = None
    name: ClassVar[str] = STAGE
    version: ClassVar[int] = 1

    @property
    def settings(self) -> RemovedSettings:
        return RemovedSettings(digest=self.withdrawn.digest)

    def maker(self) -> RemovedStage:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        return self.looked_at

    def looked_at(self, item: Item) -> Outcome:
        if self.withdrawn.is_picture(item):
            return Reject(id=item.id, stage=STAGE, reason=_REASON)
        return item


def removed_stages(root: Path) -> list[RemovedStage]:
    """The stage behind ``open``, where anything was removed."""
    withdrawn = read_removed(root)
    return [RemovedStage(withdrawn=withdrawn)] if withdrawn.marks else []


# ------------------------------------------------------------------------------------------- taking out


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to go: hashes of files, and URLs as they stand in the source."""

    sha256: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = next((digest for digest in self.sha256 if not _SHA256.fullmatch(digest)), None)
        if wrong is not None:
            raise ConfigError(f"{wrong!r:.80} is no SHA-256; give its 64 hexadecimal digits in lower case")
        if not self.sha256 and not self.urls:
            raise ConfigError("nothing is named that should be removed; give --sha256 or --url")

    @property
    def marks(self) -> frozenset[Marked]:
        given = [(Mark.FILE, digest) for digest in self.sha256]
        return frozenset([*given, *((Mark.URL, _hash(url.strip())) for url in self.urls)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What was removed: ids, and files of the user's own that were left where they are."""

    ids: tuple[str, ...]
    shards: int
    left: tuple[str, ...]


@dataclass(slots=True)
class _Found:
    """Items that have to go, by id, and the shards that they are in."""

    items: dict[str, Item] = field(default_factory=dict[str, Item])
    shards: set[int] = field(default_factory=set[int])


def remove(
    root: Path, wanted: Wanted, rerun: Callable[[], None], replies_of: Callable[[Item], Sequence[str]]
) -> Removal:
    """Take pictures out of the corpus in ``root``.

    ``rerun`` computes the stages and products of the corpus again. ``replies_of`` gives the keys of what a
    teacher was asked about an item. Stopped at any moment, the same call goes on.

    Raises:
        NotFoundError: there is no corpus.
        LlavarError: whatever ``rerun`` raises; the list of what was removed is kept by then.
    """
    corpus = existing(root)
    withdrawn = Withdrawn(marks=read_removed(root).marks | wanted.marks)
    found = _found(corpus, withdrawn)
    marks = {mark for item in found.items.values() for mark in (*_source_marks(item), *_picture_marks(item))}
    keys = [key for item in found.items.values() for key in replies_of(item)]
    _save(root, Withdrawn(marks=withdrawn.marks | marks))
    _keep(corpus, found.shards)
    _forget_replies(root, keys)
    rerun()
    purge(root)
    _clear(root)
    paths = {path for item in found.items.values() for path in (path_of(item), item.origin.path)}
    left = tuple(sorted(path for path in paths if _is_outside(path)))
    return Removal(ids=tuple(sorted(found.items)), shards=len(found.shards), left=left)


def _is_outside(path: str) -> bool:
    """Whether a path is of a file, or of a picture in a tar, that is no part of the corpus."""
    file = Path(path)
    return file.is_absolute() and (file.exists() or file.parent.is_file())


def _found(corpus: Corpus, withdrawn: Withdrawn) -> _Found:
    """Everything by its fullest record, and what was left out as a copy of it, or what it is a copy of."""
    copies = _copies(corpus)
    wanted: set[str] = set()
    for _, item in _ended(corpus):
        if withdrawn.source_mark(item) is not None or withdrawn.is_picture(item):
            wanted.add(copies.get(item.id, item.id))
    found = _Found()
    for shard, item in _ended(corpus):
        if copies.get(item.id, item.id) in wanted:
            found.items[item.id] = item
            found.shards.add(shard)
    return found


def _ended(corpus: Corpus) -> Iterator[tuple[int, Item]]:
    """Items with their shards: where they were rejected, or behind the last stage their shard has reached."""
    reached: dict[int, str] = {}
    for stage in [summary.stage for summary in corpus.chain()]:
        for shard, ended in zip(corpus.shards(stage), corpus.rejected(stage), strict=True):
            reached[shard] = stage
            yield from ((shard, one.item) for one in ended)
    for shard, stage in reached.items():
        yield from ((shard, item) for item in corpus.read(corpus.path(stage, shard)))


def _copies(corpus: Corpus) -> dict[str, str]:
    """Ids of what was left out as a copy -> the one that stayed, across both stages of duplicates."""
    first: dict[str, str] = {}
    chain = [summary.stage for summary in corpus.chain()]
    for stage in (EXACT, NEAR):
        for one in (one for ended in (corpus.rejected(stage) if stage in chain else ()) for one in ended):
            detail = one.reject.detail
            first[one.reject.id] = detail.rpartition(", ")[0] if stage == NEAR else detail
    return {id: _last(first, id) for id in first}


def _last(first: dict[str, str], id: str) -> str:
    while id in first:
        id = first[id]
    return id


def _keep(corpus: Corpus, shards: set[int]) -> None:
    """Put the files of changed shards aside, so that only what was removed is computed anew: nothing."""
    with Manifest(corpus.root / MANIFEST) as manifest:
        Reuse(corpus.root).keep_chain(manifest, manifest.chain(), corpus.files, shards)


def requests_of(stage: EndpointTeachStage, item: Item) -> list[str]:
    """The keys of what a teacher was asked about an item; its replies are kept under them."""
    keys: list[str] = []
    if not item.readings or not (stage.root / STORE).is_file():
        return keys
    with Replies(stage.root / STORE) as replies:

        def known(request: Request) -> Paid | None:
            keys.append(request.key)
            return replies.get(request.key)

        _, evidence = stage.known(item)
        take(lesson(stage.prompt, evidence, stage.teacher.lesson), known)
    return keys


def _forget_replies(root: Path, keys: Sequence[str]) -> None:
    if keys and (root / STORE).is_file():
        with closing(sqlite3.connect(root / STORE, isolation_level=None)) as base:
            base.execute("PRAGMA secure_delete=ON")
            base.executemany("DELETE FROM replies WHERE key=?", ((key,) for key in keys))


def purge(root: Path) -> None:
    """Remove the files of pictures that were removed, after a run that may have fetched one again."""
    digests = {digest for kind, digest in read_removed(root).marks if kind is Mark.FILE}
    for folder in ("fetched", "images") if digests else ():
        for path in (root / folder).glob("*/*"):
            if path.name.partition(".")[0] in digests:
                path.unlink()
    if digests:
        Reuse(root).clear()


def _clear(root: Path) -> None:
    """Remove what old runs left behind them: stages that are none any more, journals, cards."""
    chain = {summary.stage for summary in existing(root).chain()}
    for folder in (root / STAGES).iterdir():
        if folder.name not in chain:
            shutil.rmtree(folder)
            with Manifest(root / MANIFEST) as manifest:
                manifest.cut(folder.name, 0)
    for journal in (root / STAGES).glob("*/*.journal"):
        journal.unlink()
    for card in (root / "products").glob("card.*"):  # they show pictures and rows
        card.unlink()
