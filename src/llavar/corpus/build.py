"""From a list of pictures to instruction data in one folder, stopping and going on at any point.

A build leaves in its folder

* ``readings.jsonl``  what OCR found in each file, by the hash of the file and of the settings that matter;
* ``stage1.json``     rows for stage 1 (:mod:`llavar.corpus.pairs`), in LLaVA's format;
* ``stage2.json``     rows for stage 2 (:mod:`llavar.corpus.teach`), in LLaVA's format;
* ``rejects.jsonl``   everything that was left out, at which stage and why.

Reading is the long part, so each result is appended as soon as it is there. A build that was killed goes on
with the first picture that has no reading; all else is made anew from the readings in moments.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from llavar.corpus.check import check_rows
from llavar.corpus.layout import LayoutSettings, Paragraphs, arrange
from llavar.corpus.ocr import SHORT_EDGE, STAGE, EngineFactory, OcrReason, RapidOcr, read_all
from llavar.corpus.pairs import PairSettings, pair, transcription
from llavar.corpus.readings import Entry, Readings
from llavar.corpus.teach import Teacher, TemplateTeacher
from llavar.corpus.wordings import SceneFacts
from llavar.data.source import write_rows
from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.records import Example, Reading, Reject

READINGS = "readings.jsonl"
STAGE1 = "stage1.json"
STAGE2 = "stage2.json"
REJECTS = "rejects.jsonl"

SCAN = "scan"
EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


class ScanReason(StrEnum):
    """Why a file of a folder is no picture of the corpus."""

    NOT_A_PICTURE = "not a picture by its extension"
    NOT_A_FILE = "not a regular file"
    NAME = "its name is not UTF-8"


class Step(StrEnum):
    """What a build is doing."""

    HASH = "hash"
    READ = "read"
    ROWS = "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a build is: ``done`` of ``total`` pictures in ``step``; ``note`` is to be shown, or empty."""

    step: Step
    done: int
    total: int
    note: str = ""


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture file, and what is known of it without reading. ``id`` becomes the id of its rows."""

    id: str
    path: Path
    facts: SceneFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """Everything that decides what a build makes of its pictures."""

    workers: int | None = None
    """Processes that read; None takes one per CPU, at most 8."""
    time_limit: float = 60.0
    """Seconds for one picture; what takes longer is rejected."""
    short_edge: int | None = SHORT_EDGE
    """Pictures are brought down to this short edge in pixels before they are read; None leaves them."""
    layout: LayoutSettings = field(default_factory=LayoutSettings)
    """Which lines are kept and how they are put together (stage 2 always uses lines)."""
    pairs: PairSettings = field(default_factory=PairSettings)
    """Rows of stage 1."""
    teacher: TemplateTeacher = field(default_factory=TemplateTeacher)
    """Conversations of stage 2."""

    def reading_key(self, engine: str) -> str:
        """Hash of all settings that change what is read."""
        return hashlib.sha256(f"{engine}\0{self.short_edge}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build made. ``readings`` is by picture id; ``reused`` counts files that were not read again."""

    folder: Path
    readings: Mapping[str, Reading]
    stage1: tuple[Example, ...]
    stage2: tuple[Example, ...]
    rejects: tuple[Reject, ...]
    reused: int
    seconds: float


def scan_folder(folder: Path) -> tuple[list[Path], list[Reject]]:
    """Picture files below ``folder`` by extension, sorted by path, and a Reject for each other file.

    Files and folders whose names begin with a dot are passed over, and links to folders are not followed.
    Raises NotFoundError if the folder is missing, ConfigError if it is a file, DataError without a picture.
    """
    if not folder.exists():
        raise NotFoundError(f"the folder of pictures {str(folder)!r} does not exist: check the path")
    if not folder.is_dir():
        raise ConfigError(f"{str(folder)!r} is a file but a folder of pictures is needed: name its folder")
    pictures: list[Path] = []
    rejects: list[Reject] = []
    for path in sorted(_walk(folder), key=lambda path: path.relative_to(folder).as_posix()):
        fault = _fault(path)
        if fault is None:
            pictures.append(path)
        else:
            rejects.append(fault)
    if not pictures:
        raise DataError(
            f"the folder {str(folder)!r} holds {len(rejects)} files and no picture among them: put in files "
            f"that end in {', '.join(sorted(EXTENSIONS))}"
        )
    return pictures, rejects


def _walk(folder: Path) -> Iterable[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in files if not name.startswith("."))


