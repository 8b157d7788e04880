"""Keys under which work is done: hashes of settings and of what goes in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, cast


def key_of(*parts: object) -> str:
    """A hash of settings, 32 hexadecimal digits: dataclasses by the names and values of their fields.

    Raises:
        TypeError: for anything that is not a dataclass, a path, a set, or JSON.
    """
    return hashlib.sha256(json.dumps(parts, default=_plain, sort_keys=True).encode()).hexdigest()[:32]


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {"": type(value).__name__, **asdict(cast("Any", value))}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(cast("set[str]", value))
    raise TypeError(f"a setting of type {type(value).__name__} has no hash")
