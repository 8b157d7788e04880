"""What a teacher sends back, as types; and how it is found in whatever else the reply holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, cast

from pydantic import BeforeValidator, StringConstraints, TypeAdapter, ValidationError
from pydantic import Field as Bounded

from llavar.corpus.check import MAX_PAIRS
from llavar.llm import Reply, whole

MAX_QUESTION, MAX_ANSWER = 600, 3000
"""Characters."""
_MOST_TRIES = 100
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


class FaultReason(StrEnum):
    """Why a reply of the teacher is of no use, or why none came."""

    NOTHING_READ = "no text to ask about"
    TOO_MUCH = "too much text for the teacher"
    NO_REPLY = "the endpoint gave no reply"
    REFUSED = "the teacher refused"
    CUT = "the teacher's reply was cut off"
    NO_JSON = "the teacher's reply holds no JSON"
    SCHEMA = "the teacher's reply does not fit the schema"
    NAMED = "an answer names OCR or a caption"
    SPECIAL = "control string in a question"
    DOUBLE = "question asked twice"
    PRIVATE = "the conversation mentions masked data"
    OPEN = "a question without a definite answer"
    SUPPORT = "a supporting line does not exist"
    QUOTE = "quoted words are not in the picture"
    FAILED = "the stage failed on it"
    LOOK = "the second look did not support it"


class Fault(NamedTuple):
    """What is wrong, and where."""

    reason: str
    detail: str = ""


def _clean(value: object) -> object:
    """Text without halves of characters and control characters; others as they are, for the schema to see."""
    return _CONTROL.sub(" ", whole(value)).strip() if isinstance(value, str) else value


def _keys(value: object) -> object:
    """Keys of lines, also where a model writes [A1], or one key alone."""
    several = cast("list[object]", value) if isinstance(value, list) else [value]
    return tuple(str(key).strip("[]() .") for key in several if isinstance(key, str | int))


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftTurn:
    """A question, its answer, and the keys of the lines that support it."""

    question: Annotated[
        str,
        BeforeValidator(_clean),
        StringConstraints(min_length=1, max_length=MAX_QUESTION),
    ]
    answer: Annotated[
        str,
        BeforeValidator(_clean),
        StringConstraints(min_length=1, max_length=MAX_ANSWER),
    ]
    support: Annotated[tuple[str, ...], BeforeValidator(_keys), Bounded(max_length=100)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A conversation as the teacher wrote it."""

    turns: Annotated[tuple[DraftTurn, ...], Bounded(min_length=1, max_length=MAX_PAIRS)]

    @property
    def texts(self) -> tuple[str, ...]:
        """Questions and answers in turn."""
        return tuple(text for turn in self.turns for text in (turn.question, turn.answer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What the second look says of each turn."""

    supported: tuple[bool, ...]


_DRAFT, _VERDICTS = TypeAdapter(Draft), TypeAdapter(Verdicts)


def read_draft(reply: Reply) -> Draft | Fault:
    """The conversation in a reply, or what is wrong with it."""
    found = _object(reply, "turns")
    return found if isinstance(found, Fault) else _validated(_DRAFT, found)


def read_verdicts(reply: Reply, count: int) -> Verdicts | Fault:
    """The verdicts in a reply on ``count`` turns, or what is wrong with it."""
    found = _object(reply, "supported")
    verdicts = found if isinstance(found, Fault) else _validated(_VERDICTS, found)
    if isinstance(verdicts, Verdicts) and len(verdicts.supported) != count:
        return Fault(FaultReason.SCHEMA, f"{len(verdicts.supported)} verdicts on {count} turns")
    return verdicts


def _validated(adapter: TypeAdapter[Any], found: object) -> Any:
    try:
        return adapter.validate_python(found)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return Fault(FaultReason.SCHEMA, f"{'.'.join(map(str, first['loc'][:6]))}: {first['msg']}"[:300])


def _object(reply: Reply, name: str) -> object | Fault:
    """The last object of a reply that has the field ``name``, for models think aloud before they answer."""
    if reply.finish == "content_filter":
        return Fault(FaultReason.REFUSED, "its content filter")
    last: object = None
    for found in _values(reply.text):
        if isinstance(found, dict) and name in found:
            last = cast("object", found)
        elif isinstance(found, list) and found and isinstance(found[0], dict | bool):
            last = {name: cast("object", found)}
    if last is not None:
        return last
    if reply.finish == "length":
        return Fault(FaultReason.CUT, f"after {len(reply.text)} characters")
    return Fault(FaultReason.NO_JSON, whole(reply.text[:200]))


def _values(text: str) -> Iterator[Any]:
    """Every outermost JSON object or list in a text, with or without a fence around it."""
    decoder = json.JSONDecoder(strict=False)
    start, tries = 0, 0
    opening = re.compile(r"[\[{]")
    while (match := opening.search(text, start)) is not None and tries < _MOST_TRIES:
        try:
            found, start = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            start, tries = match.start() + 1, tries + 1
            continue
        yield found
