"""An export from beginning to end: refused early, written aside, loaded again, and only then in its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from llavar.errors import ConfigError, ModelError, StorageError
from llavar.models import card, export
from llavar.models import folder as folders
from llavar.models.export.base import Exported, ExportedFile, Options, Order, Target
from llavar.models.export.push import push
from llavar.models.export.source import open_source
from llavar.models.stored import check_out
from llavar.models.stream import Progress

_SPARE = 64 << 20
"""Bytes for documents, and for file systems that count otherwise."""


def run(
    model: str | Path,
    out: Path,
    to: str,
    options: Options | None = None,
    *,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Exported:
    """Export a model folder or hub id to the target called ``to``, into the folder ``out``.

    ``out`` appears when it is whole and was checked. ``progress`` is told the bytes of weights written and
    those in all, ``say`` the target's notes before anything is written.

    Raises:
        ConfigError: no such target, or an option that means nothing there.
        NotFoundError, FetchError: there is no such model; the upload failed.
        ModelError: it cannot run there, ``out`` holds files, or what was written is not what was meant.
        StorageError: not enough room.
        MissingExtraError: the target needs a package that is not there.
    """
    options = options or Options()
    target = export.load(to)
    _check_options(to, target, options)
    _check_empty(out)
    source = open_source(model)
    check_out(out, source.folder)
    order = Order(source=source, options=options, name=out.absolute().name, progress=progress)
    target.refuse(order)
    _check_room(out, target.nbytes(order))
    notes = target.notes(order)
    if say is not None:
        for note in notes:
            say(f"note: {note}")
    with folders.replacing(out) as aside:
        known = target.write(order, aside)
        checked = target.check(order, aside)
        (aside / "README.md").write_text(target.card(order, checked), encoding="utf-8")
        card.write_checksums(aside, known)
    return Exported(
        folder=out,
        target=to,
        files=_files(out),
        checked=checked,
        command=target.command(out),
        notes=notes,
        pushed=push(out, options.push, private=options.private) if options.push else "",
    )


def _check_options(to: str, target: Target, options: Options) -> None:
    idle = sorted(options.said() - target.takes)
    if idle:
        raise ConfigError(f"{idle[0]} means nothing for --to {to}; leave it out")


def _check_empty(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise ModelError(f"{out} holds files already; name a new folder for --out, or empty that one")


def _check_room(out: Path, needed: int) -> None:
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    if needed + _SPARE > free:
        raise StorageError(
            f"about {(needed + _SPARE) / 1e9:.1f} GB are to be written in {place} and {free / 1e9:.1f} GB "
            "are free; make room, or name a folder on another disk"
        )


def _files(folder: Path) -> tuple[ExportedFile, ...]:
    """Every file but the list of checksums, with what that list says."""
    lines = (folder / card.CHECKSUMS).read_text(encoding="utf-8").splitlines()
    listed = (line.split("  ", 1) for line in lines)
    return tuple(
        ExportedFile(name=name, size=(folder / name).stat().st_size, sha256=digest) for digest, name in listed
    )
