"""Files that are there whole or not at all: written aside, then renamed over what was there."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Generator[BinaryIO]:
    """A file that takes the place of ``path`` when the block ends without an error, and else is removed.

    Readers see the old file or the new one. It is as readable as the umask lets any new file be. A crash of
    the machine may leave an empty file unless it is ``durable``: on the disk before it is renamed.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def replacing_text(path: Path, *, durable: bool = False) -> Generator[TextIO]:
    """As :func:`replacing`, for UTF-8 text with line ends as they are written."""
    with replacing(path, durable=durable) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
        try:
            yield text
            text.flush()
        finally:
            text.detach()


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Put ``text`` into ``path``, whole or not at all."""
    with replacing(path, durable=durable) as file:
        file.write(text.encode("utf-8"))
