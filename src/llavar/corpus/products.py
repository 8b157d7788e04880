"""What a corpus is for: rows in the formats that trainers read, their pictures, and what was left out.

The folder ``products`` holds ``stage1.json`` and ``stage2.json`` in LLaVA's format; the same after LLaVA's
own rows where the recipe names their files; Parquet files and WebDataset tars with the pictures inside;
``images`` with a link to every picture under the name that rows call it by; ``names.jsonl``, which says what
each name stands for; and ``rejects.jsonl``. All of it follows from the shards and the recipe, and is written
again only when they change.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic import TypeAdapter, ValidationError

from llavar.corpus.formats import Format, JsonWriter, ParquetWriter, ProductRow, TarWriter, Writer, raw_rows
from llavar.corpus.item import Item, Rejected
from llavar.corpus.manifest import Manifest
from llavar.corpus.naming import Named, Names, Naming, Set, fakes_in
from llavar.corpus.rows import path_of
from llavar.corpus.shards import MANIFEST, Corpus
from llavar.data import cache
from llavar.errors import ConfigError, DataError, NotFoundError, StorageError
from llavar.records import Conversation

PRODUCTS = "products"
IMAGES = "images"
NAMES = "names.jsonl"
REJECTS = "rejects.jsonl"
SUMMARY = "products.json"
_VERSION = 1
_ROOM = 64 * 2**20
"""Bytes that stay free on the disk."""

_REJECTED, _ITEM = TypeAdapter(Rejected), TypeAdapter(Item)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductChoice:
    """Which products there are."""

    formats: tuple[Format, ...] = (Format.JSON,)
    """Parquet and WebDataset hold the pictures, and so the rows of this corpus only."""
    names: Naming = Naming.FAKE
    merge_stage1: Path | None = None
    """LLaVA's ``chat.json`` (CC3M 595K): its rows, then ours, become ``chat_llavar.json``."""
    merge_stage2: Path | None = None
    """LLaVA's ``llava_instruct_150k.json``, which becomes ``llava_instruct_150k_llavar.json``."""
    rows_per_file: int = 5000
    """Of Parquet files and tars."""

    def __post_init__(self) -> None:
        if not self.formats or self.rows_per_file < 1:
            raise ConfigError(
                f"products have {len(self.formats)} formats of {self.rows_per_file} rows per file; give at "
                f"least one of {', '.join(Format)}, and at least 1"
            )
        if (self.merge_stage1 or self.merge_stage2) and Format.JSON not in self.formats:
            raise ConfigError(
                "LLaVA's files are merged as JSON, which is not among the formats of the products; add json"
            )
        if self.merge_stage1 and self.merge_stage2 and self.merge_stage1.stem == self.merge_stage2.stem:
            raise ConfigError(
                f"both files to be merged are called {self.merge_stage1.name}; rename one of the two"
            )

    def within(self, base: Path) -> ProductChoice:
        """With whole paths, those given being relative to ``base``."""
        one, two = self.merge_stage1, self.merge_stage2
        return replace(
            self,
            merge_stage1=one and (base / one).absolute(),
            merge_stage2=two and (base / two).absolute(),
        )

    def merged(self, kind: Set) -> Path | None:
        return self.merge_stage1 if kind is Set.STAGE1 else self.merge_stage2


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A file of the products."""

    file: str
    bytes: int
    rows: int
    """0 where it holds no rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """What was written: rows by set, rejects by stage and reason. ``written`` is False if all was there."""

    folder: Path
    stage1: int
    stage2: int
    rejects: Counter[tuple[str, str]]
    files: tuple[Product, ...] = ()
    written: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductSummary:
    """What stands in ``products.json``, written when all the rest is there."""

    key: str
    stage1: int
    stage2: int
    images: int
    rejects: tuple[tuple[str, str, int], ...]
    files: tuple[Product, ...]


_SUMMARY = TypeAdapter(ProductSummary)


def write_products(
    corpus: Corpus, stages: Sequence[str], choice: ProductChoice | None = None, *, base: Path | None = None
) -> Products:
    """Rows of the items that came through all ``stages``; rejects of each of them, a line each with its item.

    Nothing but one shard lies in memory at a time, and the names. Paths of ``choice`` start from ``base``.

    Raises:
        NotFoundError, DataError: a file to be merged is not there or malformed; a picture is not there any
            more, or another than it was.
        StorageError: the disk has no room.
    """
    job = _Job(corpus, stages, choice or ProductChoice(), base or Path())
    held = job.held()
    if held is not None:
        return job.products(held, written=False)
    try:
        return job.products(job.write(), written=True)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageError(
            f"the disk of {job.folder} is full; free some space and run again: nothing is lost"
        ) from error


