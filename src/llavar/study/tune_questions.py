"""The user's own questions about their own pictures: JSONL, a JSON list, or a table with a header.

A row names a picture, a question and one or more answers. Tools call these by different names, which are
taken as they are; what cannot be understood is refused with the number of its row.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from llavar.errors import DataError, ImageError, NotFoundError
from llavar.evals import rows
from llavar.evals.rows import Row
from llavar.images import image_size

IMAGE = ("image", "picture", "file", "filename", "file_name", "image_path", "path")
QUESTION = ("question", "query", "prompt", "text")
ANSWERS = ("answers", "answer", "references", "reference", "gt_answers", "gt_answer", "label")
_ID = ("id", "question_id", "questionId")
_INSIDE = ("answer", "text", "value")
"""Where the answer stands in the objects of VQA's lists."""

_TABLES = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnQuestion:
    """One row: ``picture`` is a file that is there, ``place`` says where the row stands, for messages."""

    id: str
    picture: Path
    text: str
    answers: tuple[str, ...]
    category: str
    place: str


def read_questions(path: Path, folder: Path) -> tuple[OwnQuestion, ...]:
    """All rows of a file; pictures are looked for beside it, in ``folder``, and by their whole path.

    Raises:
        NotFoundError: there is no such file.
        DataError: a row cannot be understood, or its picture is not there or none.
    """
    found: list[OwnQuestion] = []
    seen: set[str] = set()
    opened: set[Path] = set()
    for number, row in enumerate(_rows(path), start=1):
        asked = _question(row, number, (path.parent, folder), opened)
        if asked.id in seen:
            raise DataError(f"{row.place} has the id {asked.id!r:.80} a second time; give each its own")
        seen.add(asked.id)
        found.append(asked)
    return tuple(found)


def pictures_of(asked: Iterable[OwnQuestion]) -> tuple[Path, ...]:
    """The pictures, each once, in the order in which they come."""
    return tuple(dict.fromkeys(one.picture for one in asked))


def digest_of(asked: Sequence[OwnQuestion]) -> str:
    """What tells two sets of questions apart, in 16 digits."""
    content = [(one.id, str(one.picture), one.text, one.answers) for one in asked]
    return hashlib.sha256(repr(content).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _rows(path: Path) -> Sequence[Row]:
    content = rows.read_bytes(path)
    separator = _TABLES.get(path.suffix.lower())
    if separator is None:
        return rows.parse(rows.decode(content, path), path)
    try:
        text = content.decode("utf-8-sig")
        lines = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path} is no table ({error}); save it again, or give JSONL") from None
    if not lines:
        raise DataError(f"{path} holds no rows; give a header (image, question, answer) and at least 1 row")
    return [Row(line, f"row {number} of {path}") for number, line in enumerate(lines, start=1)]


def _question(row: Row, number: int, folders: Sequence[Path], opened: set[Path]) -> OwnQuestion:
    text = _text(row, QUESTION)
    if not text.strip():
        raise DataError(f"{row.place} asks nothing; write a question as {QUESTION[0]!r}")
    return OwnQuestion(
        id=_clean(row.any_text(*_ID) or str(number), row),
        picture=_picture(row, folders, opened),
        text=text,
        answers=_answers(row),
        category=_clean(row.any_text("category"), row),
        place=row.place,
    )


def _text(row: Row, names: Sequence[str]) -> str:
    """Numbers have become the characters that they were written with."""
    for name in names:
        value = row.values.get(name)
        if isinstance(value, str):
            return _clean(value, row)
        if value is not None:
            raise DataError(f"{row.place} has {value!r:.40} as {name!r}; give text")
    has = ", ".join(map(str, row.values)) or "none"
    raise DataError(f"{row.place} has no {' or '.join(map(repr, names[:2]))} (its fields are {has:.200})")


def _picture(row: Row, folders: Sequence[Path], opened: set[Path]) -> Path:
    name = _text(row, IMAGE)
    if not name.strip() or "\0" in name:
        raise DataError(f"{row.place} names no picture; give a file name as {IMAGE[0]!r}")
    for folder in folders:
        try:
            path = Path(os.path.abspath(folder / name))  # noqa: PTH100 - links stay usable, ".." goes
            if not path.is_file():
                continue
            if path not in opened:
                image_size(path)
                opened.add(path)
        except (ImageError, NotFoundError) as error:
            raise DataError(f"{row.place}: its picture cannot be used: {error}") from error
        except OSError as error:
            raise DataError(f"{row.place}: {name!r:.80} is no file name ({error.strerror})") from error
        return path
    where = " nor in ".join(dict.fromkeys(map(str, folders)))
    raise DataError(
        f"{row.place} is about {name!r:.120}, which is not in {where}; name the picture relative to one of "
        "these, or by its whole path"
    )


def _answers(row: Row) -> tuple[str, ...]:
    name = next((name for name in ANSWERS if row.values.get(name) is not None), None)
    if name is None:
        raise DataError(
            f"{row.place} has no answer; write the right one as 'answer', or several as 'answers', or leave "
            "the row out"
        )
    found = tuple(dict.fromkeys(text for text in _listed(row.values[name], row, name) if text.strip()))
    if not found:
        raise DataError(f"{row.place} has an empty {name!r}; write the right answer, or leave the row out")
    return found


def _listed(value: object, row: Row, name: str) -> Iterator[str]:
    """Texts out of a text, a list of texts, or VQA's list of objects with an answer in each."""
    if isinstance(value, str):
        yield _clean(value, row)
    elif isinstance(value, bool):
        yield "yes" if value else "no"
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            yield from _listed(item, row, name)
    elif isinstance(value, dict):
        inner = cast("Mapping[str, object]", value)
        key = next((key for key in _INSIDE if isinstance(inner.get(key), str)), None)
        if key is None:
            raise DataError(f"{row.place} has {value!r:.60} in {name!r}; give a text or a list of texts")
        yield _clean(cast("str", inner[key]), row)
    else:
        raise DataError(f"{row.place} has {value!r:.40} in {name!r}; give a text or a list of texts")


def _clean(text: str, row: Row) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{row.place} holds a lone surrogate at character {error.start}; write valid Unicode"
        ) from None
    return text
