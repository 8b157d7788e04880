"""Where picture files are: in a folder, in a tar, in a zip; always looked up by the exact name in a row.

An archive is never unpacked, so that a member called ``../../x`` is a name like any other. Its members are
listed once; the list (a hash of each name, and where its bytes are) is kept in the cache and mapped.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llavar.data import cache
from llavar.errors import DataError, ImageError, NotFoundError

MARK = "\0"
"""Ends the mark of a source with pictures of its own; no picture in a row has it in its name."""

_VERSION = 1
_MOST = 256 << 20
"""Bytes of a picture file, packed or not (the limit of :class:`llavar.images.Limits`)."""
_STORED, _DEFLATED = 0, 8
_LOCAL = struct.Struct("<4s22xHH")
_MEMBER = np.dtype(
    [("name", "<u8"), ("offset", "<u8"), ("packed", "<u8"), ("size", "<u8"), ("method", "<u2")]
)


class PictureStore(Protocol):
    """Picture files by name."""

    def __contains__(self, name: str) -> bool: ...

    def source(self, name: str) -> Path | bytes:
        """What :func:`llavar.images.open_image` opens.

        Raises:
            NotFoundError: there is none of that name.
            ImageError: it cannot be read out of its archive.
        """
        ...


class FolderPictures:
    """The pictures of a folder; a name may lead into folders below, or be a whole path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __contains__(self, name: str) -> bool:
        return (self.root / name).is_file()

    def source(self, name: str) -> Path:
        return self.root / name


class ArchivePictures:
    """The pictures of a tar or a zip.

    Names are those in the archive, without a leading ``./``; if all members share one top folder
    (``train2017/``), they are found without it as well.
    """

    def __init__(self, path: Path, *, folder: Path | None = None) -> None:
        self.path = path
        self._members, self._top, self.rows = _listed(path, folder or cache.default_folder())
        self._handle: int | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def source(self, name: str) -> bytes:
        member = self._find(name)
        if member is None:
            raise NotFoundError(f"There is no picture {name!r} in {self.path}; check the name in the row.")
        size, packed = int(member["size"]), int(member["packed"])
        if max(size, packed) > _MOST:
            raise ImageError(f"{name!r} in {self.path} has {size:,} bytes and the limit is {_MOST:,}.")
        at = int(member["offset"])
        if self.path.suffix == ".zip":
            at += self._past_header(at, name)
        data = self._read(packed, at, name)
        return data if int(member["method"]) == _STORED else self._inflated(data, size, name)

    def _find(self, name: str) -> Any:
        for tried in (name, self._top + name) if self._top else (name,):
            value = _hash(tried)
            at = int(np.searchsorted(self._members["name"], value))
            if at < len(self._members) and self._members["name"][at] == value:
                return self._members[at]
        return None

    def _read(self, length: int, at: int, name: str) -> bytes:
        if self._handle is None:
            self._handle = os.open(self.path, os.O_RDONLY)
        data = os.pread(self._handle, length, at)
        if len(data) != length:
            raise ImageError(f"{name!r} in {self.path} is cut short; get the archive again.")
        return data

    def _past_header(self, at: int, name: str) -> int:
        mark, names, extra = _LOCAL.unpack(self._read(_LOCAL.size, at, name))
        if mark != b"PK\x03\x04":
            raise ImageError(f"{name!r} is not where the list of {self.path} says; get the archive again.")
        return _LOCAL.size + names + extra

    def _inflated(self, data: bytes, size: int, name: str) -> bytes:
        try:
            found = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        except zlib.error as error:
            raise ImageError(f"{name!r} in {self.path} is damaged ({error}); get it again.") from None
        if len(found) != size:
            raise ImageError(f"{name!r} in {self.path} is not as long as its archive says; get it again.")
        return found

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", None), None
        if handle is not None:
            os.close(handle)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handle": None, "_members": _portable(self._members)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._members, Path):
            self._members = np.load(self._members, mmap_mode="r", allow_pickle=False)


def _portable(array: NDArray[Any]) -> NDArray[Any] | Path:
    """What travels to another process: the name of the file that an array is mapped from, or itself."""
    name = getattr(array, "filename", None)
    return array if name is None else Path(name)


