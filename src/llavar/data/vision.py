"""Where the pictures of a batch come from: decoded from files, or tower features computed before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llavar import images
from llavar.data.pictures import MARK, FolderPictures, PictureStore
from llavar.data.workers import Workers
from llavar.errors import DataError, ImageError, NotFoundError
from llavar.images import CLIP, WHOLE, Norm, Tiles, Transform
from llavar.records import Encoded, Reject


class VisionSource(Protocol):
    """Gives what stands for pictures in a batch."""

    @property
    def is_features(self) -> bool:
        """Whether the tower has been applied already."""
        ...

    def get(self, names: Sequence[str]) -> Tensor:
        """(len(names), ...) in the order of ``names``; with a dimension more where a picture gives several
        inputs of the tower."""
        ...


class Pixels:
    """Pictures of a store, transformed for a tower of ``size`` x ``size`` pixels, normalised by ``norm``."""

    is_features = False

    def __init__(
        self,
        store: PictureStore,
        *,
        transform: Transform,
        size: int,
        norm: Norm = CLIP,
        tiles: Tiles = WHOLE,
    ) -> None:
        self.store, self.transform, self.size, self.norm, self.tiles = store, transform, size, norm, tiles

    def get(self, names: Sequence[str]) -> Tensor:
        """fp32 (n, 3, size, size); with tiles (n, tiles.views, 3, size, size).

        Raises:
            ImageError: a picture cannot be opened; NotFoundError: it is not there.
        """
        return torch.as_tensor(np.stack([self._pixels(name) for name in names]))

    def _pixels(self, name: str) -> NDArray[np.float32]:
        file = self.store.source(name)
        try:
            found = images.view_pixels(
                file, tiles=self.tiles, transform=self.transform, size=self.size, norm=self.norm
            )
            return found if self.tiles.views > 1 else found[0]
        except ImageError as error:
            if isinstance(file, Path):
                raise
            raise ImageError(f"{name!r}: {error}") from None


class PixelFolder(Pixels):
    """The pictures of a folder."""

    def __init__(
        self, root: Path, *, transform: Transform, size: int, norm: Norm = CLIP, tiles: Tiles = WHOLE
    ) -> None:
        super().__init__(FolderPictures(root), transform=transform, size=size, norm=norm, tiles=tiles)


class FeatureStore:
    """Tower features of named pictures, held in memory as bf16 and handed out as fp32.

    A frozen tower gives the same features in every epoch, so small decoders need not wait for it. At 13B it
    does not pay: the tower is 1 % of the arithmetic there and the features are terabytes.
    """

    is_features = True

    def __init__(self, tower: Callable[[Tensor], Tensor], source: VisionSource, *, batch: int = 64) -> None:
        self._tower, self._source, self._batch = tower, source, batch
        self._held: dict[str, Tensor] = {}

    def add(self, names: Sequence[str]) -> int:
        """Compute what is not held yet; returns how many that were."""
        new = [name for name in dict.fromkeys(names) if name not in self._held]
        with torch.no_grad():
            for start in range(0, len(new), self._batch):
                part = new[start : start + self._batch]
                given = self._tower(_inputs(self._source.get(part))).to(torch.bfloat16)
                # The features of one picture follow each other, however many views it was shown in.
                given = given.reshape(len(part), -1, given.shape[-1])
                self._held.update(zip(part, given, strict=True))
        return len(new)

    def save(self, path: Path) -> None:
        """Write everything held to one safetensors file."""
        from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

        save_file(self._held, path)

    @classmethod
    def load(cls, path: Path) -> FeatureStore:
        """A store that holds what :meth:`save` wrote, and has no tower to add more with."""
        from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

        store = cls(_no_tower, _NoPictures())
        store._held = load_file(path)
        return store

    def get(self, names: Sequence[str]) -> Tensor:
        """fp32 (n, tokens, width).

        Raises:
            NotFoundError: a picture was never added.
        """
        missing = [name for name in names if name not in self._held]
        if missing:
            raise NotFoundError(f"no features of {missing[0]!r} are held; add the pictures of all rows first")
        return torch.stack([self._held[name] for name in names]).float()


class _NoPictures:
    """The source of a store that was read from a file."""

    is_features = False

    def get(self, names: Sequence[str]) -> Tensor:
        raise NotFoundError(
            f"{names[0]!r} is not in this file of features, and it has no tower to add it with"
        )


def _no_tower(pixels: Tensor) -> Tensor:
    return pixels


def vision_of(source: VisionSource, names: Sequence[str]) -> Tensor | None:
    """What ``source`` gives for ``names``, the views of all pictures in one row; None without names.

    Raises:
        DataError: the source gave another number of pictures than was asked for.
    """
    if not names:
        return None
    given = source.get(names)
    if len(given) != len(names):
        raise DataError(f"{len(names)} pictures were asked for and {len(given)} came back")
    return given if source.is_features else _inputs(given)


def _inputs(pixels: Tensor) -> Tensor:
    """(n, 3, size, size), or (n, views, 3, size, size), as inputs of a tower."""
    return pixels.flatten(0, 1) if pixels.ndim > 4 else pixels


def unusable_pictures(
    rows: Sequence[Encoded], root: Path | PictureStore, *, opened: bool
) -> dict[int, Reject]:
    """Rows, by their place, with a picture that is not in ``root``, or that cannot be decoded."""
    store = FolderPictures(root) if isinstance(root, Path) else root
    found = unusable_names((row.images for row in rows), store, opened=opened)
    return {place: replace(reject, id=rows[place].id) for place, reject in found.items()}


def unusable_names(
    names: Iterable[Sequence[str]], store: PictureStore, *, opened: bool, workers: int = 0
) -> dict[int, Reject]:
    """The same for the names of pictures of each row, where nobody knows the row's id.

    Only if ``opened`` are pictures decoded, in ``workers`` processes; each once, however often it comes in
    rows that stand near to each other.
    """
    rejects: dict[int, Reject] = {}
    with Workers(_Looking(store, opened), workers if opened else 0) as pool:
        place = 0
        for block in pool.results(_blocks(names)):
            rejects |= {place + at: reject for at, reject in block.found.items()}
            place += block.rows
    return rejects


_BLOCK = 256


def _blocks(names: Iterable[Sequence[str]]) -> Iterator[list[tuple[str, ...]]]:
    block: list[tuple[str, ...]] = []
    for of_row in names:
        block.append(tuple(of_row))
        if len(block) == _BLOCK:
            yield block
            block = []
    yield block


@dataclass(frozen=True, slots=True)
class _Looked:
    rows: int
    found: dict[int, Reject]


@dataclass(frozen=True, slots=True)
class _Looking:
    """The task of a worker: look at the pictures of some rows."""

    store: PictureStore
    opened: bool

    def __call__(self, block: list[tuple[str, ...]]) -> _Looked:
        seen: dict[str, Reject | None] = {}
        found: dict[int, Reject] = {}
        for place, names in enumerate(block):
            for name in names:
                if name not in seen:
                    seen[name] = _unusable(self.store, name, self.opened)
                wrong = seen[name]
                if wrong is not None:
                    found[place] = wrong
                    break
        return _Looked(len(block), found)


def _unusable(store: PictureStore, name: str, opened: bool) -> Reject | None:
    shown = str(store.root / name) if isinstance(store, FolderPictures) else name.rpartition(MARK)[2]
    missing = Reject(id="", stage="images", reason="no such picture", detail=shown)
    try:
        if opened:
            images.open_image(store.source(name))
        elif name not in store:
            return missing
    except NotFoundError:
        return missing
    except (ImageError, OSError) as error:
        return Reject(id="", stage="images", reason="broken picture", detail=str(error))
    return None
