"""JSON, JSONL and pandas' JSON from strangers as rows whose fields are checked as they are read.

Text stays as it is: "007", "None" and "" survive, and a JSON number becomes the characters that it was
written with, so that an answer 1.50 is not 1.5 and an id is the same text whoever wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from llavar.errors import DataError, NotFoundError
from llavar.records import Answered

_LARGEST = 2**30
"""Bytes of a file: more than any benchmark's answers, less than what fills a machine's memory."""


class Row:
    """A JSON object and the place it stands at, which begins every message about it."""

    __slots__ = ("place", "values")

    def __init__(self, values: object, place: str) -> None:
        if not isinstance(values, dict):
            raise DataError(f"{place} is {values!r:.40}, not an object; give one for each answer")
        self.values = cast("dict[str, object]", values)
        self.place = place

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def text(self, *keys: str) -> str:
        """The first of the keys that is there; raises :class:`DataError` if none is, or it is no text."""
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, str):
                return value
            if value is not None:
                raise DataError(f"{self.place} has {value!r:.40} as {key!r}; give text")
        names = " or ".join(map(repr, keys))
        raise DataError(f"{self.place} has no {names}; its fields are {', '.join(self.values):.200}")

    def any_text(self, *keys: str) -> str:
        """The first of the keys that holds text, else ""."""
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, str):
                return value
        return ""

    def texts(self, key: str) -> tuple[str, ...]:
        """A text or a list of texts."""
        value = self.values.get(key)
        if not isinstance(value, list):
            return (self.text(key),)
        items = cast("list[object]", value)
        if not all(isinstance(item, str) for item in items):
            raise DataError(f"{self.place} has {value!r:.80} as {key!r}; give a text or a list of texts")
        return tuple(cast("list[str]", items))


def read_bytes(path: Path) -> bytes:
    """A whole file. Raises :class:`NotFoundError`, or :class:`DataError` for a folder or more than 1 GiB."""
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise DataError(f"{path} has {size:,} bytes, more than {_LARGEST:,}; split it")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"there is no file {path}; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; give a file") from None


def decode(content: bytes, path: Path) -> str:
    """UTF-8, with or without a mark. Raises :class:`DataError` for spreadsheets, tables and pickles."""
    kind = path.suffix.lower()
    remedy = "run VLMEvalKit with PRED_FORMAT=json and give the .json"
    if content.startswith(b"PK\x03\x04") or kind in (".xlsx", ".xls"):
        raise DataError(
            f'{path} is a spreadsheet, in which "", None and N/A become nan and 007 becomes 7, so that what '
            f"the model said is lost; {remedy}"
        )
    if content.startswith(b"\x80") or kind in (".pkl", ".pickle"):
        raise DataError(f"{path} is a pickle, which can run code when it is read; {remedy}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if kind in (".tsv", ".csv") or text.startswith("index\t"):
        raise DataError(
            f'{path} is a table, which cannot tell "", None and N/A from nothing, or 007 from 7; {remedy}'
        )
    return text


def parse(text: str, path: Path) -> Sequence[Row]:
    """A JSON list, JSONL, pandas' ``{column: {row: value}}``, or annotations ``{"data": [...]}``.

    Raises :class:`DataError` if it is none of them, or holds no row.
    """
    start = text.lstrip()[:1]
    if start == "[":
        rows = _numbered(_json(text, str(path)), path)
    elif not start:
        raise DataError(f"{path} is empty; give a file of answers")
    elif start != "{":
        raise DataError(
            f"{path} begins with {text.lstrip()[:20]!r}; give JSON, JSONL, or MME's lines of picture, "
            "question, yes or no, and reply with tabs between"
        )
    elif (whole := _one_object(text)) is None:
        rows = list(_lines(text, path))
    elif isinstance(whole.get("data"), list):
        rows = _numbered(whole["data"], path)
    elif whole and all(isinstance(column, dict) for column in whole.values()):
        rows = _columns(cast("dict[str, dict[str, object]]", whole), path)
    else:
        rows = [Row(whole, f"line 1 of {path}")]
    if not rows:
        raise DataError(f"{path} holds no rows; give at least 1")
    return rows


def _json(text: str, place: str) -> object:
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=_nothing)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not valid JSON ({error}); repair it or write it again") from None


def _nothing(_constant: str) -> None:
    """NaN and Infinity are no JSON, and pandas writes NaN for what it lost."""


def _one_object(text: str) -> dict[str, Any] | None:
    """The object if the text is exactly one. JSONL is known by what follows its first line."""
    decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_nothing)
    stripped = text.strip()
    try:
        value, end = decoder.raw_decode(stripped)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if end == len(stripped) else None


def _numbered(values: object, path: Path) -> list[Row]:
    items = cast("list[object]", values)
    return [Row(item, f"row {number} of {path}") for number, item in enumerate(items, start=1)]


def _lines(text: str, path: Path) -> Iterator[Row]:
    # Not splitlines: JSON strings may hold U+2028 and its like.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"line {number} of {path}"
            yield Row(_json(line, place), place)


def _columns(columns: dict[str, dict[str, object]], path: Path) -> list[Row]:
    names = dict.fromkeys(name for column in columns.values() for name in column)
    return [
        Row({key: column.get(name) for key, column in columns.items()}, f"row {name!r:.40} of {path}")
        for name in names
    ]


def unique(answers: Iterable[Answered], path: Path) -> None:
    """Raises :class:`DataError` if two answers have one id."""
    seen: set[str] = set()
    for answer in answers:
        if answer.id in seen:
            raise DataError(f"{path} has two rows with the id {answer.id!r:.80}; keep one of them")
        seen.add(answer.id)
