"""The last gate of a row that is made here: it is looked at as a trainer will see it, pictures apart.

Anybody's rows, and their pictures, are looked at by :mod:`llavar.corpus.verify`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from llavar.chat import escape_special
from llavar.records import IMAGE_TAG, Example, Reject, Role, Turn

STAGE = "check"
MAX_PAIRS = 8

_NAMED = re.compile(r"\b(?:ocr|captions?)\b", re.IGNORECASE)
_QUOTED = re.compile(r'"([^"\n]+)"')


class CheckReason(StrEnum):
    """What is wrong with a row."""

    DOUBLE_ID = "id used twice"
    TAGS = "image tags do not match images"
    ROLES = "turns do not alternate from user to assistant"
    LENGTH = "number of turns out of range"
    EMPTY = "empty turn"
    SPECIAL = "control string in an answer"
    NAMED = "question names OCR or a caption"
    DOUBLE_QUESTION = "question asked twice"
    QUOTE = "quoted string does not match the picture"


def check_rows(examples: Sequence[Example], *, texts: Mapping[str, str] | None = None) -> list[Reject]:
    """What is wrong with rows, one Reject per fault and row, in the order of the rows; none if all is well.

    With ``texts``, the text of each picture by row id, a string quoted in an answer has to be in the picture,
    and so has one quoted in a question, unless the answer is "no": then it must not be.
    """
    seen: set[str] = set()
    rejects: list[Reject] = []
    for example in examples:
        faults = list(_faults(example.conversation.turns, len(example.images)))
        if example.id in seen:
            faults.append((CheckReason.DOUBLE_ID, example.id))
        seen.add(example.id)
        if texts is not None and example.id in texts:
            faults.extend(_misquotes(example.conversation.turns, texts[example.id]))
        rejects += [
            Reject(id=example.id, stage=STAGE, reason=reason, detail=detail) for reason, detail in faults
        ]
    return rejects


Fault = tuple[CheckReason, str]


def _faults(turns: Sequence[Turn], images: int) -> Iterator[Fault]:
    for test in (_roles, _lengths, _questions, _answers):
        yield from test(turns)
    yield from _tags(turns, images)


def _roles(turns: Sequence[Turn]) -> Iterator[Fault]:
    roles = [turn.role for turn in turns]
    if roles != [Role.USER, Role.ASSISTANT] * (len(turns) // 2):
        yield CheckReason.ROLES, " ".join(roles[:20]) or "no turns"


def _lengths(turns: Sequence[Turn]) -> Iterator[Fault]:
    pairs = sum(turn.role is Role.USER for turn in turns)
    if not 1 <= pairs <= MAX_PAIRS:
        yield CheckReason.LENGTH, f"{pairs} questions, 1 to {MAX_PAIRS} are allowed"
    for place, turn in enumerate(turns):
        if not turn.text.replace(IMAGE_TAG, "").strip():
            yield CheckReason.EMPTY, f"turn {place + 1} of {len(turns)}"


def _questions(turns: Sequence[Turn]) -> Iterator[Fault]:
    asked = [turn.text.replace(IMAGE_TAG, "").strip() for turn in turns if turn.role is Role.USER]
    for text in asked:
        # What is quoted is a word of the picture, which may well be "caption".
        if _NAMED.search(_QUOTED.sub("", text)):
            yield CheckReason.NAMED, text[:80]
    for text in {text for text in asked if asked.count(text) > 1}:
        yield CheckReason.DOUBLE_QUESTION, text[:80]


def _answers(turns: Sequence[Turn]) -> Iterator[Fault]:
    for turn in turns:
        if turn.role is Role.ASSISTANT and escape_special(turn.text) != turn.text:
            yield CheckReason.SPECIAL, turn.text[:80]


def _tags(turns: Sequence[Turn], images: int) -> Iterator[Fault]:
    first = turns[0].text.strip() if turns else ""
    inside = first.count(IMAGE_TAG)
    total = sum(turn.text.count(IMAGE_TAG) for turn in turns)
    if total != images or inside != total:
        yield CheckReason.TAGS, f"{total} tags, {inside} of them in the first turn, {images} images"
    elif images and not (first.startswith(IMAGE_TAG) or first.endswith(IMAGE_TAG)):
        yield CheckReason.TAGS, "the tag is neither first nor last in its turn"


def _misquotes(turns: Sequence[Turn], text: str) -> Iterator[Fault]:
    there = _flat(text)
    for asked, answered in zip(turns[::2], turns[1::2], strict=False):
        absent = answered.text.strip().casefold() == "no"
        for quoted in _QUOTED.findall(asked.text):
            if (_flat(quoted) in there) == absent:
                yield CheckReason.QUOTE, f"{quoted[:60]!r} asked for, answered {answered.text[:20]!r}"
        for quoted in _QUOTED.findall(answered.text):
            if _flat(quoted) not in there:
                yield CheckReason.QUOTE, f"{quoted[:60]!r} answered"


def _flat(text: str) -> str:
    """As rows hold it, without the differences of case and white space that separators make."""
    return " ".join(escape_special(text).casefold().split())
