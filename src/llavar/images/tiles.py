"""A picture at a higher resolution than its tower's: the whole of it, and then the cells of a grid.

A tower of ``size`` pixels loses text that is low in the picture. Brought to ``rows`` x ``columns`` times that
size and cut into cells, the picture gives the tower ``rows * columns`` more inputs in which the same text is
larger. Nothing else is new: for the model these are so many pictures, one after the other.
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

_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """A grid of ``rows`` x ``columns`` cells with an overview before them; 1 x 1 is the picture alone."""

    rows: int = 1
    columns: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.rows <= MOST_TILES and 1 <= self.columns <= MOST_TILES):
            raise ConfigError(
                f"tiles are {self.rows}x{self.columns}; give ROWSxCOLUMNS, each from 1 to {MOST_TILES}"
            )

    @property
    def views(self) -> int:
        """How many inputs of the tower one picture gives: the cells and the overview."""
        cells = self.rows * self.columns
        return cells if cells == 1 else cells + 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """``2x2``: rows, then columns; raises ConfigError for anything else."""
        found = re.fullmatch(r"([0-9]{1,3})x([0-9]{1,3})", text)
        if found is None:
            raise ConfigError(f"tiles are {text!r:.40}; give ROWSxCOLUMNS, for example 2x2")
        return cls(rows=int(found[1]), columns=int(found[2]))

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"


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
    ``size`` x ``size`` pixels for the overview, of the size of the whole grid for the cells.
    """
    rgb = to_rgb(image) if isinstance(image, Image.Image) else open_image(image, limits=limits, exif=exif)
    overview = view(rgb, transform=transform, size=size, norm=norm)
    if tiles.views == 1:
        return (overview,)
    extent = (size * tiles.columns, size * tiles.rows)
    large = view(rgb, transform=transform, size=extent, norm=norm)
    corners = ((size * column, size * row) for row in range(tiles.rows) for column in range(tiles.columns))
    return overview, *(large.crop((x, y, x + size, y + size)) for x, y in corners)


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
