"""From boxes in any order to lines in reading order, and to paragraphs as the paper made them.

Rows are found by clustering boxes that overlap vertically, with the heights of the boxes at hand and no
global line height, since posters mix sizes. Pages of several columns are read across.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from llavar.errors import ConfigError
from llavar.records import Box, Line, Reading, Reject

STAGE = "layout"


class Paragraphs(StrEnum):
    """What counts as one line of a reading."""

    LINES = "lines"
    """Boxes side by side form a line; lines stay apart."""
    LLAVAR = "llavar"
    """The paper's way: EasyOCR's ``get_paragraph``. It swaps lines of centred posters."""


class DropReason(StrEnum):
    """Why a line of a picture is no target."""

    LOW_CONFIDENCE = "confidence under the threshold"
    TOO_SMALL = "too small for the vision tower"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSettings:
    """Which lines are kept and how they are put together."""

    paragraphs: Paragraphs = Paragraphs.LINES
    """lines: rows of boxes; llavar: merged to paragraphs as in the paper."""
    min_confidence: float = 0.8
    """Lines that the engine is less sure of are dropped (0 to 1)."""
    target_size: int = 336
    """Side of the square that the vision tower sees, in pixels; a picture's long side is brought to it."""
    min_height: float = 7.0
    """Lines lower than this many pixels at target_size are dropped: nobody can read them there."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise ConfigError(f"min_confidence is {self.min_confidence} but must lie in 0 to 1: use 0.8, say")
        if self.target_size < 1 or self.min_height < 0:
            raise ConfigError(
                f"target_size is {self.target_size} and min_height {self.min_height}, but they must be at "
                f"least 1 and 0: give the side of the tower's input in pixels, 336 for example"
            )


class Arranged(NamedTuple):
    """A reading in reading order, the lines left out of it, and one reject per reason for that."""

    reading: Reading
    dropped: tuple[Line, ...]
    rejects: tuple[Reject, ...]


def arrange(reading: Reading, settings: LayoutSettings) -> Arranged:
    """Drop what is uncertain or too small, then order and merge the rest."""
    unsure = tuple(line for line in reading.lines if line.confidence < settings.min_confidence)
    sure = tuple(line for line in reading.lines if line.confidence >= settings.min_confidence)
    scale = settings.target_size / max(*reading.size, 1)
    small = tuple(line for line in sure if text_height(line) * scale < settings.min_height)
    kept = tuple(line for line in sure if text_height(line) * scale >= settings.min_height)
    total = len(reading.lines)
    rejects = (
        _dropped(
            reading, DropReason.LOW_CONFIDENCE, unsure, f"of {total} lines under {settings.min_confidence:g}"
        ),
        _dropped(
            reading,
            DropReason.TOO_SMALL,
            small,
            f"of {total} lines under {settings.min_height:g} px at {settings.target_size} px",
        ),
    )
    merge = merge_paragraphs if settings.paragraphs is Paragraphs.LLAVAR else merge_rows
    return Arranged(
        reading=replace(reading, lines=merge(kept)),
        dropped=unsure + small,
        rejects=tuple(reject for reject in rejects if reject is not None),
    )


def _dropped(reading: Reading, reason: DropReason, lines: Sequence[Line], limit: str) -> Reject | None:
    if not lines:
        return None
    return Reject(id=reading.image, stage=STAGE, reason=reason, detail=f"{len(lines)} {limit}")


def text_height(line: Line) -> float:
    """Height of the letters in pixels: the short side where the box stands upright, as sideways text does."""
    box = line.box
    sideways = len(line.text.strip()) > 2 and box.height > 1.5 * box.width
    return box.width if sideways else box.height


def rows(lines: Sequence[Line]) -> tuple[tuple[Line, ...], ...]:
    """Lines side by side, top to bottom and left to right.

    Two boxes share a row if they overlap vertically by more than half of the smaller height. A box has to
    share it with every member of a row, so that a tall one does not tie two rows together.
    """
    found: list[list[Line]] = []
    for line in sorted(lines, key=_top_down):
        home = next((row for row in reversed(found) if all(same_row(line.box, o.box) for o in row)), None)
        if home is None:
            found.append([line])
        else:
            home.append(line)
    found.sort(key=lambda row: sum(_centre(line.box) for line in row) / len(row))
    return tuple(tuple(sorted(row, key=lambda line: (line.box.left, *_top_down(line)))) for row in found)


def same_row(one: Box, other: Box) -> bool:
    """Whether two boxes overlap vertically by more than half of the smaller height."""
    overlap = min(one.bottom, other.bottom) - max(one.top, other.top)
    return overlap > 0.5 * min(one.height, other.height)


def reading_order(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The same lines, row by row."""
    return tuple(line for row in rows(lines) for line in row)


