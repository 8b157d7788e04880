"""Removing what a corpus no longer needs: its products, its provenance, and all commands on them stay.

What can be made again from what is there goes without being asked for. Raw downloads (``fetched/``) go only
when that is said: they are read once, by the stage ``open``, whose own copies stay in ``images/``. Should
``open`` have to be done again, the runner fetches what it lacks once more, and takes it if it is the same
file; where a URL has died by then, its picture is left out. So with pictures of rows that were left out
(``images/``), which go when that is said: a changed recipe that wants them has them opened again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from llavar.corpus.fetch import FOLDER as FETCHED
from llavar.corpus.fetch import STAGE as FETCH
from llavar.corpus.manifest import Manifest
from llavar.corpus.opening import FOLDER as IMAGES
from llavar.corpus.opening import STAGE as OPEN
from llavar.corpus.opening import THINNED
from llavar.corpus.reuse import FOLDER as REUSE
from llavar.corpus.rows import path_of
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
    REJECTED = "rejected"
    """Opened pictures that no row uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What there was of one kind, and whether it is gone now."""

    kind: Waste
    files: int
    bytes: int
    removed: bool


def clean(
    root: Path, *, fetched: bool = False, rejected: bool = False, dry: bool = False
) -> tuple[Cleaned, ...]:
    """Remove waste of the corpus in ``root``; nothing if ``dry``.

    Raw downloads go only if ``fetched``, pictures that no row uses only if ``rejected``.

    Raises:
        NotFoundError: there is no corpus.
        ConfigError: a run is under way; or ``fetched``, and the pictures have not all been opened; or
            ``rejected``, and stages are not done.
    """
    corpus = existing(root)
    with corpus.claimed():
        if fetched:
            _check_opened(corpus)
        if rejected:
            _check_done(corpus)
        asked = {Waste.FETCHED: fetched, Waste.REJECTED: rejected}
        wanted = {kind: asked.get(kind, True) and not dry for kind in Waste}
        return tuple(_cleaned(corpus, kind, remove=remove) for kind, remove in wanted.items())


def _cleaned(corpus: Corpus, kind: Waste, *, remove: bool) -> Cleaned:
    sizes: list[int] = []
    found = list(_files(corpus, kind))
    if remove and found and kind is Waste.REJECTED:  # said first: a kill must not leave it unsaid
        (corpus.root / THINNED).touch()
    for path in found:
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
        chain = {summary.stage for summary in corpus.chain()}
        aside = (path for path in (root / REUSE).glob("*") if path.name.rpartition("-")[0] not in chain)
        found = (*(path for folder in _strays(corpus) for path in folder.rglob("*")), *aside)
    elif kind is Waste.FETCHED:
        found = (root / FETCHED).rglob("*")
    else:
        found = _unused(corpus)
    return (path for path in found if path.is_file() or path.is_symlink())


def _unused(corpus: Corpus) -> Iterator[Path]:
    """Pictures of no item that came through all stages; none where these are not done."""
    if _unfinished(corpus) is not None:
        return
    used = {path_of(item) for items in corpus.items(corpus.chain()[-1].stage) for item in items}
    for path in (corpus.root / IMAGES).rglob("*"):
        if path.relative_to(corpus.root).as_posix() not in used:
            yield path


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


def _unfinished(corpus: Corpus) -> str | None:
    """The first stage that has not seen all that the one before it kept."""
    pairs = pairwise(corpus.chain())
    behind = (stage for before, stage in pairs if not stage.shards or stage.rows != before.kept)
    return next((stage.stage for stage in behind), None)


def _check_done(corpus: Corpus) -> None:
    """Raises ConfigError where nobody knows yet which pictures are needed."""
    stage = _unfinished(corpus)
    if stage is not None:
        raise ConfigError(
            f"the stage {stage!r} is not done, and pictures may be needed that no row uses yet: run  llavar "
            f"corpus run RECIPE.yaml --out {corpus.root}  first"
        )


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
