"""Where the pictures of a batch come from: decoded from files, or tower features computed before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from llavar import images
from llavar.errors import DataError, NotFoundError
from llavar.images import Transform


class VisionSource(Protocol):
    """Gives what stands for pictures in a batch."""

    @property
    def is_features(self) -> bool:
        """Whether the tower has been applied already."""
        ...

    def get(self, names: Sequence[str]) -> Tensor:
        """(len(names), ...) in the order of ``names``, as :class:`llavar.data.collate.Batch` takes it."""
        ...


class PixelFolder:
    """Pictures of a folder, transformed for a tower of ``size`` x ``size`` pixels."""

    is_features = False

    def __init__(self, root: Path, *, transform: Transform, size: int) -> None:
        self.root, self.transform, self.size = root, transform, size

    def get(self, names: Sequence[str]) -> Tensor:
        """fp32 (n, 3, size, size).

        Raises:
            ImageError: a picture cannot be opened; NotFoundError: it is not there.
        """
        arrays = [images.pixels(self.root / name, transform=self.transform, size=self.size) for name in names]
        return torch.as_tensor(np.stack(arrays))


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
                given = self._tower(self._source.get(part)).to(torch.bfloat16)
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
    """What ``source`` gives for ``names``, or None where there are none.

    Raises:
        DataError: the source gave another number of pictures than was asked for.
    """
    if not names:
        return None
    given = source.get(names)
    if len(given) != len(names):
        raise DataError(f"{len(names)} pictures were asked for and {len(given)} came back")
    return given
