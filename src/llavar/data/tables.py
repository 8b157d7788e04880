"""Rows from Parquet, from datasets of the hub and from WebDataset tars.

Tables are rewritten once, as JSONL in the cache with the pictures that they carry in a zip beside it: a table
is made to be read from one end to the other, and training reads rows in any order. A WebDataset tar is read
where it is.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from llavar.data import cache
from llavar.data.index import RowFile, open_rows
from llavar.data.mixture import HUB, Entry
from llavar.data.pictures import ArchivePictures
from llavar.data.source import Reason, RowError, parse_row
from llavar.errors import DataError, ImageError, MissingExtraError, NotFoundError
from llavar.records import IMAGE_TAG, Example

_VERSION = 1
_HUB_VERSION = 2
_SPEAKERS = {"user": "human", "assistant": "gpt"}
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
Row = Mapping[str, object]


def open_parquet(entry: Entry, folder: Path | None = None) -> tuple[RowFile, ArchivePictures | None]:
    """The rows of a Parquet file, and the pictures in it if there are any.

    Raises:
        MissingExtraError: pyarrow is not installed.
        NotFoundError, DataError: there is no such file, it is damaged, or lacks a column.
    """
    path = Path(entry.path)
    key = cache.key("parquet", _VERSION, cache.identity(path), _columns(entry))
    parquet: Any = _extra("pyarrow.parquet", "pyarrow", "Parquet")

    def rows() -> Iterator[Row]:
        try:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=256):
                    yield from batch.to_pylist()
        except _arrow_errors() as error:
            reason = " ".join(str(error).split())[:160]
            raise DataError(f"{path} cannot be read as Parquet ({reason}); get it again") from None

    return _converted(rows, entry, key, folder or cache.default_folder())


def open_hub(entry: Entry, folder: Path | None = None) -> tuple[RowFile, ArchivePictures | None]:
    """The rows of a dataset of the hub, or of a folder that ``datasets`` reads, and the pictures in it.

    Raises:
        MissingExtraError: ``datasets`` is not installed.
        DataError: there is no such dataset or split.
    """
    library: Any = _extra("datasets", "datasets", "datasets of the hub")
    name, split = entry.path.removeprefix(HUB), entry.split or "train"
    loaded: Any
    try:
        if (Path(name) / "dataset_info.json").is_file() or (Path(name) / "dataset_dict.json").is_file():
            loaded = _of_disk(library.load_from_disk(name), split)
        else:
            loaded = library.load_dataset(name, entry.subset or None, split=split)
    except Exception as error:  # noqa: BLE001 - the library raises nearly anything
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"the dataset {name!r}, split {split!r}, cannot be had ({reason}); choose with "
            f"{entry.path}:split=NAME,subset=NAME"
        ) from None
    key = cache.key("hub", _HUB_VERSION, name, split, entry.subset, loaded._fingerprint, _columns(entry))

    def rows() -> Iterator[Row]:
        try:
            for table in loaded.with_format("arrow").iter(batch_size=64):
                yield from _with_files(table).to_pylist()
        except _arrow_errors() as error:
            reason = " ".join(str(error).split())[:160]
            raise DataError(f"the dataset {name!r} cannot be read ({reason}); get it again") from None

    return _converted(rows, entry, key, folder or cache.default_folder())


def _of_disk(saved: Any, split: str) -> Any:
    """One split of what was saved; a dataset without splits is its only one."""
    if not hasattr(saved, "keys"):
        return saved
    if split not in saved:
        raise DataError(f"it has the splits {', '.join(map(str, saved))}")
    return saved[split]


def _with_files(table: Any) -> Any:
    """A table of ``datasets`` with the files that it only points to, as folders of pictures do.

    Pictures are not decoded: their bytes are kept as they are. Where a file is not there the table keeps its
    name, and a folder of pictures has to be named.
    """
    embed: Any = importlib.import_module("datasets.table").embed_table_storage
    try:
        return embed(table)
    except OSError:
        return table


def _arrow_errors() -> tuple[type[Exception], ...]:
    arrow: Any = importlib.import_module("pyarrow")
    return (arrow.ArrowException, OSError)


def _extra(module: str, package: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError(
            f"{what} need {package}, which is not installed; pip install 'llavar[data]'"
        ) from None


def _columns(entry: Entry) -> tuple[str, ...]:
    return (entry.id, entry.image, entry.conversations, entry.question, entry.answer)


# A table as JSONL and a zip.


def _converted(rows: Any, entry: Entry, key: str, folder: Path) -> tuple[RowFile, ArchivePictures | None]:
    """``rows`` is a function that begins an iteration over the table."""
    lines, pictures = folder / f"{key}.jsonl", folder / f"{key}.zip"
    if not lines.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            _convert(rows(), entry, Path(aside) / "rows", Path(aside) / "pictures")
            (Path(aside) / "pictures").replace(pictures)
            (Path(aside) / "rows").replace(lines)  # last: it says that all is there
    source = open_rows(lines, folder=folder)
    source.name = Path(entry.path).name
    stored = ArchivePictures(pictures, folder=folder)
    return source, stored if len(stored) else None


def _convert(rows: Iterable[Row], entry: Entry, lines: Path, pictures: Path) -> None:
    count = 0
    with (
        lines.open("w", encoding="utf-8") as out,
        zipfile.ZipFile(pictures, "w", zipfile.ZIP_STORED) as archive,
    ):
        for number, row in enumerate(rows):
            out.write(json.dumps(_row(row, entry, number, archive), default=repr) + "\n")
            count += 1
        out.flush()
        os.fsync(out.fileno())
    if not count:
        raise DataError(f"{entry.path} has no rows; give another file or split")


def _row(row: Row, entry: Entry, number: int, archive: zipfile.ZipFile) -> dict[str, object]:
    """One row in LLaVA's format; what does not fit it is written as it is, and reported when it is read."""
    given = _picked(row, entry.image, ("image", "images"), entry)
    values = cast("list[object]", given) if isinstance(given, list) else [] if given is None else [given]
    images = [_image(value, f"{number}-{place}", archive) for place, value in enumerate(values)]
    name = _picked(row, entry.id, ("id",), entry)
    made: dict[str, object] = {"id": str(number) if name is None else name}
    if images:
        made["image"] = images[0] if len(images) == 1 else images
    if entry.question:
        asked = str(_picked(row, entry.question, (), entry) or "")
        tags = "" if IMAGE_TAG in asked else f"{IMAGE_TAG}\n" * len(images)
        answer = _picked(row, entry.answer, (), entry)
        several = cast("list[object]", answer) if isinstance(answer, list) else [answer]
        made["conversations"] = [
            {"from": "human", "value": tags + asked},
            {"from": "gpt", "value": several[0] if several else None},
        ]
    else:
        made["conversations"] = _turns(
            _picked(row, entry.conversations, ("conversations", "messages"), entry)
        )
    return made


