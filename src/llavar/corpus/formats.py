# pyright: basic
"""Rows as files that trainers read: LLaVA's JSON, Parquet with pictures inside, WebDataset tars.

Equal rows give equal bytes. Every file is written aside and takes its name when it is whole.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from llavar.data.index import open_rows
from llavar.data.scan import Kind
from llavar.data.source import RowError, decode_row
from llavar.errors import DataError
from llavar.records import Conversation, Role

_SPEAKERS = {Role.USER: "human", Role.ASSISTANT: "gpt"}
_AT_ONCE = 64
"""Rows of a Parquet row group: their pictures lie in memory together."""


class Format(StrEnum):
    """How rows are written."""

    JSON = "json"
    PARQUET = "parquet"
    WEBDATASET = "webdataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductRow:
    """A row with the name of its picture, and the picture's file where a format wants it."""

    id: str
    image: str
    conversation: Conversation
    picture: bytes = b""

    def document(self) -> dict[str, object]:
        turns = [{"from": _SPEAKERS[turn.role], "value": turn.text} for turn in self.conversation.turns]
        return {"id": self.id, "image": self.image, "conversations": turns}


class Writer(Protocol):
    """Takes rows one by one; at :meth:`close` all files are whole."""

    def add(self, row: ProductRow) -> None: ...

    def close(self) -> list[Path]:
        """The files that were written."""
        ...

    def abandon(self) -> None:
        """Let go of the file that is open, whatever it holds."""
        ...


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _settled(file: BinaryIO, path: Path) -> None:
    """Close what was written aside of ``path`` and give it its name."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    _aside(path).replace(path)


# ---------------------------------------------------------------------------------------------- LLaVA's JSON


def raw_rows(path: Path) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Each row of a LLaVA file as its bytes, with its id and the names of its pictures; nothing is held.

    Raises:
        DataError: a row is malformed.
    """
    rows = open_rows(path)
    try:
        for number in range(len(rows)):
            data = rows.read(number).strip()
            try:
                example = decode_row(data, Kind.LIST, number=number + 1)
            except RowError as error:
                raise DataError(
                    f"{path} cannot be merged, since {error}; see  llavar corpus check {path}"
                ) from None
            yield data, (example.id, *example.images)
    finally:
        rows.close()


@dataclass(slots=True)
class JsonWriter:
    """One JSON list, a row to a line; the rows of ``first``, a LLaVA file, come first, as they are there."""

    path: Path
    first: Path | None = None
    count: int = 0
    _file: BinaryIO = field(init=False)

    def __post_init__(self) -> None:
        self._file = _aside(self.path).open("wb")
        self._file.write(b"[")
        try:
            for data, _ in raw_rows(self.first) if self.first is not None else ():
                self._write(data)
        except BaseException:
            self.abandon()
            raise

    def _write(self, data: bytes) -> None:
        self._file.write((b",\n" if self.count else b"\n") + data)
        self.count += 1

    def add(self, row: ProductRow) -> None:
        self._write(json.dumps(row.document(), ensure_ascii=False).encode())

    def close(self) -> list[Path]:
        self._file.write(b"\n]\n")
        _settled(self._file, self.path)
        return [self.path]

    def abandon(self) -> None:
        self._file.close()


# ---------------------------------------------------------------------------------------------- in many files


@dataclass(slots=True)
class ParquetWriter:
    """Files ``stage1-00000.parquet`` ... of ``rows_per_file`` rows, pictures inside as ``datasets`` does."""

    folder: Path
    stem: str
    rows_per_file: int
    _files: list[Path] = field(default_factory=list)
    _held: list[dict[str, object]] = field(default_factory=list)
    _rows: int = 0
    _open: tuple[Any, BinaryIO] | None = None

    def add(self, row: ProductRow) -> None:
        self._held.append({**row.document(), "image": {"bytes": row.picture, "path": row.image}})
        self._rows += 1
        if len(self._held) == _AT_ONCE or self._rows == self.rows_per_file:
            self._flush()
        if self._rows == self.rows_per_file:
            self._end()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        turn = pa.struct([("from", pa.string()), ("value", pa.string())])
        picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        schema = pa.schema([("id", pa.string()), ("image", picture), ("conversations", pa.list_(turn))])
        if self._open is None:
            path = self.folder / f"{self.stem}-{len(self._files):05d}.parquet"
            file = _aside(path).open("wb")
            self._files.append(path)
            self._open = pq.ParquetWriter(file, schema, compression="zstd"), file
        self._open[0].write_table(pa.Table.from_pylist(self._held, schema=schema))
        self._held.clear()

    def _end(self) -> None:
        if self._open is not None:
            writer, file = self._open
            writer.close()
            _settled(file, self._files[-1])
        self._open, self._rows = None, 0

    def close(self) -> list[Path]:
        if self._held:
            self._flush()
        self._end()
        return self._files

    def abandon(self) -> None:
        if self._open is not None:
            self._open[1].close()


@dataclass(slots=True)
class TarWriter:
    """WebDataset: tars of ``rows_per_file`` rows, ``KEY.jpg`` and ``KEY.json`` for each, without times."""

    folder: Path
    stem: str
    rows_per_file: int
    _files: list[Path] = field(default_factory=list)
    _rows: int = 0
    _open: tuple[tarfile.TarFile, BinaryIO] | None = None

    def add(self, row: ProductRow) -> None:
        if self._open is None:
            path = self.folder / f"{self.stem}-{len(self._files):05d}.tar"
            self._files.append(path)
            file = _aside(path).open("wb")
            archive = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)
            self._open = archive, file
        self._member(row.image, row.picture)
        document = json.dumps(row.document(), ensure_ascii=False).encode()
        self._member(Path(row.image).stem + ".json", document)
        self._rows += 1
        if self._rows == self.rows_per_file:
            self._end()

    def _member(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        assert self._open is not None
        self._open[0].addfile(member, io.BytesIO(data))

    def _end(self) -> None:
        if self._open is not None:
            archive, file = self._open
            archive.close()
            _settled(file, self._files[-1])
        self._open, self._rows = None, 0

    def close(self) -> list[Path]:
        self._end()
        return self._files

    def abandon(self) -> None:
        if self._open is not None:
            self._open[1].close()
