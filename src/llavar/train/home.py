"""The folder of a run: whose it is, what it holds, and that only one process at a time trains in it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from llavar import files
from llavar.errors import ConfigError, StorageError
from llavar.records import Reject
from llavar.train import moment

ADAPTER = "adapter"
CHECKPOINTS = "checkpoints"
CONFIG = "config.json"
EXPECTED = "expected.json"
LOCK = "lock"
LOG = "metrics.jsonl"
MODEL = "model"
PROJECTOR = "mm_projector.bin"
REJECTS = "rejects.jsonl"
HELD_OUT_REJECTS = "validation_rejects.jsonl"
START = "start"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def claimed(out: Path) -> Generator[None]:
    """Keep ``out`` to this process while the block runs.

    The lock file holds the process's number, for people. What counts is the lock that the system keeps on
    it: a process that was killed has lost it, so that nothing stale has to be cleared away.

    Raises:
        ConfigError: another process trains there.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{out} is in use: process {_owner(file)} trains there; wait for it, or use another --out"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _owner(file: TextIO) -> str:
    file.seek(0)
    return file.read(20).strip() or "unknown"


@contextmanager
def writable(out: Path) -> Generator[None]:
    """A full disk ends the block with a sentence: what is missing, what is kept, what to do.

    Raises:
        StorageError: the disk of ``out`` is full, or takes nothing.
    """
    try:
        yield
    except Exception as error:
        reason = refused(error)
        if reason is None:
            raise
        saved = moment.complete(out / CHECKPOINTS)
        kept = f"it goes on after step {moment.step_of(saved[-1])}" if saved else "no step is saved yet"
        raise StorageError(
            f"{out} cannot be written: {reason} ({shutil.disk_usage(out).free / 1e6:.0f} MB are free there); "
            f"make room and start llavar train {out}: {kept}"
        ) from error


@contextmanager
def whole(folder: Path) -> Generator[Path]:
    """A folder to write into, beside ``folder``, which it replaces once the block has ended well.

    What an earlier process left there when it was killed is removed.
    """
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def refused(error: BaseException | None) -> str | None:
    """Why nothing can be written, if that is behind ``error``: torch and safetensors wrap what they met."""
    for _ in range(10):
        if isinstance(error, OSError) and error.errno in _FULL:
            return error.strerror
        if error is not None and "(os error 28)" in str(error):
            return os.strerror(errno.ENOSPC)
        error = error and (error.__cause__ or error.__context__)
    return None


def has_begun(out: Path) -> bool:
    """Whether a step was ever finished and written down in ``out``."""
    log = out / LOG
    return (log.is_file() and log.stat().st_size > 0) or bool(moment.complete(out / CHECKPOINTS))


def write_rejects(rejects: Iterable[Reject], path: Path) -> None:
    """One JSON object a line, replacing those of an earlier start."""
    lines = [json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects]
    files.write_text(path, "".join(lines))
