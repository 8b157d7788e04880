"""A picture at a higher resolution than its tower's: the whole of it, and then the cells of a grid.

A tower of ``size`` pixels loses text that is low in the picture. Brought to ``rows`` x ``columns`` times that
size and cut into cells, the picture gives the tower ``rows * columns`` more inputs in which the same text is
larger. Nothing else is new: for the model these are so many pictures, one after the other.

A border between cells cuts letters, and what is cut is not read. Cells that overlap by as much as text is
high have every letter whole in one of them, at the price of a little resolution.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llavar.errors import ConfigError
from llavar.images.opening import Limits, Source, open_image, to_rgb
from llavar.images.square import CLIP, Norm, Transform, normalize, view

MOST_TILES = 8
"""Along a side: 8 x 8 are 65 inputs of the tower for one picture."""

MOST_OVERLAP = 50
"""Percent of a cell's side: with half of it every point away from the edges is in two cells of a row."""

_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """A grid of ``rows`` x ``columns`` cells with an overview before them; 1 x 1 is the picture alone.

    Neighbours share ``overlap`` percent of a cell's side.
    """

    rows: int = 1
    columns: int = 1
    overlap: int = 0

    def __post_init__(self) -> None:
        if not (1 <= self.rows <= MOST_TILES and 1 <= self.columns <= MOST_TILES):
            raise ConfigError(
                f"tiles are {self.rows}x{self.columns}; give ROWSxCOLUMNS, each from 1 to {MOST_TILES}"
            )
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise ConfigError(f"tiles overlap by {self.overlap} %; give 0 to {MOST_OVERLAP}")
        if self.overlap and self.rows * self.columns == 1:
            raise ConfigError("one tile has no neighbour; give more rows or columns, or no overlap")

    @property
    def views(self) -> int:
        """How many inputs of the tower one picture gives: the cells and the overview."""
        cells = self.rows * self.columns
        return cells if cells == 1 else cells + 1

    def step(self, size: int) -> int:
        """Pixels from one cell of ``size`` pixels to the next."""
        return size - round(size * self.overlap / 100)

    def extent(self, size: int) -> tuple[int, int]:
        """Width and height in pixels of the picture that cells of ``size`` pixels are cut from."""
        step = self.step(size)
        return size + step * (self.columns - 1), size + step * (self.rows - 1)

    def corners(self, size: int) -> tuple[tuple[int, int], ...]:
        """Left and top in pixels of every cell in :meth:`extent`, row by row."""
        step = self.step(size)
        places = ((row, column) for row in range(self.rows) for column in range(self.columns))
        return tuple((step * column, step * row) for row, column in places)

    @classmethod
    def parse(cls, text: str) -> Self:
        """``2x2`` or ``2x2+17%``: rows, columns, overlap; raises ConfigError for anything else."""
        found = re.fullmatch(r"([0-9]{1,3})x([0-9]{1,3})(?:\+([0-9]{1,3})%)?", text)
        if found is None:
            raise ConfigError(f"tiles are {text!r:.40}; give ROWSxCOLUMNS, for example 2x2 or 2x2+17%")
        return cls(rows=int(found[1]), columns=int(found[2]), overlap=int(found[3] or 0))

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}" + (f"+{self.overlap}%" if self.overlap else "")


WHOLE = Tiles()
"""The picture alone, as LLaVA sees it."""


def views(
    image: Source | Image.Image,
    *,
    tiles: Tiles,
    transform: str | Transform,
    size: int,
    norm: Norm = CLIP,
    limits: Limits = _LIMITS,
    exif: bool = True,
) -> tuple[Image.Image, ...]:
    """What the tower is shown of a picture, in order: RGB, each ``size`` x ``size`` pixels.

    The overview comes first, then the cells row by row. Both are the picture as ``transform`` makes it: of
    ``size`` x ``size`` pixels for the overview, of :meth:`Tiles.extent` for the cells.
    """
    rgb = to_rgb(image) if isinstance(image, Image.Image) else open_image(image, limits=limits, exif=exif)
    overview = view(rgb, transform=transform, size=size, norm=norm)
    if tiles.views == 1:
        return (overview,)
    large = view(rgb, transform=transform, size=tiles.extent(size), norm=norm)
    return overview, *(large.crop((x, y, x + size, y + size)) for x, y in tiles.corners(size))


def montage(shown: tuple[Image.Image, ...], tiles: Tiles) -> Image.Image:
    """:func:`views` as one picture for people: the overview, and the grid of the cells to its right."""
    if len(shown) == 1:
        return shown[0]
    size = shown[0].width
    whole = Image.new("RGB", (size * (1 + tiles.columns), size * tiles.rows))
    whole.paste(shown[0], (0, 0))
    for place, one in enumerate(shown[1:]):
        row, column = divmod(place, tiles.columns)
        whole.paste(one, (size * (1 + column), size * row))
    return whole


def view_pixels(
    image: Source | Image.Image,
    *,
    tiles: Tiles,
    transform: str | Transform,
    size: int,
    norm: Norm = CLIP,
    limits: Limits = _LIMITS,
    exif: bool = True,
) -> NDArray[np.float32]:
    """:func:`views` as the tower takes them: fp32 (tiles.views, 3, size, size)."""
    shown = views(image, tiles=tiles, transform=transform, size=size, norm=norm, limits=limits, exif=exif)
    return np.stack([normalize(one, norm) for one in shown])