@dataclass(slots=True)
class _Job:
    """One call of :func:`write_products`."""

    corpus: Corpus
    stages: Sequence[str]
    choice: ProductChoice
    base: Path
    _pictures: set[str] = field(default_factory=set[str])

    @property
    def folder(self) -> Path:
        return self.corpus.root / PRODUCTS

    def products(self, summary: ProductSummary, *, written: bool) -> Products:
        return Products(
            folder=self.folder,
            stage1=summary.stage1,
            stage2=summary.stage2,
            rejects=Counter({(stage, reason): count for stage, reason, count in summary.rejects}),
            files=summary.files,
            written=written,
        )

    def _merged(self, kind: Set) -> Path | None:
        path = self.choice.merged(kind)
        return None if path is None else self.base / path

    def _key(self) -> str:
        """Changes with anything that the products are made of."""
        with Manifest(self.corpus.root / MANIFEST) as manifest:
            shards = [(name, record.key) for name in self.stages for record in manifest.records(name)]
        merged = [path and cache.identity(path) for path in map(self._merged, Set)]
        formats = sorted(self.choice.formats)
        return cache.key(_VERSION, shards, merged, formats, self.choice.names, self.choice.rows_per_file)

    def held(self) -> ProductSummary | None:
        """What is there already, if it is what is wanted."""
        summary = summary_of(self.corpus.root)
        if summary is None:
            return None
        try:
            sizes = [(self.folder / product.file).stat().st_size for product in summary.files]
            images = sum(1 for _ in os.scandir(self.folder / IMAGES))
        except OSError:
            return None
        whole = sizes == [product.bytes for product in summary.files] and images == summary.images
        return summary if whole and summary.key == self._key() else None

    # ------------------------------------------------------------------------------------------ writing

    def write(self) -> ProductSummary:
        key = self._key()
        (self.folder / IMAGES).mkdir(parents=True, exist_ok=True)
        (self.folder / SUMMARY).unlink(missing_ok=True)
        self._check_room()
        names = Names(self.choice.names, taken=self._taken())
        with _aside(self.folder / NAMES).open("wb") as file:
            counts = {kind: self._set(kind, names, file) for kind in Set}
            _synced(file)
        _aside(self.folder / NAMES).replace(self.folder / NAMES)
        rejects = self._rejects()
        made = [product for _, products in counts.values() for product in products]
        made += [_product(self.folder / name, 0) for name in (NAMES, REJECTS)]
        self._clear({product.file for product in made})
        summary = ProductSummary(
            key=key,
            stage1=counts[Set.STAGE1][0],
            stage2=counts[Set.STAGE2][0],
            images=len(self._pictures),
            rejects=tuple((*name, count) for name, count in sorted(rejects.items())),
            files=tuple(made),
        )
        _aside(self.folder / SUMMARY).write_bytes(_SUMMARY.dump_json(summary, indent=1))
        _aside(self.folder / SUMMARY).replace(self.folder / SUMMARY)
        return summary

    def _taken(self) -> frozenset[str]:
        """Names of the merged files that might be given here as well."""
        files = [path for path in map(self._merged, Set) if path is not None]
        return frozenset(stem for path in files for _, names in raw_rows(path) for stem in fakes_in(names))

    def _set(self, kind: Set, names: Names, log: BinaryIO) -> tuple[int, list[Product]]:
        """Write one set in all formats; how many rows of ours it has."""
        with ExitStack() as stack:
            writers = list(self._writers(kind, stack))
            packs = any(not isinstance(writer, JsonWriter) for writer in writers)
            count = 0
            for item, said in self._rows(kind):
                named = names.of(item, kind)
                self._picture(item, named)
                picture = _bytes_of(item, self.corpus.root) if packs else b""
                row = ProductRow(id=named.row, image=named.image, conversation=said, picture=picture)
                for writer in writers:
                    writer.add(row)
                log.write(_name_line(item, named, kind))
                count += 1
            made: list[Product] = []
            for writer in writers:
                rows = writer.count if isinstance(writer, JsonWriter) else 0
                made += [_product(path, rows) for path in writer.close()]
            return count, made

    def _rows(self, kind: Set) -> Iterator[tuple[Item, Conversation]]:
        for item in (item for items in self.corpus.items(self.stages[-1]) for item in items):
            said = item.stage1 if kind is Set.STAGE1 else item.stage2 and item.stage2.conversation
            if said is not None:
                yield item, said

    def _writers(self, kind: Set, stack: ExitStack) -> Iterator[Writer]:
        choice, merged = self.choice, self._merged(kind)
        wanted: list[Callable[[], Writer]] = []
        if Format.JSON in choice.formats:
            wanted.append(lambda: JsonWriter(self.folder / f"{kind}.json"))
            if merged is not None:
                wanted.append(lambda: JsonWriter(self.folder / f"{merged.stem}_llavar.json", merged))
        if Format.PARQUET in choice.formats:
            wanted.append(lambda: ParquetWriter(self.folder, kind, choice.rows_per_file))
        if Format.WEBDATASET in choice.formats:
            wanted.append(lambda: TarWriter(self.folder, kind, choice.rows_per_file))
        for make in wanted:
            writer = make()
            stack.callback(writer.abandon)
            yield writer

    def _picture(self, item: Item, named: Named) -> None:
        """The picture under its name: the same file where the disk is the same, else a copy."""
        source, target = self.corpus.root / path_of(item), self.folder / IMAGES / named.image
        self._pictures.add(named.image)
        try:
            there = source.stat()
        except OSError:
            raise NotFoundError(f"the picture {source} of {item.id!r} is gone; put it back") from None
        if item.file is not None and there.st_size != item.file.bytes:
            raise _changed(source, item)
        if target.exists() and (target.samefile(source) or _is_copy(target, there)):
            return
        aside = _aside(target)
        aside.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), aside)
        except OSError:  # another disk, or one without links
            shutil.copy2(source, aside)
        aside.replace(target)

    def _rejects(self) -> Counter[tuple[str, str]]:
        counts: Counter[tuple[str, str]] = Counter()
        with _aside(self.folder / REJECTS).open("wb") as file:
            for one in (one for name in self.stages for ended in self.corpus.rejected(name) for one in ended):
                counts[one.reject.stage, one.reject.reason] += 1
                file.write(_REJECTED.dump_json(one) + b"\n")
            for item in (item for items in self.corpus.items(self.stages[-1]) for item in items):
                for note in item.notes:  # a row that is missing, of an item that has the other one
                    counts[note.stage, note.reason] += 1
                    file.write(_REJECTED.dump_json(Rejected(reject=note, item=item)) + b"\n")
            _synced(file)
        _aside(self.folder / REJECTS).replace(self.folder / REJECTS)
        return counts

    def _clear(self, made: set[str]) -> None:
        """Remove what earlier recipes had left in the folder."""
        for path in self.folder.iterdir():
            if path.is_file() and path.name not in made and _is_ours(path):
                path.unlink()
        for entry in os.scandir(self.folder / IMAGES):
            if entry.name not in self._pictures:
                Path(entry.path).unlink()

    def _check_room(self) -> None:
        """Raises StorageError before anything is written, where it cannot fit."""
        last = self.stages[-1]
        paths = [self.corpus.path(last, shard) for shard in self.corpus.shards(last)]
        pictures, is_elsewhere = _bytes_of_pictures(paths, self.corpus.root, self.folder)
        packed = len(set(self.choice.formats) - {Format.JSON}) + is_elsewhere
        merged = sum(path.stat().st_size for path in map(self._merged, Set) if path is not None)
        text = 6 * sum(path.stat().st_size for path in paths)  # they are compressed
        needed = packed * pictures + merged + text + _ROOM
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise StorageError(
                f"the products need about {needed / 2**30:,.1f} GiB and the disk of {self.folder} has "
                f"{free / 2**30:,.1f}; free some space, or name fewer formats in the recipe"
            )


