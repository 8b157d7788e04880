"""Reading the text of one picture with an OCR engine.

An engine is anything with a ``name`` and ``read(image)`` (:mod:`llavar.corpus.engines`). As in the paper
(section 3.1), a picture is first brought down to a short edge of 384 pixels: text that vanishes then is
nothing the vision tower could have learned to see.
"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from llavar.corpus.engines import Engine
from llavar.errors import ImageError, NotFoundError
from llavar.images import open_image
from llavar.records import Box, Line, Reading, Reject

STAGE = "ocr"
SHORT_EDGE = 384


class OcrReason(StrEnum):
    """Why a picture has no reading."""

    CANNOT_OPEN = "the picture cannot be opened"
    ENGINE_FAILED = "the engine failed on it"


def shrink(image: Image.Image, short_edge: int | None) -> Image.Image:
    """``image`` with its short edge brought down to ``short_edge``, never up; unchanged if that is None."""
    shorter = min(image.size)
    if short_edge is None or shorter <= short_edge:
        return image
    width, height = (max(1, round(side * short_edge / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)


class Opened(NamedTuple):
    """A picture as engines get it, and the size of the upright original."""

    path: Path
    image: Image.Image
    size: tuple[int, int]


def opened(
    path: Path,
    *,
    short_edge: int | None = SHORT_EDGE,
    size: tuple[int, int] | None = None,
    called: str | None = None,
) -> Opened | Reject:
    """Open a picture for engines. ``called`` stands for its path in a reject.

    Where its ``size`` is known already, a JPEG that is much larger than what is read is not decoded in full.
    """
    enough = None if size is None or short_edge is None else 2 * short_edge
    try:
        original = open_image(path, reduced_to=enough, called=called)
    except (ImageError, NotFoundError) as error:
        return _reject(path, OcrReason.CANNOT_OPEN, str(error))
    except OSError as error:  # a path that is forbidden, or vanished meanwhile
        return _reject(path, OcrReason.CANNOT_OPEN, f"{type(error).__name__}: {error.strerror}")
    return Opened(path, shrink(original, short_edge), size or original.size)


def read_opened(picture: Opened, engine: Engine) -> Reading | Reject:
    """Read an open picture in this process. Boxes are in pixels of the upright original."""
    started = time.perf_counter()
    try:
        found = engine.read(picture.image)
    except Exception as error:  # noqa: BLE001 - engines raise anything, and one picture must not end the run
        return _reject(picture.path, OcrReason.ENGINE_FAILED, f"{type(error).__name__}: {error}"[:500])
    across, down = picture.size[0] / picture.image.width, picture.size[1] / picture.image.height
    return Reading(
        image=str(picture.path),
        size=picture.size,
        lines=tuple(_scaled(line, across, down) for line in found),
        engine=engine.name,
        seconds=round(time.perf_counter() - started, 3),
    )


def _scaled(line: Line, across: float, down: float) -> Line:
    box = line.box
    hull = Box(left=box.left * across, top=box.top * down, right=box.right * across, bottom=box.bottom * down)
    return Line(text=line.text, box=hull, confidence=line.confidence)


def _reject(path: Path, reason: OcrReason, detail: str) -> Reject:
    return Reject(id=str(path), stage=STAGE, reason=reason, detail=detail)
