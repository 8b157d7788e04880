"""What a benchmark is: the files it reads, the questions in them, and the metric of their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from llavar.errors import DataError, NotFoundError
from llavar.records import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A file or folder that a benchmark reads, below the folder that ``--data`` names.

    ``path`` is relative; a trailing slash means a folder, an asterisk any name, and `` | `` separates
    places of which the first that is there counts. ``what`` says what it holds, ``source`` who publishes it.
    """

    path: str
    what: str
    source: str
    required: bool = True

    def find(self, data: Path) -> Path | None:
        """Where it is below ``data``, or None. Of a pattern, the folder that holds what matches."""
        return next((found for place in self.path.split(" | ") if (found := _find(data, place))), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The questions of a benchmark, in the order of its files; images are relative to ``image_root``.

    No picture has been opened and their presence is not checked, only that of their folder.
    """

    questions: tuple[Question, ...]
    image_root: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A named set of questions with its metric.

    ``metric`` is a name of :data:`llavar.evals.metrics.NAMES`, or ``judge`` for answers that a review
    compares; ``metric_of`` names another one for some categories, ``also`` further ones worth reporting.
    ``n`` counts the questions of the official files (0: it depends on the data). ``load`` takes the folder
    of ``--data`` and raises NotFoundError with all that is expected, or DataError with file and row.
    """

    name: str
    about: str
    metric: str
    files: tuple[Expected, ...]
    load: Callable[[Path], Loaded]
    max_new_tokens: int
    n: int = 0
    metric_of: Mapping[str, str] = field(default_factory=dict[str, str])
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where the expected files are, in the order in which a benchmark names them."""

    paths: tuple[Path | None, ...]

    def __getitem__(self, index: int) -> Path:
        path = self.paths[index]
        if path is None:
            raise LookupError(f"file {index} is optional and not there")
        return path


Reader = Callable[[Found], Loaded]


def loader(name: str, files: tuple[Expected, ...], read: Reader) -> Callable[[Path], Loaded]:
    """The ``load`` of a benchmark: finds its files, reads them, and checks what came out."""
    return partial(_load, name, files, read)


def locate(name: str, files: tuple[Expected, ...], data: Path) -> Found:
    """Find the files of the benchmark ``name`` below ``data``.

    Raises:
        NotFoundError: ``data`` is no folder, or a required file is missing; the message lists all of them.
    """
    if not data.is_dir():
        raise NotFoundError(f"there is no folder at {data}; give the one that holds the benchmarks' files")
    found = tuple(file.find(data) for file in files)
    if any(path is None and file.required for path, file in zip(found, files, strict=True)):
        pairs = zip(files, found, strict=True)
        listed = "; ".join(_described(file, path) for file, path in pairs if file.required or path)
        raise NotFoundError(f"{name} needs files that are not all in {data}: {listed}")
    return Found(paths=found)


def _described(file: Expected, path: Path | None) -> str:
    state = "found" if path else "MISSING"
    places = file.path.replace(" | ", " or ")
    return f"[{state}] {places} ({file.what}; from {file.source})"


def _load(name: str, files: tuple[Expected, ...], read: Reader, data: Path) -> Loaded:
    loaded = read(locate(name, files, data))
    if not loaded.questions:
        raise DataError(f"the files of {name} in {data} hold no question; check that they are complete")
    seen: set[str] = set()
    for question in loaded.questions:
        if question.id in seen:
            raise DataError(
                f"two questions of {name} in {data} have the id {question.id!r}; "
                "the file was merged or doubled: download it again"
            )
        seen.add(question.id)
    return loaded


def _find(data: Path, place: str) -> Path | None:
    if "*" in place:
        matches = sorted(path for path in data.glob(place) if path.is_file())
        return matches[0].parent if matches else None
    path = data / place
    there = path.is_dir() if place.endswith("/") else path.is_file()
    return path if there else None