def summary_of(root: Path) -> ProductSummary | None:
    """What was written last of the corpus in ``root``; None if that was never finished."""
    try:
        return _SUMMARY.validate_json((root / PRODUCTS / SUMMARY).read_bytes())
    except (OSError, ValidationError):
        return None


def forget(root: Path) -> None:
    """Have the products of a corpus written again by the next run, equal shards or not."""
    (root / PRODUCTS / SUMMARY).unlink(missing_ok=True)


def _bytes_of_pictures(paths: Sequence[Path], root: Path, folder: Path) -> tuple[int, bool]:
    """What the pictures weigh, and whether they (the first of them) lie on another disk than ``folder``."""
    import pyarrow.parquet as parquet

    module: Any = parquet
    total, first = 0, ""
    for path in paths:
        held = cast("list[Any]", module.read_table(path, columns=["file"]).to_pylist())
        files = [cast("dict[str, Any]", row["file"]) for row in held if row["file"] is not None]
        total += sum(int(file["bytes"]) for file in files)
        first = first or next((str(file["path"]) for file in files), "")
    source = root / first
    return total, source.exists() and source.stat().st_dev != folder.stat().st_dev


def _is_ours(path: Path) -> bool:
    stem, ending = path.name.split(".")[0], path.suffix
    return ending == ".part" or (
        ending in (".json", ".parquet", ".tar") and (stem.startswith(tuple(Set)) or stem.endswith("_llavar"))
    )


