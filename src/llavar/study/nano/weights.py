"""Where the files of the embedded models lie."""

from __future__ import annotations

from pathlib import Path

from llavar.errors import ModelError

_FOLDER = Path(__file__).parent.parent / "weights"
NAMES = ("nano", "nano-base")
"""``nano`` answers questions. ``nano-base`` is what the demo starts from: its projector is untrained."""


def folder(name: str) -> Path:
    """The model folder of ``name``.

    Raises:
        ModelError: the installation lacks it.
    """
    found = _FOLDER / name
    if not (found / "config.json").is_file():
        raise ModelError(
            f"the model {name!r} is missing from {_FOLDER}; reinstall llavar, or make it: llavar nano build"
        )
    return found
