"""Where pictures come from: a folder of them, or tables that name their URLs (LAION, LLaVAR's metadata)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from llavar.corpus import parquet
from llavar.corpus.build import scan_folder
from llavar.corpus.item import Item, Origin
from llavar.corpus.stage import Outcome
from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.records import Reject

STAGE = "scan"


class ScanReason(StrEnum):
    """Why an entry of a table is no item."""

    NO_URL = "it has no URL"
    BROKEN = "the line is no JSON object"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSettings:
    """A folder of pictures, files and sizes apart."""

    name: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """All pictures below ``path`` by their extensions. They stay where they are; ids are paths below it."""

    path: Path
    name: str = "folder"

    @property
    def settings(self) -> FolderSettings:
        return FolderSettings(name=self.name, path=str(self.path.absolute()))

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        pictures, _ = scan_folder(self.path)
        for path in pictures:
            found = path.stat()
            digest.update(f"{path} {found.st_size} {found.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def items(self) -> Iterator[Outcome]:
        """Raises NotFoundError, ConfigError, DataError: there is no such folder, or no picture in it."""
        pictures, rejects = scan_folder(self.path)
        yield from rejects
        for path in pictures:
            origin = Origin(source=self.name, path=str(path.absolute()))
            yield Item(id=path.relative_to(self.path).as_posix(), origin=origin)


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
        seen: dict[bytes, int] = {}
        for path in self.paths:
            for number, row in enumerate(_rows(path)):
                yield self._item(path, number, row, seen)

    def _item(
        self, path: Path, number: int, row: Mapping[str, Any] | None, seen: dict[bytes, int]
    ) -> Outcome:
        if row is None:
            return Reject(id=f"{path.name}:{number}", stage=STAGE, reason=ScanReason.BROKEN)
        url = row.get(self.columns.url)
        if not isinstance(url, str) or not url.strip():
            detail = f"column {self.columns.url!r} of {', '.join(map(str, row))}"[:200]
            return Reject(id=f"{path.name}:{number}", stage=STAGE, reason=ScanReason.NO_URL, detail=detail)
        digest = hashlib.sha256(url.encode("utf-8", "replace")).digest()[:12]
        seen[digest] = times = seen.get(digest, 0) + 1
        return Item(id=digest.hex() + (f"-{times}" if times > 1 else ""), origin=self._origin(url, row))

    def _origin(self, url: str, row: Mapping[str, Any]) -> Origin:
        columns = self.columns
        return Origin(
            source=self.name,
            url=_clean(url.strip()),
            caption=_text(row.get(columns.caption)),
            language=_text(row.get(columns.language)),
            watermark=_number(row.get(columns.watermark)),
            unsafe=_number(row.get(columns.unsafe)),
            similarity=_number(row.get(columns.similarity)),
        )


def _rows(path: Path) -> Iterator[Mapping[str, Any] | None]:
    """Rows of a table, None for one that is no object. JSON is read whole, the others as a stream."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        yield from parquet.plain_rows(path)
    elif ending in (".jsonl", ".ndjson"):
        with path.open("rb") as file:
            yield from (_object(line) for line in file if line.strip())
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


def _object(line: bytes) -> Mapping[str, Any] | None:
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
    return float(value) if isinstance(value, int | float) and value == value else -1.0