class Pictures:
    """The stores of a run: one for all rows, others for sources that bring their own."""

    def __init__(self, common: PictureStore | None, own: Mapping[str, PictureStore]) -> None:
        self._common, self._own = common, dict(own)

    def __contains__(self, name: str) -> bool:
        store, rest = self._store(name)
        return store is not None and rest in store

    def source(self, name: str) -> Path | bytes:
        store, rest = self._store(name)
        if store is None:
            raise NotFoundError(f"There is no folder for the picture {rest!r}; give --images.")
        return store.source(rest)

    def _store(self, name: str) -> tuple[PictureStore | None, str]:
        mark, found, rest = name.rpartition(MARK)
        return (self._own.get(mark), rest) if found else (self._common, name)


def open_pictures(path: Path, *, folder: Path | None = None) -> PictureStore:
    """A folder, a tar or a zip of pictures.

    Raises:
        NotFoundError: there is none.
        DataError: it is an archive of another kind, or a damaged one.
    """
    if path.is_dir():
        return FolderPictures(path)
    if not path.exists():
        raise NotFoundError(f"there is no folder of pictures at {path}; check --images")
    return ArchivePictures(path, folder=folder)


# The members of an archive.


def _hash(name: str) -> np.uint64:
    digest = hashlib.blake2b(name.removeprefix("./").encode("utf-8", "surrogateescape"), digest_size=8)
    return np.uint64(int.from_bytes(digest.digest(), "little"))


def _listed(path: Path, folder: Path) -> tuple[NDArray[Any], str, Sequence[str]]:
    """Members sorted by hash, the folder that all share, and the names of members that end in ``.json``."""
    keeps = cache.worth_keeping(path)
    key = cache.key("members", _VERSION, cache.identity(path)) if keeps else ""
    held = cache.load(key, folder) if key else None
    if held is not None and held[0].get("members", np.empty(0)).dtype == _MEMBER:
        return held[0]["members"], str(held[1].get("top", "")), list(held[1].get("rows", ()))
    names: list[str] = []
    found = np.fromiter(_noting(_members(path), names), _MEMBER)
    # The last of members with one name is the one that unpacking would leave.
    order: NDArray[np.int64] = np.argsort(found["name"], kind="stable")
    found = found[order]
    last = np.append(found["name"][1:] != found["name"][:-1], np.ones(min(1, len(found)), np.bool_))
    places: list[int] = order.tolist()
    _no_collision(path, found, [names[at] for at in places])
    members, top = found[last], _top(names)
    rows = [name for name in dict.fromkeys(names) if name.endswith(".json")]
    if key and cache.save(key, folder, {"members": members}, {"top": top, "rows": rows}):
        loaded = cache.load(key, folder)
        members = loaded[0]["members"] if loaded else members
    return members, top, rows


def _noting(members: Iterable[tuple[str, Any]], names: list[str]) -> Iterator[Any]:
    for name, member in members:
        names.append(name)
        yield member


def _no_collision(path: Path, found: NDArray[Any], names: Sequence[str]) -> None:
    for at in np.flatnonzero(found["name"][1:] == found["name"][:-1]).tolist():
        if names[at] != names[at + 1]:
            raise DataError(f"{path} has members {names[at]!r} and {names[at + 1]!r}; rename one of them")


def _top(names: Sequence[str]) -> str:
    first = names[0].partition("/") if names else ("", "", "")
    top = first[0] + first[1]
    return top if first[1] and all(name.startswith(top) for name in names) else ""


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        if path.suffix == ".zip":
            yield from _of_zip(path)
        else:
            yield from _of_tar(path)
    except (tarfile.TarError, zipfile.BadZipFile, struct.error, EOFError, ValueError) as error:
        raise DataError(
            f"{path} is no plain tar or zip ({error}); unpack it, or pack its files again without compression"
        ) from None


def _of_tar(path: Path) -> Iterator[tuple[str, Any]]:
    with tarfile.open(path, "r:") as archive:
        held: Any = archive
        while (member := archive.next()) is not None:
            held.members = []  # it would keep every header otherwise
            if member.isreg() and not member.issparse():
                name = member.name.removeprefix("./")
                yield name, (_hash(name), member.offset_data, member.size, member.size, _STORED)


def _of_zip(path: Path) -> Iterator[tuple[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            usable = not member.is_dir() and not member.flag_bits & 1
            if usable and member.compress_type in (_STORED, _DEFLATED):
                name = member.filename.removeprefix("./")
                at, packed, size = member.header_offset, member.compress_size, member.file_size
                yield name, (_hash(name), at, packed, size, member.compress_type)