def merge_rows(lines: Sequence[Line]) -> tuple[Line, ...]:
    """One line per row, its texts joined by blanks; as sure as the least sure of its parts."""
    return tuple(merged(row) for row in rows(lines))


def merged(parts: Sequence[Line]) -> Line:
    """One line out of parts in reading order. White space is brought to single blanks."""
    boxes = [part.box for part in parts]
    return Line(
        text=re.sub(r"\s+", " ", " ".join(part.text for part in parts)).strip(),
        box=Box(
            left=min(box.left for box in boxes),
            top=min(box.top for box in boxes),
            right=max(box.right for box in boxes),
            bottom=max(box.bottom for box in boxes),
        ),
        confidence=min(part.confidence for part in parts),
    )


def merge_paragraphs(lines: Sequence[Line], *, x_ths: float = 1.0, y_ths: float = 0.5) -> tuple[Line, ...]:
    """Paragraphs as EasyOCR's ``get_paragraph`` makes them (left to right), one line for each.

    A paragraph takes in any box one of whose edges lies within its hull, widened by ``x_ths`` and ``y_ths``
    times the mean height of its members. Within it, the next box is the leftmost of those whose centre is
    less than 0.4 mean heights below the highest centre that is left.
    """
    waiting = list(lines)
    found = {id(line): place for place, line in enumerate(lines)}
    paragraphs: list[Line] = []
    while waiting:
        group = [waiting.pop(0)]
        while (near := _first_near(group, waiting, x_ths, y_ths)) is not None:
            group.append(waiting.pop(near))
        paragraphs.append(merged(_in_paragraph(sorted(group, key=lambda line: found[id(line)]))))
    return tuple(paragraphs)


def _first_near(group: Sequence[Line], waiting: Sequence[Line], x_ths: float, y_ths: float) -> int | None:
    hull = merged(group).box
    reach = sum(line.box.height for line in group) / len(group)
    left, right = hull.left - x_ths * reach, hull.right + x_ths * reach
    top, bottom = hull.top - y_ths * reach, hull.bottom + y_ths * reach
    for place, line in enumerate(waiting):
        box = line.box
        level = left <= box.left <= right or left <= box.right <= right
        column = top <= box.top <= bottom or top <= box.bottom <= bottom
        if level and column:
            return place
    return None


def _in_paragraph(group: Sequence[Line]) -> list[Line]:
    left = list(group)
    slack = 0.4 * sum(line.box.height for line in group) / len(group)
    ordered: list[Line] = []
    while left:
        highest = min(_centre(line.box) for line in left)
        # The slack is zero for boxes without height; the highest itself always qualifies.
        level = [line for line in left if _centre(line.box) < highest + slack or _centre(line.box) == highest]
        # Of boxes that begin at the same place, EasyOCR takes the one that it found last.
        best = min(reversed(range(len(level))), key=lambda place: level[place].box.left)
        chosen = level[best]
        left.remove(chosen)
        ordered.append(chosen)
    return ordered


def _centre(box: Box) -> float:
    return (box.top + box.bottom) / 2


def _top_down(line: Line) -> tuple[float, float, str]:
    return (_centre(line.box), line.box.left, line.text)
