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
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from PIL import Image

from llavar.errors import ConfigError, ImageError, LlavarError, MissingExtraError, ModelError, NotFoundError
from llavar.images import open_image
from llavar.records import Box, Line, Reading, Reject

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

STAGE = "ocr"
SHORT_EDGE = 384
START_LIMIT = 300.0
"""Seconds that an engine may take to load before the run is given up."""


class OcrReason(StrEnum):
    """Why a picture has no reading."""

    CANNOT_OPEN = "the picture cannot be opened"
    ENGINE_FAILED = "the engine failed on it"
    TIME_LIMIT = "reading it took longer than the time limit"
    PROCESS_DIED = "the reading process died on it"


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
    if workers < 1:
        raise ConfigError(f"workers is {workers} but reading needs at least 1 process: set workers >= 1")
    if not time_limit > 0:
        raise ConfigError(f"time_limit is {time_limit} s but must be above 0: set it to 60, for example")
    if short_edge is not None and short_edge < 32:
        raise ConfigError(f"short_edge is {short_edge} px, under which no text survives: use >= 32, or None")
    crew = _Crew(engine=engine, time_limit=time_limit, short_edge=short_edge)
    return _in_order(paths, crew, min(workers, len(paths)), on_result or (lambda _index, _result: None))


def _in_order(
    paths: Sequence[Path], crew: _Crew, workers: int, on_result: OnResult
) -> Generator[Reading | Reject, None, None]:
    ready: dict[int, Reading | Reject] = {}
    try:
        crew.open(paths, workers)
        for index in range(len(paths)):
            while index not in ready:
                for done, result in crew.step():
                    ready[done] = result
                    on_result(done, result)
            yield ready.pop(index)
    finally:
        crew.close()


@dataclass(slots=True, kw_only=True)
class _Worker:
    """One process and what it is doing. ``job`` is None until its engine is loaded, and when it is idle."""

    process: SpawnProcess
    channel: Connection
    deadline: float
    loaded: bool = False
    job: int | None = None


@dataclass(slots=True, kw_only=True)
class _Crew:
    """Worker processes and the queue they take from; all of it lives in the thread that calls ``step``."""

    engine: EngineFactory
    time_limit: float
    short_edge: int | None
    paths: Sequence[Path] = ()
    waiting: deque[int] = field(default_factory=deque[int])
    workers: list[_Worker] = field(default_factory=list[_Worker])

    def open(self, paths: Sequence[Path], workers: int) -> None:
        self.paths = paths
        self.waiting.extend(range(len(paths)))
        for _ in range(workers):
            self._hire()

    def close(self) -> None:
        for worker in tuple(self.workers):
            self._dismiss(worker)

    def step(self) -> list[tuple[int, Reading | Reject]]:
        """Wait until some worker has news or is late; return what was finished by it."""
        busy = [worker for worker in self.workers if worker.job is not None or not worker.loaded]
        assert busy, "pictures are left but nobody reads them"
        patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
        ready = connection.wait([worker.channel for worker in busy], timeout=patience)
        news = [done for worker in busy if worker.channel in ready for done in self._hear(worker)]
        late = [
            worker for worker in busy if worker.channel not in ready and worker.deadline <= time.monotonic()
        ]
        return news + [self._give_up(worker) for worker in late]

    def _hear(self, worker: _Worker) -> list[tuple[int, Reading | Reject]]:
        try:
            message = worker.channel.recv()
        except (EOFError, OSError):
            return [self._bury(worker)]
        if isinstance(message, BaseException):
            raise message
        if not worker.loaded:
            worker.loaded = True
            self._assign(worker)
            return []
        assert worker.job is not None, "an idle worker spoke"
        done = (worker.job, message)
        self._assign(worker)
        return [done]

    def _assign(self, worker: _Worker) -> None:
        worker.job = self.waiting.popleft() if self.waiting else None
        if worker.job is not None:
            worker.deadline = time.monotonic() + self.time_limit
            with suppress(OSError):  # it died meanwhile: the next step hears the end of its pipe
                worker.channel.send(self.paths[worker.job])

    def _bury(self, worker: _Worker) -> tuple[int, Reading | Reject]:
        """The process of ``worker`` has ended by itself."""
        worker.process.join(timeout=10)
        code = worker.process.exitcode
        if worker.job is None:
            raise ModelError(
                f"the process for the OCR engine {self.engine.name!r} ended with exit code {code} before it "
                f"had loaded: see its output above, and start the script that reads pictures under "
                f"  if __name__ == '__main__':"
            )
        return self._replace(worker, OcrReason.PROCESS_DIED, f"exit code {code}")

    def _give_up(self, worker: _Worker) -> tuple[int, Reading | Reject]:
        if worker.job is None:
            raise ModelError(
                f"the OCR engine {self.engine.name!r} has not loaded after {START_LIMIT:g} s: "
                f"use fewer workers, or another engine"
            )
        return self._replace(worker, OcrReason.TIME_LIMIT, f"{self.time_limit:g} s")

    def _replace(self, worker: _Worker, reason: OcrReason, detail: str) -> tuple[int, Reading | Reject]:
        assert worker.job is not None, "only a worker with a picture is replaced"
        self._dismiss(worker)
        # Those that are still loading will take one picture each.
        if len(self.waiting) > sum(not other.loaded for other in self.workers):
            self._hire()
        return worker.job, _reject(self.paths[worker.job], reason, detail)

    def _dismiss(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.channel.close()
        worker.process.close()

    def _hire(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self.engine, self.short_edge), name="llavar-ocr", daemon=True
        )
        try:
            with _deaf_to_interrupts():
                process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()  # so that the death of the process is the end of the file here
        self.workers.append(_Worker(process=process, channel=ours, deadline=time.monotonic() + START_LIMIT))


@contextmanager
def _deaf_to_interrupts() -> Generator[None, None, None]:
    """Processes started inside never see Ctrl-C, not even while they import: the parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_with_parent() -> None:
    """End this process with the parent, even one that was killed while an engine hangs here."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _serve(channel: Connection, engine: EngineFactory, short_edge: int | None) -> None:
    """What a worker process does: load, say so, then a picture in and a result out until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    try:
        reader = engine()
    except LlavarError as error:
        channel.send(error)
        return
    except Exception as error:  # noqa: BLE001 - sent in words, since a foreign exception may not unpickle
        channel.send(
            ModelError(f"the OCR engine {engine.name!r} cannot be loaded: {type(error).__name__}: {error}")
        )
        return
    channel.send(reader.name)
    while True:
        try:
            path = channel.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        try:
            channel.send(read_one(path, reader, short_edge=short_edge))
        except OSError:
            return