def _is_copy(target: Path, source: os.stat_result) -> bool:
    there = target.stat()
    return there.st_size == source.st_size and there.st_mtime_ns == source.st_mtime_ns


def _bytes_of(item: Item, root: Path) -> bytes:
    path = root / path_of(item)
    data = path.read_bytes()
    if item.file is not None and hashlib.sha256(data).hexdigest() != item.file.sha256:
        raise _changed(path, item)
    return data


def _changed(path: Path, item: Item) -> DataError:
    return DataError(
        f"the picture {path} of {item.id!r} is not the one that was read; put it back as it was, or make the "
        "corpus anew in another folder"
    )


def _name_line(item: Item, named: Named, kind: Set) -> bytes:
    file = item.file
    line = {
        "row": named.row,
        "image": named.image,
        "set": kind.value,
        "id": item.id,
        "url": item.origin.url,
        "path": path_of(item),
        "sha256": "" if file is None else file.sha256,
        "original_sha256": "" if file is None else file.original_sha256,
    }
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _product(path: Path, rows: int) -> Product:
    return Product(file=path.name, bytes=path.stat().st_size, rows=rows)


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _synced(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


# ---------------------------------------------------------------------------------------------- looking at it


def life_of(corpus: Corpus, id: str) -> str:
    """All that is known of an item, as indented JSON: its fullest record, and where and why it ended if so.

    ``id`` may also be what a row or its picture is called in the products.

    Raises:
        NotFoundError: no stage has seen it.
    """
    named = _named(corpus, id)
    for wanted in {id, named}:
        found = _life(corpus, wanted)
        if found is not None:
            return found
    raise NotFoundError(f"{corpus.root} has no item {id!r:.200}; ids stand in its rows and rejects")


def _named(corpus: Corpus, name: str) -> str:
    """The id of the item that the products call ``name``; or that itself."""
    path = corpus.root / PRODUCTS / NAMES
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            for line in map(json.loads, lines):
                if name in (line["row"], line["image"]):
                    return line["id"]
    return name


def _life(corpus: Corpus, id: str) -> str | None:
    for stage in reversed([summary.stage for summary in corpus.chain()]):
        for items, ended in zip(corpus.items(stage), corpus.rejected(stage), strict=True):
            for one in ended:
                if one.item.id == id:
                    return _shown({"stage": stage, **_REJECTED.dump_python(one, mode="json")})
            for item in items:
                if item.id == id:
                    return _shown(
                        {"stage": stage, "reject": None, "item": _ITEM.dump_python(item, mode="json")}
                    )
    return None


def _shown(life: dict[str, object]) -> str:
    return json.dumps(life, ensure_ascii=False, indent=1)


def status_of(corpus: Corpus) -> Iterator[str]:
    """Lines for people: what each stage has done, and what it left out for which reason."""
    given: int | None = None
    for stage in corpus.chain():
        seconds = f"{stage.seconds:.1f} s" + (
            f", {stage.seconds / stage.rows:.3f} s an item" if stage.rows else ""
        )
        of = "" if given is None or given == stage.rows else f" of {given}"
        yield f"{stage.stage:>8}  {stage.rows}{of} done, {stage.kept} kept, {stage.shards} shards, {seconds}"
        reasons = Counter(one.reject.reason for ended in corpus.rejected(stage.stage) for one in ended)
        for reason, count in reasons.most_common():
            yield f"{'':>8}  {count} left out: {reason}"
        given = stage.kept
