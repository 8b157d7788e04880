"""Questions, contexts and answers in LLaVA's files (JSON lines), matched by id and picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from llavar.errors import DataError, NotFoundError
from llavar.evals.judge.prompt import DEFAULT, Context, Instance
from llavar.llm import whole

Row = Mapping[str, Any]
Id = int | str

_SHOWN = 5
"""How many ids an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question of the file with the context of its picture."""

    id: Id
    text: str
    category: str
    context: Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One row of an answer file. ``id`` is its ``answer_id``, or the question's id if it has none."""

    id: Id
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question with the two answers to compare."""

    question: Asked
    reference: Answer
    answer: Answer


def read_cases(questions: Path, contexts: Path, reference: Path, answers: Path) -> tuple[Case, ...]:
    """What is to be compared, in the order of the question file.

    Rows belong together by ``question_id`` (``7`` and ``"7"`` are one id). Raises :class:`DataError` if a
    question has no context, no reference or no answer, or if an id stands twice in a file. Answers to other
    questions are left alone, so that a part of the questions can be judged.
    """
    asked = read_questions(questions, contexts)
    first, second = (_answers(path, asked) for path in (reference, answers))
    return tuple(
        Case(question=one, reference=first[str(one.id)], answer=second[str(one.id)]) for one in asked
    )


def read_questions(questions: Path, contexts: Path) -> tuple[Asked, ...]:
    """Rows ``{question_id, image, text, category}``, each with its picture's row of the context file.

    A context belongs to a question if it has its ``question_id``, the same ``image``, or, failing these, an
    ``id`` that is the picture's name without folder, suffix or a prefix like ``COCO_val2014_``.
    """
    found = _Contexts(contexts)
    asked: list[Asked] = []
    for row, place in _unique(questions):
        text = _text(row, "text", place)
        category = str(row.get("category") or DEFAULT)
        context = found.of(row, place)
        asked.append(Asked(id=row["question_id"], text=text, category=category, context=context))
    if not asked:
        raise DataError(f"{questions} holds no questions")
    return tuple(asked)


class _Contexts:
    """The context file, by everything that a question can find a context by."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: tuple[dict[str, Context | None], ...] = ({}, {}, {})
        for row, place in read_rows(path):
            context = _context(row, place)
            names = (row.get("question_id"), row.get("image"), row.get("id"))
            for table, name in zip(self._keys, names, strict=True):
                if name is not None:
                    # Two different ones under one name serve nobody; a question that needs it fails.
                    known = table.get(str(name), context)
                    table[str(name)] = context if known == context else None

    def of(self, question: Row, place: str) -> Context:
        image = str(question.get("image") or "")
        stem = PurePosixPath(image).stem
        names = ((str(question["question_id"]),), (image,), (stem, stem.rpartition("_")[2]))
        for table, candidates in zip(self._keys, names, strict=True):
            for name in candidates:
                if name and name in table:
                    context = table[name]
                    if context is None:
                        raise DataError(f"{self._path} has two different contexts for {name!r}; keep one")
                    return context
        raise DataError(
            f"{place} asks about the picture {image!r}, which {self._path} has no context for; "
            "add one with that image"
        )


def _context(row: Row, place: str) -> Context:
    captions = row.get("captions", row.get("caption", row.get("context")))
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not all(isinstance(c, str) for c in cast(list[object], captions)):
        raise DataError(f"{place} has no 'captions'; they must be a text or a list of texts")
    context = Context(
        captions=tuple(whole(caption) for caption in cast(list[str], captions)),
        instances=tuple(_instances(row.get("instances") or [], place)),
    )
    if not context.text.strip():
        raise DataError(f"{place} says nothing about its picture; give captions or instances")
    return context


def _instances(found: object, place: str) -> Iterator[Instance]:
    try:
        for entry in cast(Sequence[Row], found):
            box = tuple(entry["bbox"])
            if not all(isinstance(value, int | float) for value in box):
                raise TypeError("its box holds what is no number")
            yield Instance(category=whole(str(entry["category"])), bbox=box)
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f'{place} has an instance that is not {{"category": ..., "bbox": [x1, y1, x2, y2]}} ({error})'
        ) from error


def _answers(path: Path, asked: Sequence[Asked]) -> dict[str, Answer]:
    """By question id; every question must have one."""
    found = {
        str(row["question_id"]): Answer(id=_id(row), text=_text(row, "text", place))
        for row, place in _unique(path)
    }
    missing = [str(one.id) for one in asked if str(one.id) not in found]
    if missing:
        raise DataError(
            f"{path} has no answer to {len(missing)} of {len(asked)} questions ({_some(missing)}); "
            "complete it, or take these questions out"
        )
    return found


def _id(row: Row) -> Id:
    given = row.get("answer_id")
    return given if isinstance(given, int | str) else row["question_id"]


def _text(row: Row, name: str, place: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or row.get("status", "ok") != "ok":
        raise DataError(f"{place} has no {name!r}; it must be a text, which may be empty")
    return whole(value)


def _unique(path: Path) -> Iterator[tuple[Row, str]]:
    """Rows with a ``question_id`` of their own."""
    seen: set[str] = set()
    for row, place in read_rows(path):
        name = row.get("question_id")
        if isinstance(name, bool) or not isinstance(name, int | str):
            raise DataError(f"{place} has no 'question_id'; every row needs one, a number or a text")
        if str(name) in seen:
            raise DataError(f"{place} has the question_id {name!r} again; every id must be unique")
        seen.add(str(name))
        yield row, place


def read_rows(path: Path, *, log: bool = False) -> Iterator[tuple[Row, str]]:
    """The objects of a file of JSON lines, or of one JSON list, each with its place for errors.

    ``log``: a last line that a crash tore is passed over.
    """
    if not path.is_file():
        raise NotFoundError(f"{path} is no file; check the path")
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    content = content[: len(content) - torn(content)] if log else content
    for number, row in _entries(content, path):
        place = f"row {number} of {path}"
        if not isinstance(row, dict):
            raise DataError(f"{place} is no object; every row must be one, as in LLaVA's files")
        yield cast(Row, row), place


def torn(content: bytes) -> int:
    """The length of a last line that was not written to its end: no line break, and no JSON."""
    last = content[content.rfind(b"\n") + 1 :]
    try:
        json.loads(last)
    except (ValueError, RecursionError):
        return len(last)
    return 0


def _entries(content: bytes, path: Path) -> Iterable[tuple[int, object]]:
    try:
        if content.lstrip().startswith(b"["):
            return list(enumerate(cast(list[object], json.loads(content)), 1))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error})") from error
    return _lines(content, path)


def _lines(content: bytes, path: Path) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            try:
                row: object = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"row {number} of {path} is not JSON ({error})") from error
            yield number, row


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
