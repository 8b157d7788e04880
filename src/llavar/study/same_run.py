"""One folder holds one run: a file in it says which, and settings that differ are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from llavar import files
from llavar.errors import ConfigError


def claim(marker: Path, wanted: Mapping[str, object], what: str) -> None:
    """Refuse to mix two runs in one folder: ``marker`` in it says which one it holds.

    ``wanted`` are plain values by what they are called in a sentence; ``what`` is the kind of run.

    Raises:
        ConfigError: it holds another one, or cannot be a folder.
    """
    out = marker.parent
    if marker.exists():
        earlier = held(marker)
        odd = [name for name in wanted if earlier.get(name) != wanted[name]]
        if odd:
            raise ConfigError(
                f"{out} holds a {what} with another {odd[0]} ({earlier.get(odd[0])!r}, now "
                f"{wanted[odd[0]]!r}); use another --out, or remove the folder to begin anew"
            )
        return
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{str(out)!r} is a file and a folder is needed; use another --out")
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(marker, json.dumps(wanted, indent=1))


def held(marker: Path) -> dict[str, object]:
    """What a marker says.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        return dict(json.loads(marker.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{marker} is damaged ({error}); use another --out or remove the folder") from error


def digest(paths: Sequence[Path]) -> str:
    """What files hold, in 16 digits; one that cannot be read counts as empty, and its reader says so."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        except OSError:
            content = b""
        digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0" + content)
    return digest.hexdigest()[:16]
