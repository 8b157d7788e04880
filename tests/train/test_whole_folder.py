"""A folder that a run leaves is whole or as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from llavar.train import home


def test_a_folder_is_replaced_once_it_is_whole(tmp_path: Path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "old").touch()
    with home.whole(folder) as aside:
        (aside / "new").touch()
        assert [path.name for path in folder.iterdir()] == ["old"]
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert folder.stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == [folder]


def test_what_failed_half_way_leaves_the_folder_as_it_was(tmp_path: Path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "old").touch()

    def fail() -> None:
        with home.whole(folder) as aside:
            (aside / "new").touch()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    left, other = tmp_path / ".adapter.x1", tmp_path / ".model.x1"
    for path in (left, other):
        path.mkdir()
        (path / "half").touch()
    with home.whole(tmp_path / "adapter"):
        assert not left.exists()
    assert other.exists()
