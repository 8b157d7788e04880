from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image

from llavar.data import cache
from llavar.data.pictures import MARK, ArchivePictures, FolderPictures, Pictures, open_pictures
from llavar.data.vision import PixelFolder, Pixels, unusable_names
from llavar.errors import DataError, ImageError, NotFoundError
from llavar.images import Transform

Pack = Callable[[Path, Mapping[str, bytes]], Path]


def png(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (12, 8), colour).save(out, "PNG")
    return out.getvalue()


def tarred(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def deflated(path: Path, members: Mapping[str, bytes]) -> Path:
    return zipped(path, members, zipfile.ZIP_DEFLATED)


PACKED = [(tarred, "a.tar"), (zipped, "a.zip"), (deflated, "a.zip")]
RED, BLUE = png("red"), png("blue")


@pytest.mark.parametrize(("pack", "name"), PACKED)
@pytest.mark.parametrize("kept", [True, False])
def test_archives_give_the_pixels_that_a_folder_gives(
    tmp_path: Path, pack: Pack, name: str, kept: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache, "_SMALL", 0 if kept else 1 << 30)
    members = {"x/red.png": RED, "blue.png": BLUE, "grün.png": RED, "x" * 150 + ".png": BLUE}
    for each, data in members.items():
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).write_bytes(data)
    pack(tmp_path / name, members)
    for _ in range(2):
        store = ArchivePictures(tmp_path / name, folder=tmp_path / "cache")
        again = pickle.loads(pickle.dumps(store))
        for held in (store, again):
            packed = Pixels(held, transform=Transform.PAD, size=16).get(list(members))
            loose = PixelFolder(tmp_path, transform=Transform.PAD, size=16).get(list(members))
            assert torch.equal(packed, loose)
    assert (tmp_path / "cache").exists() is kept


@pytest.mark.parametrize(("pack", "name"), PACKED)
def test_a_folder_that_all_members_share_may_be_left_out(tmp_path: Path, pack: Pack, name: str):
    store = ArchivePictures(pack(tmp_path / name, {"./top/red.png": RED, "top/blue.png": BLUE}))
    assert "top/red.png" in store
    assert store.source("red.png") == RED
    assert "red" not in store
    mixed = ArchivePictures(pack(tmp_path / f"b{name}", {"top/red.png": RED, "blue.png": BLUE}))
    assert "red.png" not in mixed


@pytest.mark.parametrize(("pack", "name"), PACKED)
def test_hostile_names_are_names_and_nothing_is_written(tmp_path: Path, pack: Pack, name: str):
    store = ArchivePictures(pack(tmp_path / name, {"../../etc/x": RED, "/abs": BLUE, "d/../e": RED}))
    assert store.source("../../etc/x") == RED
    assert store.source("/abs") == BLUE
    assert "e" not in store
    with pytest.raises(NotFoundError, match="no picture 'etc/x' in"):
        store.source("etc/x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_last_of_members_with_one_name_counts(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for data in (RED, BLUE):
            info = tarfile.TarInfo("x.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("passwd.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    store = ArchivePictures(tmp_path / "a.tar")
    assert store.source("x.png") == BLUE
    assert "passwd.png" not in store


def test_members_that_lie_about_their_size_are_refused(tmp_path: Path):
    path = deflated(tmp_path / "a.zip", {"x.png": RED * 50})
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02") + 24  # the uncompressed size in the list of members
    data[at : at + 4] = (len(RED)).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ImageError, match="not as long as its archive says"):
        ArchivePictures(path).source("x.png")
    data[at : at + 4] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ImageError, match="1,073,741,824 bytes and the limit is"):
        ArchivePictures(path).source("x.png")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", b"PK\x03\x04nothing"),
        ("a.tar", b"\x1f\x8b\x08 gzip"),
        ("a.tgz", b"x" * 2000),
        ("a.zip", b""),
    ],
)
def test_what_is_no_plain_archive_is_one_sentence(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="is no plain tar or zip"):
        open_pictures(tmp_path / name)


def test_a_member_that_is_cut_short(tmp_path: Path):
    path = tarred(tmp_path / "a.tar", {"x.png": RED})
    store = ArchivePictures(path)
    path.write_bytes(path.read_bytes()[:520])
    with pytest.raises(ImageError, match="'x.png' in .* is cut short"):
        store.source("x.png")


def test_stores_are_told_apart_by_their_marks(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(RED)
    own = ArchivePictures(tarred(tmp_path / "a.tar", {"x.png": BLUE}))
    both = Pictures(FolderPictures(tmp_path), {"1": own})
    assert f"1{MARK}x.png" in both
    assert f"2{MARK}x.png" not in both
    assert (both.source("x.png"), both.source(f"1{MARK}x.png")) == (tmp_path / "x.png", BLUE)
    with pytest.raises(NotFoundError, match="no folder for the picture 'x.png'; give --images"):
        Pictures(None, {}).source("x.png")
    with pytest.raises(NotFoundError, match="no folder of pictures at"):
        open_pictures(tmp_path / "none")


@pytest.mark.parametrize("workers", [0, 2])
def test_unusable_pictures_are_found_in_any_number_of_workers(tmp_path: Path, workers: int):
    members = {f"{n}.png": (BLUE if n % 7 else BLUE[:40]) for n in range(300)}
    store = ArchivePictures(tarred(tmp_path / "a.tar", members))
    names = [(f"{n}.png", "none.png") if n == 5 else (f"{n}.png",) for n in range(300)]
    found = unusable_names(iter(names), store, opened=True, workers=workers)
    assert set(found) == {5, *range(0, 300, 7)}
    assert (found[5].reason, found[7].reason) == ("no such picture", "broken picture")
    assert set(unusable_names(iter(names), store, opened=False)) == {5}


def test_a_broken_picture_of_an_archive_is_named(tmp_path: Path):
    store = ArchivePictures(tarred(tmp_path / "a.tar", {"x.png": BLUE[:40]}))
    with pytest.raises(ImageError, match="'x.png': the picture given as bytes is"):
        Pixels(store, transform=Transform.PAD, size=16).get(["x.png"])