def _fault(path: Path) -> Reject | None:
    """Why a file of a folder is left out, judged without opening it."""
    name = _printable(str(path))
    if name != str(path):
        return Reject(id=name, stage=SCAN, reason=ScanReason.NAME, detail="rename it")
    if path.suffix.lower() not in EXTENSIONS:
        ending = f"its name ends in {path.suffix!r}" if path.suffix else "its name has no extension"
        return Reject(id=name, stage=SCAN, reason=ScanReason.NOT_A_PICTURE, detail=ending)
    if not path.is_file():
        return Reject(
            id=name, stage=SCAN, reason=ScanReason.NOT_A_FILE, detail="a broken link, pipe or device"
        )
    return None


def as_pictures(paths: Sequence[Path], root: Path) -> list[Picture]:
    """Pictures without facts, their ids the paths below ``root``."""
    return [Picture(id=path.relative_to(root).as_posix(), path=path) for path in paths]


def build(
    pictures: Sequence[Picture],
    out: Path,
    *,
    settings: BuildSettings | None = None,
    report: Report | None = None,
    image_root: Path | None = None,
    engine: EngineFactory = RapidOcr,
    teacher: Teacher | None = None,
    rejects: Sequence[Reject] = (),
) -> Built:
    """Read ``pictures`` and write rows and rejects into ``out``; called again, go on where it was stopped.

    Image paths in the rows are relative to ``image_root`` where they lie below it, absolute otherwise.
    ``rejects`` of earlier steps (a scan) are put in front of those made here. ``teacher`` takes the place of
    the one in the settings. Raises ConfigError for double ids or no picture at all, OSError if ``out`` cannot
    be written, and whatever ``engine`` raises while it loads.
    """
    started = time.perf_counter()
    settings = settings or BuildSettings()
    report = report or (lambda _progress: None)
    _require_usable(pictures)
    out.mkdir(parents=True, exist_ok=True)
    rows = _Rows(settings=settings, teacher=teacher or settings.teacher, rejects=[*rejects])
    keys, unreadable = _hashed(pictures, settings.reading_key(engine.name), report)
    with Readings(out / READINGS) as known:
        _report_damage(known, len(pictures), report)
        missing = _missing(keys, pictures, known, settings.time_limit)
        _read(missing, known, settings, engine, report)
        for picture in pictures:
            if picture.id in keys:
                image = _image_name(picture.path, image_root)
                rows.add(picture, image, known.entries[keys[picture.id]].result)
            else:
                rows.rejects.append(unreadable[picture.id])
    report(Progress(step=Step.ROWS, done=0, total=len(pictures)))
    rows.check()
    write_rows(rows.stage1, out / STAGE1)
    write_rows(rows.stage2, out / STAGE2)
    _write_rejects(rows.rejects, out / REJECTS)
    report(Progress(step=Step.ROWS, done=len(pictures), total=len(pictures)))
    return Built(
        folder=out,
        readings=rows.readings,
        stage1=tuple(rows.stage1),
        stage2=tuple(rows.stage2),
        rejects=tuple(rows.rejects),
        reused=len(set(keys.values())) - len(missing),
        seconds=round(time.perf_counter() - started, 3),
    )


def _require_usable(pictures: Sequence[Picture]) -> None:
    if not pictures:
        raise ConfigError("there are 0 pictures to build from, at least 1 is needed: name a folder with some")
    seen: set[str] = set()
    for picture in pictures:
        if picture.id in seen:
            raise ConfigError(f"the id {picture.id!r} belongs to 2 pictures but 1 is allowed: rename one")
        seen.add(picture.id)
        if _printable(f"{picture.id} {picture.path}") != f"{picture.id} {picture.path}":
            raise ConfigError(
                f"the name '{_printable(str(picture.path))}' is not UTF-8, which JSON needs: rename the file"
            )


