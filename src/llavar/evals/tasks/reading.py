"""Strict reading of annotation files. They come from strangers: every type and every path is checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from llavar.errors import DataError

_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One object of an annotation file; ``where`` says which, for messages."""

    file: Path
    where: str
    value: Mapping[str, object]

    def error(self, problem: str) -> DataError:
        return DataError(f"{self.file}, {self.where}: {problem}")

    def get(self, key: str) -> object:
        """The field, which must be there.

        Raises:
            DataError: there is no such field.
        """
        if key not in self.value:
            has = ", ".join(sorted(self.value)[:12]) or "none"
            raise self.error(f"the field {key!r} is missing (it has {has:.200}); give the official file")
        return self.value[key]

    def text(self, key: str) -> str:
        """A string that is not blank, as it stands in the file."""
        value = self.string(self.get(key), key)
        if not value.strip():
            raise self.error(f"the field {key!r} is blank; give a text")
        return value

    def identity(self, key: str) -> str:
        """An id: a string that is not blank, or a whole number."""
        value = self.get(key)
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.text(key)

    def image(self, key: str, *, suffix: str = "") -> str:
        """The name of a picture, which must stay inside the folder of the pictures."""
        return image_name(self.identity(key) + suffix, self)

    def references(self, key: str, *, blank: bool = False, numbers: bool = False) -> tuple[str, ...]:
        """The accepted answers, as they stand in the file: a string or a list of them.

        ``blank`` takes rows where all are blank, which the original scorer counts as well; ``numbers``
        takes JSON numbers, written as Python writes them.
        """
        if key not in self.value:
            raise self.error(
                f"the field {key!r} is missing; test files come without public answers: give a file with them"
            )
        value = self.value[key]
        listed = cast("list[object]", value) if isinstance(value, list) else [value]
        answers = tuple(self.string(_written(item) if numbers else item, key) for item in listed)
        if not answers or not (blank or any(answer.strip() for answer in answers)):
            raise self.error(f"the field {key!r} holds no answer; give at least one")
        return answers

    def string(self, value: object, key: str) -> str:
        """``value`` of the field ``key``, which must be a string of valid Unicode."""
        if not isinstance(value, str):
            raise self.error(f"the field {key!r} holds {_kind(value)} where a string is due")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.error(
                f"the field {key!r} holds a lone surrogate at character {error.start}; write valid Unicode"
            ) from None
        return value

    def items(self, key: str) -> list[object]:
        """A list, of anything."""
        value = self.get(key)
        if not isinstance(value, list):
            raise self.error(f"the field {key!r} holds {_kind(value)} where a list is due")
        return cast("list[object]", value)

    def child(self, value: object, where: str) -> Row:
        """``value`` as a row inside of this one."""
        return as_row(value, self.file, f"{self.where}, {where}")


def as_row(value: object, file: Path, where: str) -> Row:
    """``value`` as a row of ``file``.

    Raises:
        DataError: it is no JSON object.
    """
    if not isinstance(value, dict):
        raise DataError(
            f"{file}, {where}: it is {_kind(value)} where an object is due; give the official file"
        )
    return Row(file=file, where=where, value=cast("dict[str, object]", value))


def image_name(name: str, row: Row) -> str:
    """``name`` if it stays inside the folder of the pictures.

    Raises:
        DataError: it is absolute, climbs with ``..``, or is no file name at all.
    """
    parts = re.split(r"[/\\]", name)
    if not name.strip() or ".." in parts or any(ord(character) < 32 for character in name):
        raise row.error(f"the image {name!r:.80} is no path inside the image folder; give a relative path")
    if parts[0] == "" or _DRIVE.match(name) or name.startswith("~"):
        raise row.error(f"the image {name!r:.80} is an absolute path; give one relative to the image folder")
    return name


def read_json(path: Path) -> object:
    """The content of a JSON file.

    Raises:
        DataError: it is not UTF-8, or not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); download it again") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, a byte order mark removed."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from None


def read_object(path: Path) -> Row:
    """The one object of a JSON file."""
    return as_row(read_json(path), path, "the file")


def rows(path: Path, *, key: str = "") -> Iterator[Row]:
    """The rows of a JSON list, counted from 0; with ``key``, of the list under that key of an object."""
    value = read_object(path).get(key) if key else read_json(path)
    if not isinstance(value, list):
        place = f"the field {key!r} of {path}" if key else str(path)
        raise DataError(f"{place} holds {_kind(value)} where a list of rows is due; give the official file")
    for index, item in enumerate(cast("list[object]", value)):
        yield as_row(item, path, f"row {index}")


def json_lines(path: Path) -> Iterator[Row]:
    """The rows of a file with one JSON object to a line; blank lines are left out."""
    for number, line in text_lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: it is not valid JSON ({error})") from None
        yield as_row(value, path, f"line {number}")


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of every line that is not blank."""
    # Not splitlines: it cuts at U+2028 and its like, which occur in texts.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line


def text_row(path: Path, number: int) -> Row:
    """A line of a plain text file as a row without fields, for its messages."""
    return Row(file=path, where=f"line {number}", value={})


def listed(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder with that suffix, sorted by name; hidden ones are left out."""
    files = (path for path in folder.iterdir() if path.suffix == suffix and not path.name.startswith("."))
    return sorted(files, key=lambda path: path.name)


def _written(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
