"""What runs on the nodes of a cluster: actors that hand items to a process of their own.

An actor itself works on nothing. It has a crew of one (:mod:`llavar.corpus.crew`), so that an item that hangs
or takes its process down is dealt with beside it, as on a single machine and with the same outcome to the
byte. The driver hears of nothing but actors and nodes that are lost.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from llavar.corpus.crew import Crew, Maker
from llavar.errors import ConfigError, LlavarError, ModelError, NotFoundError, StorageError
from llavar.version import __version__

TOKEN = ".cluster"
"""A file in the folder of the corpus while a cluster works on it; its text is known to the driver alone."""

_LANDMARKS = 3
_PACKAGES = (
    "easyocr",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "paddleocr",
    "paddlepaddle",
    "pillow",
    "rapidocr",
    "tesserocr",
    "tokenizers",
    "torch",
    "transformers",
)
"""Packages whose versions decide what comes out of a stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What every node has to have in common with the driver."""

    root: Path
    """The folder of the corpus, which nodes read and write."""
    token: str
    """The text of its file :data:`TOKEN`."""
    landmarks: tuple[tuple[Path, int], ...] = ()
    """Some files of the folders that pictures come from, with their sizes in bytes."""
    versions: tuple[tuple[str, str], ...] = ()
    """Of packages that decide what comes out."""

    def check(self) -> None:
        """Done on a node before it works, since a picture that it cannot see would count as broken.

        Raises:
            ConfigError: a package has another version than on the driver.
            NotFoundError: the node does not see the corpus, or the pictures.
            StorageError: it cannot write into the corpus.
        """
        node = socket.gethostname()
        self._check_versions(node)
        self._check_root(node)
        for path, size in self.landmarks:
            if not path.is_file() or path.stat().st_size != size:
                raise NotFoundError(
                    f"the node {node} does not see the picture {path} as the driver does; put the pictures "
                    "on storage that every node mounts under the same path"
                )

    def _check_versions(self, node: str) -> None:
        here = dict(versions())
        for name, wanted in self.versions:
            if here.get(name, wanted) != wanted:
                raise ConfigError(
                    f"the node {node} has {name} {here[name]} and the driver {wanted}, so that rows could "
                    "depend on the node; install one version everywhere"
                )

    def _check_root(self, node: str) -> None:
        try:
            is_it = (self.root / TOKEN).read_text() == self.token
        except OSError:
            is_it = False
        if not is_it:
            raise NotFoundError(
                f"the node {node} does not see the corpus in {self.root}; put it on storage that every node "
                "mounts under the same path"
            )
        trial = self.root / f"{TOKEN}-{uuid.uuid4().hex}"
        try:
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise StorageError(
                f"the node {node} cannot write into {self.root} ({error.strerror or error}); let it"
            ) from None


def versions() -> tuple[tuple[str, str], ...]:
    """Installed packages that decide what comes out. Builds of one version (``+cpu``) count as equal."""
    found = [("llavar", __version__)]
    for name in _PACKAGES:
        try:
            found.append((name, metadata.version(name).partition("+")[0]))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def landmarks(folders: Sequence[Path]) -> tuple[tuple[Path, int], ...]:
    """A few files by which nodes can tell whether they see these folders."""
    return tuple(
        (path, path.stat().st_size) for folder in folders for path in islice(_files(folder), _LANDMARKS)
    )


def _files(folder: Path) -> Iterator[Path]:
    """One after the other as they are asked for: a folder may hold millions."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file():
                yield Path(entry.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of the tasks of one call, in their order, or why the run has to end."""

    results: tuple[Any, ...] = ()
    seconds: float = 0.0
    """That the work took; 0 where a model was loaded in them."""
    error: LlavarError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """Makes, in an actor, the function that hands tasks to a process and brings back what came of them."""

    maker: Maker[Callable[[Any], Any]]
    time_limit: float
    common: Common

    @property
    def name(self) -> str:
        return self.maker.name

    def __call__(self) -> Callable[[Sequence[Any]], Done]:
        """Raises LlavarError: this node does not have what the driver has."""
        self.common.check()
        _forget_main()
        crew = Crew[int, Any, Any](maker=self.maker, workers=1, time_limit=self.time_limit)
        return _Relaying(crew=crew).work


@dataclass(slots=True)
class _Relaying:
    crew: Crew[int, Any, Any]
    loaded: bool = field(default=False)

    def work(self, tasks: Sequence[Any]) -> Done:
        """What is raised here concerns no single task: it ends the run."""
        started = time.perf_counter()
        try:
            found = dict(self.crew.results(enumerate(tasks)))
        except LlavarError as error:
            return Done(error=type(error)(f"on the node {socket.gethostname()}: {error}"))
        except Exception as error:  # noqa: BLE001 - sent in words, since a foreign exception may not unpickle
            what = f"{type(error).__name__}: {error}"[:300]
            return Done(error=ModelError(f"the node {socket.gethostname()} can start no process: {what}"))
        seconds = time.perf_counter() - started if self.loaded else 0.0
        self.loaded = True
        return Done(results=tuple(found[place] for place in range(len(tasks))), seconds=seconds)


def _forget_main() -> None:
    """Processes import the main module of their parent, here Ray's: a second of nothing for each of them."""
    vars(sys.modules["__main__"]).pop("__file__", None)
