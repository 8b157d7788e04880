"""Files are there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from llavar import files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    held = tmp_path / "held.txt"
    held.write_text("before")
    return held


def test_what_is_written_takes_the_place_of_what_was_there(path: Path):
    with files.replacing(path) as file:
        file.write(b"after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    files.write_text(path, "ä\n\r\n")
    assert path.read_bytes() == "ä\n\r\n".encode()
    with files.replacing_text(path) as text:
        text.writelines(json.dumps(n) + "\n" for n in range(3))
    assert path.read_bytes() == b"0\n1\n2\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_leaves_what_was_there_and_nothing_else(path: Path, error: type[BaseException]):
    def of_bytes() -> None:
        with files.replacing(path) as out:
            out.write(b"half")
            raise error

    def of_text() -> None:
        with files.replacing_text(path) as out:
            out.write("half")
            raise error

    for write in (of_bytes, of_text):
        with pytest.raises(error):
            write()
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "after", durable=True)
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def test_it_is_on_the_disk_before_it_is_renamed_if_it_is_to_be(path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _descriptor: seen.append(path.read_text()))
    files.write_text(path, "quick")
    assert seen == []
    files.write_text(path, "after", durable=True)
    assert (seen, path.read_text()) == (["quick"], "after")


def test_text_that_utf8_cannot_hold_leaves_what_was_there(path: Path):
    for write in (lambda: files.write_text(path, "\ud800"), lambda: _write(path, "\ud800")):
        with pytest.raises(UnicodeEncodeError):
            write()
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def _write(path: Path, text: str) -> None:
    with files.replacing_text(path) as out:
        out.write(text)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_it_is_as_readable_as_any_new_file(tmp_path: Path, mask: int, mode: int):
    before = os.umask(mask)
    try:
        files.write_text(tmp_path / "new", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode


def test_a_folder_is_not_replaced(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_text(tmp_path / "folder", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(FileNotFoundError):
        files.write_text(tmp_path / "none" / "x", "x")