def _printable(name: str) -> str:
    """A file name with what is not UTF-8 in it spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _hashed(
    pictures: Sequence[Picture], settings_key: str, report: Report
) -> tuple[dict[str, str], dict[str, Reject]]:
    """Keys of the journal by picture id, and rejects by picture id for files that cannot be read."""
    keys: dict[str, str] = {}
    unreadable: dict[str, Reject] = {}
    for done, picture in enumerate(pictures):
        report(Progress(step=Step.HASH, done=done, total=len(pictures)))
        try:
            keys[picture.id] = f"{_sha256(picture.path)}:{settings_key}"
        except OSError as error:
            why = f"{error.strerror or error}: {picture.path}"
            unreadable[picture.id] = Reject(
                id=picture.id, stage=STAGE, reason=OcrReason.CANNOT_OPEN, detail=why
            )
    report(Progress(step=Step.HASH, done=len(pictures), total=len(pictures)))
    return keys, unreadable


def _sha256(path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe would never end
        raise OSError("not a regular file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _report_damage(known: Readings, total: int, report: Report) -> None:
    if known.damaged:
        note = f"{known.damaged} damaged lines were removed from {known.path}; their pictures are read again"
        report(Progress(step=Step.READ, done=0, total=total, note=note))


def _missing(
    keys: Mapping[str, str], pictures: Sequence[Picture], known: Readings, time_limit: float
) -> dict[str, Path]:
    """Files to read, by key. Equal files are read once; what may end otherwise this time is tried again."""
    missing: dict[str, Path] = {}
    for picture in pictures:
        key = keys.get(picture.id)
        if key is not None and not _is_final(known.entries.get(key), time_limit):
            missing.setdefault(key, picture.path)
    return missing


def _is_final(entry: Entry | None, time_limit: float) -> bool:
    if entry is None or entry.reject is None:
        return entry is not None
    if entry.reject.reason == OcrReason.TIME_LIMIT:
        return entry.time_limit == time_limit
    return entry.reject.reason != OcrReason.PROCESS_DIED  # it may have been killed from outside


def _read(
    missing: Mapping[str, Path],
    known: Readings,
    settings: BuildSettings,
    engine: EngineFactory,
    report: Report,
) -> None:
    """Read files into the journal, each the moment it is done."""
    keys = list(missing)
    done = 0

    def keep(index: int, result: Reading | Reject) -> None:
        nonlocal done
        done += 1
        reading = result if isinstance(result, Reading) else None
        reject = result if isinstance(result, Reject) else None
        known.add(Entry(key=keys[index], time_limit=settings.time_limit, reading=reading, reject=reject))
        note = f"{result.id}: {result.reason}" if isinstance(result, Reject) else ""
        report(Progress(step=Step.READ, done=done, total=len(keys), note=note))

    if not keys:
        return
    report(Progress(step=Step.READ, done=0, total=len(keys)))
    results = read_all(
        list(missing.values()),
        engine=engine,
        workers=settings.workers or _cpus(),
        time_limit=settings.time_limit,
        short_edge=settings.short_edge,
        on_result=keep,
    )
    with closing(results):
        for _ in results:
            pass


def _cpus() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, usable)


def _image_name(path: Path, root: Path | None) -> str:
    absolute = path.absolute()
    if root is not None and absolute.is_relative_to(root.absolute()):
        return absolute.relative_to(root.absolute()).as_posix()
    return str(absolute)


@dataclass(slots=True, kw_only=True)
class _Rows:
    """Rows and rejects as they come together."""

    settings: BuildSettings
    teacher: Teacher
    rejects: list[Reject]
    readings: dict[str, Reading] = field(default_factory=dict[str, Reading])
    texts: dict[str, str] = field(default_factory=dict[str, str])
    stage1: list[Example] = field(default_factory=list[Example])
    stage2: list[Example] = field(default_factory=list[Example])

    def add(self, picture: Picture, image: str, result: Reading | Reject) -> None:
        if isinstance(result, Reject):
            self.rejects.append(replace(result, id=picture.id))
            return
        reading = replace(result, image=image)
        self.readings[picture.id] = reading
        self._pair(picture, reading)
        self._teach(picture, reading)

    def _pair(self, picture: Picture, reading: Reading) -> None:
        arranged = arrange(reading, self.settings.layout)
        self.rejects += [replace(reject, id=picture.id) for reject in arranged.rejects]
        # The layout has applied the threshold already, to the lines before they were merged.
        pairs = replace(self.settings.pairs, min_confidence=self.settings.layout.min_confidence)
        row = pair(arranged.reading, id=picture.id, image=reading.image, settings=pairs)
        if isinstance(row, Reject):
            self.rejects.append(row)
        else:
            self.stage1.append(row)

    def _teach(self, picture: Picture, reading: Reading) -> None:
        arranged = arrange(reading, replace(self.settings.layout, paragraphs=Paragraphs.LINES))
        self.texts[picture.id] = transcription(arranged.reading)
        made = self.teacher.teach(arranged.reading, picture.facts, dropped=arranged.dropped)
        if isinstance(made, Reject):
            self.rejects.append(replace(made, id=picture.id))
        else:
            self.stage2.append(Example(id=picture.id, conversation=made, images=(reading.image,)))

    def check(self) -> None:
        """Take out rows with faults. Pictures are not opened again: they were when they were read."""
        for rows, texts in ((self.stage1, None), (self.stage2, self.texts)):
            faults = check_rows(rows, None, texts=texts, open_images=False)
            bad = {fault.id for fault in faults}
            rows[:] = [row for row in rows if row.id not in bad]
            self.rejects += faults


def _write_rejects(rejects: Sequence[Reject], path: Path) -> None:
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
