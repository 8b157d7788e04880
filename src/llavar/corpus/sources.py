"""Where pictures come from: a folder of them, or tables that name their URLs (LAION, LLaVAR's metadata).

:mod:`llavar.corpus.img2dataset` reads what that program has fetched.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from llavar.corpus import parquet
from llavar.corpus.item import Item, Origin
from llavar.corpus.stage import Outcome
from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.records import Reject

STAGE = "scan"
EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


class ScanReason(StrEnum):
    """Why a file of a folder, or an entry of a table, is no item."""

    NOT_A_PICTURE = "not a picture by its extension"
    NOT_A_FILE = "not a regular file"
    NAME = "its name is not UTF-8"
    NO_URL = "it has no URL"
    BROKEN = "the line is no JSON object"


def scan_folder(folder: Path) -> tuple[list[Path], list[Reject]]:
    """Picture files below ``folder`` by extension, sorted by path, and a Reject for each other file.

    Files and folders whose names begin with a dot are passed over, and links to folders are not followed.
    Raises NotFoundError if the folder is missing, ConfigError if it is a file, DataError without a picture.
    """
    if not folder.exists():
        raise NotFoundError(f"the folder of pictures {str(folder)!r} does not exist: check the path")
    if not folder.is_dir():
        raise ConfigError(f"{str(folder)!r} is a file but a folder of pictures is needed: name its folder")
    pictures: list[Path] = []
    rejects: list[Reject] = []
    for path in sorted(_walk(folder), key=lambda path: path.relative_to(folder).as_posix()):
        fault = _fault(path)
        if fault is None:
            pictures.append(path)
        else:
            rejects.append(fault)
    if not pictures:
        raise DataError(
            f"the folder {str(folder)!r} holds {len(rejects)} files and no picture among them: put in files "
            f"that end in {', '.join(sorted(EXTENSIONS))}"
        )
    return pictures, rejects


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in files if not name.startswith("."))


def _fault(path: Path) -> Reject | None:
    """Why a file of a folder is left out, judged without opening it."""
    name = str(path).encode("utf-8", "backslashreplace").decode()
    if name != str(path):
        return Reject(id=name, stage=STAGE, reason=ScanReason.NAME, detail="rename it")
    if path.suffix.lower() not in EXTENSIONS:
        ending = f"its name ends in {path.suffix!r}" if path.suffix else "its name has no extension"
        return Reject(id=name, stage=STAGE, reason=ScanReason.NOT_A_PICTURE, detail=ending)
    if not path.is_file():
        return Reject(
            id=name, stage=STAGE, reason=ScanReason.NOT_A_FILE, detail="a broken link, pipe or device"
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSettings:
    """A folder of pictures, the files in it apart."""

    name: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """All pictures below ``path`` by their extensions. They stay where they are; ids are paths below it.

    Each item has the stamp of its file, so that one that has changed since is opened again. A file whose size
    and time of change are those of the old one counts as that.
    """

    path: Path
    name: str = "folder"

    @property
    def settings(self) -> FolderSettings:
        return FolderSettings(name=self.name, path=str(self.path.absolute()))

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        pictures, rejects = scan_folder(self.path)
        for path in pictures:
            digest.update(f"{path} {stamp_of(path)}\n".encode())
        for reject in rejects:
            digest.update(f"{reject.id} {reject.reason}\n".encode())
        return digest.hexdigest()

    def items(self) -> Iterator[Outcome]:
        """Raises NotFoundError, ConfigError, DataError: there is no such folder, or no picture in it."""
        pictures, rejects = scan_folder(self.path)
        yield from (replace(one, id=one.id.removeprefix(f"{self.path}/")) for one in rejects)
        for path in pictures:
            origin = Origin(source=self.name, path=str(path.absolute()), stamp=stamp_of(path))
            yield Item(id=path.relative_to(self.path).as_posix(), origin=origin)


def stamp_of(path: Path) -> str:
    """Bytes and time of change of a file; empty if it has vanished, which whoever opens it will say."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of a table hold what; LAION's names. A table need only have the first."""

    url: str = "URL"
    caption: str = "TEXT"
    language: str = "LANGUAGE"
    watermark: str = "pwatermark"
    unsafe: str = "punsafe"
    similarity: str = "similarity"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSettings:
    """Tables of URLs."""

    name: str
    columns: Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Entries of JSON, JSONL or Parquet files, in their order; the id is a hash of the URL.

    A URL that comes a second time gets an id with its number, and is told apart from the first one when
    duplicates are looked for.
    """

    paths: tuple[Path, ...]
    columns: Columns = Columns()
    name: str = "table"

    @property
    def settings(self) -> TableSettings:
        return TableSettings(name=self.name, columns=self.columns)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for path in self.paths:
            if not path.is_file():
                raise NotFoundError(f"there is no file {str(path)!r} of URLs; check the recipe")
            found = path.stat()
            digest.update(f"{path.name} {found.st_size} {found.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def items(self) -> Iterator[Outcome]:
        """Raises DataError: a file is none of the three formats, or has no column of URLs."""
        ids = UrlIds()
        for path in self.paths:
            for number, row in enumerate(_rows(path)):
                yield self._item(path, number, row, ids)

    def _item(self, path: Path, number: int, row: Mapping[str, Any] | None, ids: UrlIds) -> Outcome:
        if row is None:
            return Reject(id=f"{path.name}:{number}", stage=STAGE, reason=ScanReason.BROKEN)
        origin = origin_of(row, self.columns, self.name)
        if origin is None:
            detail = without_url(row, self.columns)
            return Reject(id=f"{path.name}:{number}", stage=STAGE, reason=ScanReason.NO_URL, detail=detail)
        return Item(id=ids.of(row[self.columns.url]), origin=origin)


@dataclass(slots=True)
class UrlIds:
    """Ids that are hashes of URLs; a URL that comes once more gets its number."""

    _seen: dict[bytes, int] = field(default_factory=dict[bytes, int])

    def of(self, url: str) -> str:
        digest = hashlib.sha256(url.encode("utf-8", "replace")).digest()[:12]
        self._seen[digest] = times = self._seen.get(digest, 0) + 1
        return digest.hex() + (f"-{times}" if times > 1 else "")


def origin_of(row: Mapping[str, Any], columns: Columns, source: str) -> Origin | None:
    """What a row of anybody's table says of a picture; None where it has no URL."""
    url = row.get(columns.url)
    if not isinstance(url, str) or not url.strip():
        return None
    return Origin(
        source=source,
        url=_clean(url.strip()),
        caption=_text(row.get(columns.caption)),
        language=_text(row.get(columns.language)),
        watermark=_number(row.get(columns.watermark)),
        unsafe=_number(row.get(columns.unsafe)),
        similarity=_number(row.get(columns.similarity)),
    )


