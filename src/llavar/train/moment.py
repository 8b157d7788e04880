"""A moment of a run as it is written down, and the names that say which of them are complete.

What is written gets its name when it is complete. There are two kinds: ``step-N.pt``, one file of all
(:mod:`llavar.train.checkpoint`), and ``step-N``, a folder with a part of every process
(:mod:`llavar.train.shards`).
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

PREFIX = "step-"
ASIDE = ".partial"
_COMPLETE = re.compile(rf"{PREFIX}(\d+)(\.pt)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """``step`` steps are finished; ``fingerprint`` ties the state to the settings it was made with.

    ``unlogged`` are sums over the steps since the log's last entry (:class:`llavar.train.metrics.Owed`);
    ``processes`` is how many there were, 0 where an earlier version did not write it down.
    """

    step: int
    fingerprint: str
    unlogged: tuple[float, ...] = ()
    processes: int = 0


def complete(folder: Path) -> list[Path]:
    """Checkpoints of either kind that were written to their end, the newest last."""
    found = list(folder.iterdir()) if folder.is_dir() else []
    return sorted((path for path in found if _COMPLETE.fullmatch(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """After how many steps a complete checkpoint was written."""
    return int(path.name.removeprefix(PREFIX).removesuffix(".pt"))


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep``, and what kills left half-written or half-removed."""
    for old in complete(folder)[:-keep]:
        # A folder does not vanish at once; until it has, it must not look complete.
        remove(old.rename(old.with_name(old.name + ASIDE)) if old.is_dir() else old)
    for left in folder.glob(f"{PREFIX}*{ASIDE}"):
        remove(left)


def remove(path: Path) -> None:
    """Remove a checkpoint of either kind."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> None:
    """Keep a damaged checkpoint under another name, so that it takes no place among the newest."""
    target = path.with_name(path.name.removesuffix(".pt") + ".unreadable")
    remove(target)
    path.rename(target)


def flush(folder: Path) -> None:
    """Have the system write down which files ``folder`` holds."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
