"""What img2dataset has fetched, with all that it noted: its formats ``files`` and ``webdataset``.

A shard is a folder ``00000/`` or a tar ``00000.tar`` of pictures, each with a JSON beside it, and a table
``00000.parquet`` that also names what could not be fetched (img2dataset 1.47.0, ``writer.py``). Its hash and
``original_width`` are of what a server sent (``downloader.py``). The picture may be resized and encoded
anew, so that they are noted and never compared with it. Nothing is fetched again; what came from the network
is encoded anew when it is opened, as it is where ``fetch`` brought it.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

from llavar.corpus import parquet
from llavar.corpus.item import Download, Item, Member, Rejected
from llavar.corpus.scanning import Entry
from llavar.corpus.sources import (
    STAGE,
    Columns,
    ScanReason,
    UrlIds,
    json_object,
    origin_of,
    stamp_of,
    without_url,
)
from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.records import Reject

_SHARD = re.compile(r"[0-9]{1,20}")
_PART = re.compile(r"([0-9]{1,40})\.(jpg|png|webp|json|txt)")
"""A ``.txt`` holds the caption, which stands in the JSON as well."""
_PICTURES = frozenset(("jpg", "png", "webp"))
_MAX_JSON = 2**20
_SUCCESS = "success"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOCK = 512
"""Tars end with blocks of zeros."""


class Img2datasetReason(StrEnum):
    """Why what img2dataset has left is no item."""

    NOT_FETCHED = "img2dataset could not fetch it"
    NOT_RESIZED = "img2dataset could not open it, or did not want its size"
    MISSING = "its picture is not there"
    NO_JSON = "no JSON says where it is from"
    LARGE_JSON = "its JSON is too large"
    TWICE = "its file is there twice"
    NAME = "its name is none of img2dataset's"
    TORN = "its end is missing or damaged"


_STATUS = {
    "failed_to_download": Img2datasetReason.NOT_FETCHED,
    "failed_to_resize": Img2datasetReason.NOT_RESIZED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Img2datasetSettings:
    """What img2dataset has left, the files themselves apart."""

    name: str
    path: str
    columns: Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Img2dataset:
    """The ``output_folder`` of img2dataset; ids are hashes of URLs, as those of tables are.

    ``columns`` names what ``save_additional_columns`` kept; URL and caption have img2dataset's own names.
    """

    path: Path
    columns: Columns = field(default_factory=Columns)
    name: str = "img2dataset"

    @property
    def settings(self) -> Img2datasetSettings:
        return Img2datasetSettings(name=self.name, path=str(self.path.absolute()), columns=self._columns)

    @property
    def _columns(self) -> Columns:
        return replace(self.columns, url="url", caption="caption")

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for shard in _shards(self.path):
            for path in (shard.table, shard.tar, *_inside(shard.folder)):
                digest.update(f"{path.name} {stamp_of(path)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def items(self) -> Iterator[Entry]:
        """The pictures of each shard, then the rows of its table that have none.

        Raises NotFoundError, ConfigError, DataError: there is no such folder, or it is none of img2dataset's
        in one of the two formats.
        """
        ids = UrlIds()
        for shard in _shards(self.path):
            keys: set[str] = set()
            for parts in (_of_folder(shard.folder), _of_tar(shard.tar)):
                yield from self._pictures(parts, keys, ids)
            yield from self._others(shard.table, keys, ids)

    def _pictures(self, parts: Iterable[_Part | Reject], keys: set[str], ids: UrlIds) -> Iterator[Entry]:
        for key, group in groupby(parts, key=lambda part: part.key if isinstance(part, _Part) else ""):
            sample = _Sample(key)
            for part in group:
                fault = part if isinstance(part, Reject) else sample.take(part)
                if fault is not None:
                    yield fault
            if sample.parts and key in keys:
                yield _reject(sample.id, Img2datasetReason.TWICE)
            elif sample.parts:
                keys.add(key)
                yield self._picture(sample, ids)

    def _picture(self, sample: _Sample, ids: UrlIds) -> Entry:
        row = sample.row()
        item = row if isinstance(row, Reject) else self._entry(row, sample.id, ids)
        if isinstance(row, Reject) or isinstance(item, Reject):
            return item
        part = sample.picture
        if part is None or row.get("status") != _SUCCESS:
            return _left_out(item, row)
        origin = replace(item.origin, path=part.path, stamp=part.stamp, member=part.member)
        return replace(item, origin=origin)

    def _others(self, table: Path, keys: set[str], ids: UrlIds) -> Iterator[Entry]:
        """Rows without a picture; those with one have been told of."""
        if not table.is_file():
            return
        number = 0
        try:
            for row in parquet.plain_rows(table):
                number += 1
                if row.get("key") in keys:
                    continue
                found = self._entry(row, f"{table.name}:{number}", ids)
                yield _left_out(found, row) if isinstance(found, Item) else found
        except (DataError, ValueError) as error:  # img2dataset was stopped before it had closed the table
            yield _reject(table.name, Img2datasetReason.TORN, f"after {number} rows: {error}"[:500])

    def _entry(self, row: Mapping[str, Any], id: str, ids: UrlIds) -> Item | Reject:
        """What a row says, without its picture; ``id`` is for one that has no URL."""
        origin = origin_of(row, self._columns, self.name)
        if origin is None:
            detail = without_url(row, self._columns)
            return Reject(id=id, stage=STAGE, reason=ScanReason.NO_URL, detail=detail)
        return Item(id=ids.of(row[self._columns.url]), origin=replace(origin, download=_download(row)))


# ---------------------------------------------------------------------------------------------- rows


def _download(row: Mapping[str, Any]) -> Download:
    digest = row.get("sha256")
    is_known = isinstance(digest, str) and _SHA256.fullmatch(digest) is not None
    width, height = _side(row.get("original_width")), _side(row.get("original_height"))
    return Download(sha256=str(digest) if is_known else "", width=width, height=height)


def _side(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return -1
    return value if 0 < value < 2**31 else -1


def _left_out(item: Item, row: Mapping[str, Any]) -> Rejected:
    """A row without a picture, and why, in img2dataset's own words."""
    status, said = str(row.get("status")), row.get("error_message")
    reason = _STATUS.get(status, Img2datasetReason.MISSING)
    detail = str(said) if said else f"its status is {status}"
    return Rejected(reject=_reject(item.id, reason, detail[:500]), item=item)