def without_url(row: Mapping[str, Any], columns: Columns) -> str:
    """What stands in a row whose URL is missing, for the detail of a reject."""
    return _clean(f"column {columns.url!r} of {', '.join(map(str, row))}"[:200])


def _rows(path: Path) -> Iterator[Mapping[str, Any] | None]:
    """Rows of a table, None for one that is no object. JSON is read whole, the others as a stream."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        yield from parquet.plain_rows(path)
    elif ending in (".jsonl", ".ndjson"):
        with path.open("rb") as file:
            yield from (json_object(line) for line in file if line.strip())
    elif ending == ".json":
        yield from _json(path)
    else:
        raise ConfigError(f"{path} ends in {ending!r}; a table of URLs is .parquet, .jsonl or .json")


def _json(path: Path) -> Iterator[Mapping[str, Any] | None]:
    try:
        found: object = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); get it again") from error
    if not isinstance(found, list):
        raise DataError(f"{path} holds {type(found).__name__} and not a list of objects; give a list")
    for row in cast("Sequence[object]", found):
        yield cast("Mapping[str, Any]", row) if isinstance(row, dict) else None


def json_object(line: bytes) -> Mapping[str, Any] | None:
    """None for what is no JSON, or no object."""
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else None


def _clean(text: str) -> str:
    """Without what JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _text(value: object) -> str:
    return _clean(value) if isinstance(value, str) else ""


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, int | float) and value == value else -1.0
    except OverflowError:  # JSON has whole numbers of any length
        return -1.0
