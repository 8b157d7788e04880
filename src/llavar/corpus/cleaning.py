"""Removing what a corpus no longer needs: its products, its provenance, and all commands on them stay.

What can be made again from what is there goes without being asked for. Raw downloads (``fetched/``) go only
when that is said: they are read once, by the stage ``open``, whose own copies stay in ``images/``. Should
``open`` have to be done again, the runner fetches what it lacks once more, and takes it if it is the same
file; where a URL has died by then, its picture is left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from llavar.corpus.fetch import FOLDER as FETCHED
from llavar.corpus.fetch import STAGE as FETCH
from llavar.corpus.manifest import Manifest
from llavar.corpus.opening import STAGE as OPEN
from llavar.corpus.shards import MANIFEST, STAGES, Corpus, existing
from llavar.errors import ConfigError


class Waste(StrEnum):
    """What may go."""

    UNFINISHED = "unfinished"
    """Files that a run which was killed was writing."""
    STAGES = "stages"
    """Shards of stages that the recipe of the last run does not have."""
    FETCHED = "fetched"
    """Pictures as they came from the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What there was of one kind, and whether it is gone now."""

    kind: Waste
    files: int
    bytes: int
    removed: bool


def clean(root: Path, *, fetched: bool = False, dry: bool = False) -> tuple[Cleaned, ...]:
    """Remove waste of the corpus in ``root``; raw downloads only if ``fetched``; nothing if ``dry``.

    Raises:
        NotFoundError: there is no corpus.
        ConfigError: a run is under way; or ``fetched``, and the pictures have not all been opened.
    """
    corpus = existing(root)
    with corpus.claimed():
        if fetched:
            _check_opened(corpus)
        wanted = {Waste.UNFINISHED: not dry, Waste.STAGES: not dry, Waste.FETCHED: fetched and not dry}
        return tuple(_cleaned(corpus, kind, remove=remove) for kind, remove in wanted.items())


def _cleaned(corpus: Corpus, kind: Waste, *, remove: bool) -> Cleaned:
    sizes: list[int] = []
    for path in list(_files(corpus, kind)):
        sizes.append(path.lstat().st_size)
        if remove:
            path.unlink()
    if remove:
        _forget(corpus, kind)
    return Cleaned(kind=kind, files=len(sizes), bytes=sum(sizes), removed=remove)


def _files(corpus: Corpus, kind: Waste) -> Iterator[Path]:
    root = corpus.root
    if kind is Waste.UNFINISHED:
        found = root.rglob("*.part")
    elif kind is Waste.STAGES:
        found = (path for folder in _strays(corpus) for path in folder.rglob("*"))
    else:
        found = (root / FETCHED).rglob("*")
    return (path for path in found if path.is_file() or path.is_symlink())


def _strays(corpus: Corpus) -> list[Path]:
    """Folders of stages that are none of the last run's."""
    chain = {summary.stage for summary in corpus.chain()}
    folder = corpus.root / STAGES
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if path.is_dir() and path.name not in chain]


def _forget(corpus: Corpus, kind: Waste) -> None:
    """Remove the folders that are empty now, and what the manifest says of them."""
    if kind is Waste.FETCHED:
        shutil.rmtree(corpus.root / FETCHED, ignore_errors=True)
    for folder in _strays(corpus) if kind is Waste.STAGES else ():
        with Manifest(corpus.root / MANIFEST) as manifest:
            manifest.cut(folder.name, 0)
        shutil.rmtree(folder)


def _check_opened(corpus: Corpus) -> None:
    """Raises ConfigError where a picture that was fetched has not been opened yet."""
    done = {summary.stage: summary for summary in corpus.chain()}
    if FETCH not in done:
        if (corpus.root / FETCHED).is_dir():  # of an earlier recipe
            return
        raise ConfigError(f"the corpus in {corpus.root} has fetched nothing; leave --fetched out")
    opened = done[OPEN].rows if OPEN in done else 0
    if opened != done[FETCH].kept or not corpus.shards(FETCH):
        raise ConfigError(
            f"{opened} of {done[FETCH].kept} pictures that were fetched have been opened; the others are "
            f"still needed: run  llavar corpus run RECIPE.yaml --out {corpus.root}  first"
        )
