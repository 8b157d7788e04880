"""The files of an evaluation: written whole or not at all, and what they say about where they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from llavar import files
from llavar.errors import DataError
from llavar.version import __version__


def code_version() -> dict[str, str]:
    """The version of this package, and a digest of its source: two states of one version are told apart."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return {"version": __version__, "source": digest.hexdigest()[:12]}


def table(out: Path, say: Callable[[str], None]) -> dict[str, object]:
    """The rows of all tasks whose results are in the folder, those of earlier commands too."""
    rows: list[dict[str, object]] = []
    for path in sorted(out.glob("*/result.json")):
        try:
            found: Any = json.loads(path.read_text(encoding="utf-8"))
            rows.append({name: found[name] for name in ("task", "metric", "n", "score", "failed")})
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            say(f"{path} cannot be read ({error!r:.100}) and is left out of results.json")
            continue
        rest = cast("dict[str, object]", found)
        named = ("interval", "empty", "mean_length", "baselines", "model", "transform", "decoding", "limit")
        rows[-1] |= {name: rest[name] for name in named if name in rest}
    return {"tasks": rows}


def line_of(value: Mapping[str, object]) -> str:
    return json.dumps(value) + "\n"


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    _replace(path, "".join(map(line_of, rows)))


def write_json(path: Path, value: Mapping[str, object]) -> None:
    _replace(path, json.dumps(value, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    try:
        files.write_text(path, text)
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder; name another --out") from error
