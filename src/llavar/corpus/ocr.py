"""Reading the text of pictures with an OCR engine, in processes that may hang or die.

An engine is anything with a ``name`` and ``read(image)``; :class:`RapidOcr` works offline, because its
models travel in its wheel. :func:`read_all` spreads pictures over processes of one thread each: a picture
that cannot be opened, that hangs, or that takes its process down becomes a :class:`~llavar.records.Reject`,
and the rest goes on. As in the paper (section 3.1), a picture is first brought down to a short edge of 384
pixels: text that vanishes then is nothing the vision tower could have learned to see.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

from PIL import Image

from llavar.corpus.crew import Crew, Loss, Lost
from llavar.errors import ConfigError, ImageError, MissingExtraError, ModelError, NotFoundError
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


class Engine(Protocol):
    """An OCR engine that has loaded its models."""

    @property
    def name(self) -> str:
        """Engine and version, recorded with every reading."""
        ...

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        """Lines of an RGB picture, boxes in its pixels, in any order."""
        ...


class EngineFactory(Protocol):
    """Makes an engine inside a worker process; has to pickle. An engine's class is one."""

    @property
    def name(self) -> str:
        """As the name of the engine that it makes."""
        ...

    def __call__(self) -> Engine:
        """Load the models. Raises MissingExtraError or ModelError."""
        ...


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


class RapidOcr:
    """PP-OCRv6 through RapidOCR and ONNX Runtime on one thread; nothing is downloaded.

    Raises MissingExtraError if RapidOCR is not installed, ModelError if its wheel brought no models.
    """

    name: ClassVar[str] = f"rapidocr {_version('rapidocr')}"
    detector: ClassVar[str] = "PP-OCRv6_det_small.onnx"
    recognizer: ClassVar[str] = "PP-OCRv6_rec_small.onnx"

    def __init__(self) -> None:
        if importlib.util.find_spec("rapidocr") is None:
            raise MissingExtraError(
                "reading pictures needs the package 'rapidocr', which is not installed: "
                "run  pip install 'llavar[ocr]'"
            )
        import cv2  # comes with rapidocr
        import rapidocr

        cv2.setNumThreads(1)
        models = Path(rapidocr.__file__).parent / "models"
        self._engine: Any = rapidocr.RapidOCR(params=self._params(models))

    @classmethod
    def _params(cls, models: Path) -> dict[str, Any]:
        """RapidOCR's settings: about 0.9 s a photograph on one core, where its own defaults take several."""
        for name in (cls.detector, cls.recognizer):
            if not (models / name).is_file():
                raise ModelError(
                    f"the installed rapidocr ({_version('rapidocr')}) has no {name} in {models}: "
                    f"install rapidocr >= 3.9.2, whose wheel carries it"
                )
        return {
            "Global.use_cls": False,
            "Global.text_score": 0.0,  # RapidOCR would drop lines in silence; confidence is filtered later
            "Global.log_level": "critical",
            "Det.limit_type": "max",
            "Det.limit_side_len": 960,
            # Paths instead of model names: given a name, RapidOCR may go to the network.
            "Det.model_path": str(models / cls.detector),
            "Rec.model_path": str(models / cls.recognizer),
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        """Lines with boxes in pixels of ``image``, each the upright hull of the engine's quadrilateral."""
        import numpy as np

        bgr = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
        found = self._engine(bgr)
        texts = getattr(found, "txts", None)
        if texts is None:
            return ()
        return tuple(
            Line(text=str(text), box=_hull(quad, image.size), confidence=min(1.0, max(0.0, float(score))))
            for text, quad, score in zip(texts, found.boxes.tolist(), found.scores, strict=True)
        )


def _hull(quad: Sequence[Sequence[float]], size: tuple[int, int]) -> Box:
    xs = [min(max(float(x), 0.0), float(size[0])) for x, _ in quad]
    ys = [min(max(float(y), 0.0), float(size[1])) for _, y in quad]
    return Box(left=min(xs), top=min(ys), right=max(xs), bottom=max(ys))


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
