"""What a teacher is told of a picture: lines under keys, and a caption; as data that cannot break out."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from llavar.chat import escape_special
from llavar.corpus.item import Item
from llavar.corpus.layout import LayoutSettings, Paragraphs
from llavar.corpus.rows import arranged_of

OPEN, CLOSE = "<data>", "</data>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The lines of each reading, in reading order and safe to stand in a row, and a caption or nothing."""

    readings: tuple[tuple[str, ...], ...]
    caption: str = ""

    @property
    def lines(self) -> Mapping[str, str]:
        """Lines by key: A1, A2 ... of the first reading, B1 ... of the second."""
        return MappingProxyType(
            {
                f"{letter}{place}": text
                for letter, texts in zip(string.ascii_uppercase, self.readings, strict=False)
                for place, text in enumerate(texts, start=1)
            }
        )

    @property
    def chars(self) -> int:
        return sum(len(text) for texts in self.readings for text in texts)

    def document(self) -> dict[str, object]:
        """As the teacher gets it."""
        document: dict[str, object] = {"lines": dict(self.lines)}
        return document | ({"caption": self.caption} if self.caption else {})


def evidence_of(item: Item, layout: LayoutSettings, *, mask: bool) -> Evidence:
    """What is known of an item: all its readings, their lines chosen and ordered by ``layout``."""
    by_line = replace(layout, paragraphs=Paragraphs.LINES)
    readings = [arranged_of(reading, by_line, mask=mask).reading for reading in item.readings]
    return Evidence(
        readings=tuple(_texts([line.text for line in reading.lines]) for reading in readings),
        caption=escape_special(item.description.strip()),
    )


def _texts(lines: Sequence[str]) -> tuple[str, ...]:
    texts = (escape_special(" ".join(text.split())) for text in lines)
    return tuple(text for text in texts if text)


def fenced(document: Mapping[str, object]) -> str:
    """Data between its marks. No text in it can hold a mark, or a control string of a model."""
    return f"{OPEN}\n{as_data(document)}\n{CLOSE}"


def as_data(value: object) -> str:
    """JSON in which what could end the data, or mean something to a tokenizer, is written as an escape."""
    text = json.dumps(value, ensure_ascii=False)
    for char in "<>\x7f\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