def _reject(id: str, reason: Img2datasetReason | ScanReason, detail: str = "") -> Reject:
    """Names and messages may hold what UTF-8 cannot."""
    id, detail = (text.encode("utf-8", "backslashreplace").decode() for text in (id, detail))
    return Reject(id=id, stage=STAGE, reason=reason, detail=detail)


# ---------------------------------------------------------------------------------------------- files


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """Where the parts of a shard are, as far as they are there."""

    folder: Path
    tar: Path
    table: Path


def _shards(path: Path) -> list[_Shard]:
    if not path.exists():
        raise NotFoundError(f"the folder {str(path)!r} of img2dataset does not exist: check the path")
    if not path.is_dir():
        raise ConfigError(f"{str(path)!r} is a file; name the folder that was img2dataset's output_folder")
    stems = {entry.name for entry in path.iterdir() if entry.is_dir()}
    stems |= {entry.stem for entry in path.iterdir() if entry.suffix in (".tar", ".parquet")}
    names = sorted(name for name in stems if _SHARD.fullmatch(name))
    shards = [
        _Shard(folder=path / name, tar=path / f"{name}.tar", table=path / f"{name}.parquet") for name in names
    ]
    if not any(shard.folder.is_dir() or shard.tar.is_file() for shard in shards):
        raise DataError(
            f"{str(path)!r} holds no folder 00000 and no 00000.tar of pictures; name the output_folder of an "
            "img2dataset that ran with  --output_format files  or  webdataset"
        )
    return shards


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A file of a shard. ``path`` is absolute, in a tar as if that were a folder."""

    key: str
    ending: str
    path: str
    stamp: str
    bytes: int
    read: Callable[[], bytes]
    member: Member | None = None


@dataclass(slots=True)
class _Sample:
    """The files of one key."""

    key: str
    parts: dict[str, _Part] = field(default_factory=dict[str, _Part])

    @property
    def id(self) -> str:
        """For a reject without a URL: the path below the output folder."""
        part = next(iter(self.parts.values()))
        return _below(part.path)

    @property
    def picture(self) -> _Part | None:
        return next((part for ending, part in self.parts.items() if ending in _PICTURES), None)

    def take(self, part: _Part) -> Reject | None:
        is_second = part.ending in _PICTURES and self.picture is not None
        if is_second or part.ending in self.parts:
            return _reject(_below(part.path), Img2datasetReason.TWICE)
        self.parts[part.ending] = part
        return None

    def row(self) -> Mapping[str, Any] | Reject:
        """What the JSON says, or what is wrong with it."""
        part = self.parts.get("json")
        if part is None:
            return _reject(self.id, Img2datasetReason.NO_JSON)
        if part.bytes > _MAX_JSON:
            detail = f"{part.bytes} bytes, at most {_MAX_JSON} are read"
            return _reject(self.id, Img2datasetReason.LARGE_JSON, detail)
        try:
            row = json_object(part.read())
        except OSError as error:
            return _reject(self.id, Img2datasetReason.NO_JSON, error.strerror or type(error).__name__)
        return _reject(self.id, ScanReason.BROKEN) if row is None else row


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.absolute().iterdir()) if folder.is_dir() else []


def _below(path: str) -> str:
    """From the output folder on."""
    return "/".join(path.split("/")[-2:])


def _of_folder(folder: Path) -> Iterator[_Part | Reject]:
    """The files of a shard by name, so that those of a key stand together. Links are not followed."""
    for path in (path for path in _inside(folder) if not path.name.startswith(".")):
        match = _PART.fullmatch(path.name)
        if match is None:
            yield _reject(_below(str(path)), Img2datasetReason.NAME)
        elif path.is_symlink() or not path.is_file():
            yield _reject(_below(str(path)), ScanReason.NOT_A_FILE)
        else:
            yield _Part(
                key=match[1],
                ending=match[2],
                path=str(path),
                stamp=stamp_of(path),
                bytes=path.stat().st_size,
                read=_reader(path, 0, _MAX_JSON),
            )


def _of_tar(path: Path) -> Iterator[_Part | Reject]:
    """The members of a tar in their order, nothing unpacked; the last is a reject where it is damaged."""
    if not path.is_file():
        return
    stamp, number = stamp_of(path), 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                number += 1
                if member.size < 0:
                    raise tarfile.ReadError(f"member {number} has {member.size} bytes")
                yield _member(path.absolute(), member, stamp)
            fault = "" if _is_whole(path, tar.offset) else "it does not end as a tar does"
    except (tarfile.TarError, OSError, ValueError, EOFError, OverflowError, RecursionError) as error:
        fault = str(error) or type(error).__name__
    if fault:
        yield _reject(path.name, Img2datasetReason.TORN, f"after {number} members: {fault}"[:500])


def _member(tar: Path, member: tarfile.TarInfo, stamp: str) -> _Part | Reject:
    path, match = f"{tar}/{member.name}", _PART.fullmatch(member.name)
    if match is None:
        return _reject(f"{tar.name}/{member.name}"[:300], Img2datasetReason.NAME)
    if not member.isreg() or member.issparse():
        return _reject(f"{tar.name}/{member.name}", ScanReason.NOT_A_FILE)
    where = Member(offset=member.offset_data, bytes=member.size)
    return _Part(
        key=match[1],
        ending=match[2],
        path=path,
        stamp=stamp,
        bytes=where.bytes,
        read=_reader(tar, where.offset, min(where.bytes, _MAX_JSON)),
        member=where,
    )


def _reader(path: Path, offset: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    return read


def _is_whole(path: Path, end: int) -> bool:
    """Whether a block of zeros stands where no member follows: tarfile takes anything there as the end."""
    return _reader(path, end, _BLOCK)() == bytes(_BLOCK)