def _picked(row: Row, named: str, usual: tuple[str, ...], entry: Entry) -> object:
    if named:
        if named not in row:
            held = ", ".join(map(str, row))
            raise DataError(f"{entry.path} has no column {named!r}; it has {held[:400]}")
        return row[named]
    return next((row[name] for name in usual if name in row), None)


def _image(value: object, name: str, archive: zipfile.ZipFile) -> object:
    """A name. The bytes of a picture are put into ``archive`` under ``name``."""
    if isinstance(value, Mapping):
        held = cast("Mapping[str, object]", value)
        value = held.get("bytes") or held.get("path")
    if isinstance(value, bytes):
        archive.writestr(name, value)
        return name
    return value


def _turns(value: object) -> object:
    """Turns with ``role`` and ``content`` are turns, too, and so is a list of each field."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, Mapping):  # a list of structures as ``datasets`` keeps it: a list of each field
        held = cast("Mapping[str, object]", value)
        columns = [cast("list[object]", part) for part in held.values() if isinstance(part, list)]
        if len(columns) < len(held) or len({len(part) for part in columns}) != 1:
            return held
        value = [dict(zip(held, turn, strict=True)) for turn in zip(*columns, strict=True)]
    if not isinstance(value, list):
        return value
    return [_turn(turn) for turn in cast("list[object]", value)]


def _turn(turn: object) -> object:
    if not isinstance(turn, Mapping) or "role" not in turn:
        return cast("object", turn)
    said = cast("Mapping[str, object]", turn)
    return {"from": _SPEAKERS.get(str(said["role"]), said["role"]), "value": said.get("content")}


# WebDataset.


class TarRows:
    """The rows of a WebDataset tar: a ``KEY.json`` for each, next to ``KEY.jpg`` or the like.

    The JSON is a row as in LLaVA's files; without ``id`` it is called by its key, and a picture of the same
    key is its own whatever name it gives.
    """

    def __init__(self, archive: ArchivePictures) -> None:
        self.pictures, self.name = archive, archive.path.name
        self.key = cache.key("tar", _VERSION, cache.identity(archive.path))
        if not archive.rows:
            raise DataError(f"{archive.path} holds no .json member; a WebDataset has one for every row")

    def __len__(self) -> int:
        return len(self.pictures.rows)

    def get(self, number: int) -> Example | RowError:
        member = self.pictures.rows[number]
        name = member.removesuffix(".json")
        try:
            value: Any = json.loads(self.pictures.source(member).decode())
        except (ValueError, RecursionError, ImageError) as error:
            return RowError(name, Reason.MALFORMED, f"its JSON cannot be read ({error}); write it anew")
        if isinstance(value, dict):
            row = cast("dict[str, object]", value)
            row.setdefault("id", name)
            beside = next((name + end for end in _PICTURES if name + end in self.pictures), None)
            if beside is not None and not isinstance(row.get("image"), list):
                row["image"] = beside
        try:
            return parse_row(cast("object", value), number=number + 1, source=self.name)
        except RowError as error:
            return error


def open_tar(path: Path, folder: Path | None = None) -> TarRows:
    """Raises:
    NotFoundError, DataError: there is no such tar, or it holds no rows.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no data file at {path}; check the path")
    return TarRows(ArchivePictures(path, folder=folder))
