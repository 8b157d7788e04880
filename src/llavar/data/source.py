"""Rows of instruction data in LLaVA's JSON format, read strictly and written atomically.

``[{"id": str, "image": str, "conversations": [{"from": "human"|"gpt", "value": str}, ...]}, ...]``; a row
about text alone has no ``image``, a row about several pictures has a list. The same rows one to a line
(JSONL) are read as well. Files come from strangers: every type is checked, and keys that other tools add
are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import cast

from llavar import files
from llavar.data.scan import Kind, find_rows
from llavar.errors import DataError
from llavar.records import Conversation, Example, Reject, Role, Turn

_ROLES = {"human": Role.USER, "gpt": Role.ASSISTANT}
_NAMES = {role: name for name, role in _ROLES.items()}


class Reason(StrEnum):
    """Why a row cannot be used."""

    MALFORMED = "malformed row"
    UNKNOWN_ROLE = "unknown role"
    SAME_ROLE_TWICE = "same role twice"
    IMAGE_COUNT = "image tags differ from images"
    TAG_IN_ANSWER = "image tag in an answer"
    STRAY_IMAGE_TOKEN = "stray image token"
    TEMPLATE = "refused by the chat template"
    IMAGE_CUT = "image cut by truncation"
    NOTHING_SUPERVISED = "no supervised token"
    UNWRITABLE = "characters that the tokenizer lacks"
    PROCESSOR = "refused by the processor"
    TOO_LONG = "too long"
    NO_PICTURE = "no such picture"
    BROKEN_PICTURE = "broken picture"


class RowError(DataError):
    """One row that cannot be used: its id, the kind of reason, and a clause with values and remedy."""

    def __init__(self, row: str, reason: Reason, detail: str) -> None:
        super().__init__(row, reason, detail)
        self.row, self.reason, self.detail = row, reason, detail

    def __str__(self) -> str:
        return f"row {self.row!r}: {self.detail}"

    def reject(self, stage: str) -> Reject:
        """The record of it that is written down."""
        return Reject(id=self.row, stage=stage, reason=self.reason.value, detail=self.detail)


def read_rows(path: Path, *, source: str = "") -> Sequence[Example]:
    """All rows of a file, in order; ``source`` names it in the examples.

    Raises:
        NotFoundError: there is no such file.
        RowError: a row is malformed; its message holds number and id.
        DataError: the file is neither a JSON list nor JSONL.
    """
    rows: list[Example] = []
    for row in scan_rows(path, source=source):
        if isinstance(row, RowError):
            raise row
        rows.append(row)
    return rows


def scan_rows(path: Path, *, source: str = "") -> Iterator[Example | RowError]:
    """Like :func:`read_rows`, one by one, giving the error in the place of a row that is malformed."""
    found = find_rows(path)
    with path.open("rb") as file:
        for place in found.places:
            file.seek(int(place["offset"]))
            data = file.read(int(place["length"]))
            try:
                yield decode_row(data, found.kind, number=int(place["number"]), source=source)
            except RowError as error:
                yield error


def decode_row(data: bytes, kind: Kind, *, number: int = 1, source: str = "") -> Example:
    """The bytes of one row as an :class:`Example`; ``number`` is the element of the list, or the line.

    Raises:
        RowError: it is no UTF-8, no JSON, or no row.
    """
    name, remedy = f"number {number}", "repair it or download the file again"
    if kind is Kind.LINES:
        name, remedy = f"line {number}", "put one row on each line"
    try:
        value = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise _malformed(name, f"it is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _malformed(name, f"it is not valid JSON ({error}); {remedy}") from None
    return parse_row(value, number=number, source=source)


def parse_row(value: object, *, number: int = 1, source: str = "") -> Example:
    """One decoded row as an :class:`Example`; ``number`` counts from 1 and stands in for a missing id.

    Raises:
        RowError: a field is missing or has another type than the format says.
    """
    row = _object(value, f"number {number}", "it")
    name = _identity(row.get("id"), number)
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        given = "an empty list" if turns == [] else _kind(cast("object", turns))
        raise _malformed(name, f"number {number} has {given} as conversations; give a list of turns")
    parsed = [_turn(turn, name, index) for index, turn in enumerate(cast("list[object]", turns), start=1)]
    images = _images(row.get("image"), name)
    return Example(id=name, source=source, images=images, conversation=Conversation(turns=tuple(parsed)))


def _identity(value: object, number: int) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise _malformed(f"number {number}", f"its id is {_kind(value)}; give a non-empty string")
    return _clean(value, f"number {number}", "its id")


def _images(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    images = cast("list[object]", value) if isinstance(value, list) else [value]
    for image in images:
        if not isinstance(image, str) or not image or "\0" in image:
            raise _malformed(name, f"image {image!r:.80} is no file name; give a string or a list of them")
    return tuple(_clean(cast("str", image), name, "an image name") for image in images)


def _turn(value: object, name: str, index: int) -> Turn:
    turn = _object(value, name, f"turn {index}")
    speaker, text = turn.get("from"), turn.get("value")
    if not isinstance(text, str):
        raise _malformed(name, f"turn {index} has {_kind(text)} as its value; give a string")
    if not isinstance(speaker, str) or speaker not in _ROLES:
        detail = f"turn {index} is from {speaker!r:.80}; only 'human' and 'gpt' may speak"
        raise RowError(name, Reason.UNKNOWN_ROLE, detail)
    return Turn(role=_ROLES[speaker], text=_clean(text, name, f"turn {index}"))


def _object(value: object, name: str, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _malformed(name, f"{what} is {_kind(value)}; give an object")
    return cast("dict[str, object]", value)


def _clean(text: str, name: str, what: str) -> str:
    """JSON can spell half of a surrogate pair, which no tokenizer or file takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"{what} holds a lone surrogate at character {error.start}"
        safe = name.encode(errors="replace").decode()
        raise _malformed(safe, f"{where}; write the text as valid Unicode") from None
    return text


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _malformed(name: str, detail: str) -> RowError:
    return RowError(name, Reason.MALFORMED, detail)


def write_rows(examples: Iterable[Example], path: Path) -> None:
    """Write rows in LLaVA's format, one to a line, replacing ``path`` only once all are written.

    A name ending in ``.jsonl`` gets JSONL, any other one JSON list.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix == ".jsonl"
    with files.replacing_text(path, durable=True) as out:
        out.write("" if lines else "[")
        for index, example in enumerate(examples):
            out.write("" if lines else ",\n" if index else "\n")
            out.write(json.dumps(_row(example), ensure_ascii=False) + ("\n" if lines else ""))
        out.write("" if lines else "\n]\n")


def _row(example: Example) -> dict[str, object]:
    row: dict[str, object] = {"id": example.id}
    if example.images:
        row["image"] = example.images[0] if len(example.images) == 1 else list(example.images)
    turns = example.conversation.turns
    row["conversations"] = [{"from": _NAMES[turn.role], "value": turn.text} for turn in turns]
    return row
