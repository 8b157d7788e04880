"""Arrays that are expensive to make, kept in files and mapped into memory, so that processes share them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from llavar import files
from llavar.errors import NotFoundError

_SMALL = 1 << 20
"""Files below this many bytes are read anew each time: that is sooner done than kept."""
_ENDS = 1 << 16


def default_folder() -> Path:
    """``llavar/index`` in the user's folder for caches (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "llavar" / "index"


def identity(path: Path) -> str:
    """What tells a file from another and from itself after a change: path, size, time, both ends.

    Raises:
        NotFoundError: there is no such file.
    """
    try:
        state = path.stat()
        with path.open("rb") as file:
            head = file.read(_ENDS)
            file.seek(max(0, state.st_size - _ENDS))
            tail = file.read(_ENDS)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFoundError(f"there is no data file at {path}; check the path") from None
    return key(str(path.absolute()), state.st_size, state.st_mtime_ns, head, tail)


def key(*parts: object) -> str:
    """A name for what is made from ``parts``."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode("utf-8", "backslashreplace")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


def worth_keeping(path: Path) -> bool:
    """Whether what is made from ``path`` is worth a file."""
    return path.stat().st_size >= _SMALL


def load(name: str, folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """The arrays kept under ``name``, mapped, and what was written beside them; else None."""
    try:
        document: Any = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        names = cast("list[str]", document["arrays"])
        arrays = {each: _mapped(folder / f"{name}.{each}.npy") for each in names}
        return arrays, cast("dict[str, Any]", document["about"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(path: Path) -> NDArray[Any]:
    found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def save(name: str, folder: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, object]) -> bool:
    """Keep ``arrays``; whether that was possible. A full or read-only disk costs time later, not the run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each, array in arrays.items():
            if not array.size:  # nothing can be mapped of an empty file
                return False
            with files.replacing(folder / f"{name}.{each}.npy") as handle:
                np.save(handle, array, allow_pickle=False)
        document = {"arrays": list(arrays), "about": dict(about)}
        files.write_text(folder / f"{name}.json", json.dumps(document))
    except OSError:
        return False
    return True
