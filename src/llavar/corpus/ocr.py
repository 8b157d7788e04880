"""Reading the text of pictures with an OCR engine, in processes that may hang or die.

An engine is anything with a ``name`` and ``read(image)`` (:mod:`llavar.corpus.engines`);
:class:`~llavar.corpus.engines.rapidocr.RapidOcr` works offline, because its models travel in its wheel.
:func:`read_all` spreads pictures over processes of one thread each: a picture
that cannot be opened, that hangs, or that takes its process down becomes a :class:`~llavar.records.Reject`,
and the rest goes on. As in the paper (section 3.1), a picture is first brought down to a short edge of 384
pixels: text that vanishes then is nothing the vision tower could have learned to see.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from PIL import Image

from llavar.corpus.crew import Crew, Loss, Lost
from llavar.corpus.engines import Engine, EngineFactory
from llavar.corpus.engines.rapidocr import RapidOcr
from llavar.errors import ConfigError, ImageError, NotFoundError
from llavar.images import open_image
from llavar.records import Box, Line, Reading, Reject

STAGE = "ocr"
SHORT_EDGE = 384


class OcrReason(StrEnum):
    """Why a picture has no reading."""

    CANNOT_OPEN = "the picture cannot be opened"
    ENGINE_FAILED = "the engine failed on it"
    TIME_LIMIT = "reading it took longer than the time limit"
    PROCESS_DIED = "the reading process died on it"


_LOSSES = {
    Loss.FAILED: OcrReason.ENGINE_FAILED,
    Loss.TIME_LIMIT: OcrReason.TIME_LIMIT,
    Loss.DIED: OcrReason.PROCESS_DIED,
}


def shrink(image: Image.Image, short_edge: int | None) -> Image.Image:
    """``image`` with its short edge brought down to ``short_edge``, never up; unchanged if that is None."""
    shorter = min(image.size)
    if short_edge is None or shorter <= short_edge:
        return image
    width, height = (max(1, round(side * short_edge / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def read_one(path: Path, engine: Engine, *, short_edge: int | None = SHORT_EDGE) -> Reading | Reject:
    """Read one picture in this process. ``size`` and boxes are in pixels of the upright original."""
    started = time.perf_counter()
    try:
        original = open_image(path)
    except (ImageError, NotFoundError) as error:
        return _reject(path, OcrReason.CANNOT_OPEN, str(error))
    except OSError as error:  # a path that is forbidden, or vanished meanwhile
        return _reject(path, OcrReason.CANNOT_OPEN, f"{type(error).__name__}: {error}")
    small = shrink(original, short_edge)
    try:
        found = engine.read(small)
    except Exception as error:  # noqa: BLE001 - engines raise anything, and one picture must not end the run
        return _reject(path, OcrReason.ENGINE_FAILED, f"{type(error).__name__}: {error}"[:500])
    across, down = original.width / small.width, original.height / small.height
    return Reading(
        image=str(path),
        size=original.size,
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


OnResult = Callable[[int, Reading | Reject], None]
"""Called with the place in ``paths`` and the result as soon as one is there, in whatever order they come."""


def read_all(
    paths: Sequence[Path],
    *,
    engine: EngineFactory = RapidOcr,
    workers: int = 1,
    time_limit: float = 60.0,
    short_edge: int | None = SHORT_EDGE,
    on_result: OnResult | None = None,
) -> Generator[Reading | Reject, None, None]:
    """Read pictures in ``workers`` processes; results come in the order of ``paths``, one for each.

    ``time_limit`` is in seconds per picture, opening included; whoever exceeds it is killed and rejected. The
    processes are spawned, since forking a parent with torch's threads can deadlock; closing the iterator ends
    them. Raises ConfigError for settings that cannot work, and whatever ``engine`` raises while it loads.
    """
    if short_edge is not None and short_edge < 32:
        raise ConfigError(f"short_edge is {short_edge} px, under which no text survives: use >= 32, or None")
    crew = Crew[int, Path, Reading | Reject](
        maker=_Readers(engine=engine, short_edge=short_edge), workers=workers, time_limit=time_limit
    )
    return _in_order(paths, crew, on_result or (lambda _index, _result: None))


def _in_order(
    paths: Sequence[Path], crew: Crew[int, Path, Reading | Reject], on_result: OnResult
) -> Generator[Reading | Reject, None, None]:
    ready: dict[int, Reading | Reject] = {}
    following = 0
    with crew:
        for index, found in crew.results(enumerate(paths)):
            result = _lost(paths[index], found) if isinstance(found, Lost) else found
            ready[index] = result
            on_result(index, result)
            while following in ready:
                yield ready.pop(following)
                following += 1


def _lost(path: Path, lost: Lost) -> Reject:
    return _reject(path, _LOSSES[lost.why], lost.detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Readers:
    """Makes, in a process of its own, the function that reads one picture."""

    engine: EngineFactory
    short_edge: int | None

    @property
    def name(self) -> str:
        return f"the OCR engine {self.engine.name}"

    def __call__(self) -> Callable[[Path], Reading | Reject]:
        return partial(read_one, engine=self.engine(), short_edge=self.short_edge)
