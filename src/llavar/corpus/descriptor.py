"""Features of a picture that need no model: where which colours lie, and which way its edges run.

They tell a white page from a dark poster and a photograph, and a wide headline from a column of small print.
They know nothing of what is shown: for clusters of meaning (covers, adverts, logos) name a CLIP encoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

DESCRIPTOR = "colours and edges 1"
_SIDE, _CELLS, _BINS, _LEVELS = 64, 4, 8, 3


class Descriptor:
    """Makes :func:`described`; the encoder of recipes that name none."""

    name = DESCRIPTOR

    def __call__(self):
        return described


def described(image: Image) -> NDArray[np.float32]:
    """(219,) of unit length: 48 mean colours, 27 shares of colours, 144 of edges.

    A picture is brought to 64 x 64 pixels and cut into 4 x 4 cells. A cell gives its mean colour, the mean
    strength of its edges, and how that spreads over 8 directions. Each of the three groups counts alike.
    """
    from PIL import Image as Pillow

    small = image.convert("RGB").resize((_SIDE, _SIDE), Pillow.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32) / 255
    colours = _cells(pixels).mean(axis=2) - 0.5
    levels = np.minimum((pixels * _LEVELS).astype(np.int64), _LEVELS - 1)
    codes = levels @ np.array([_LEVELS**2, _LEVELS, 1])
    shares = np.sqrt(np.bincount(codes.ravel(), minlength=_LEVELS**3) / codes.size)
    groups = (colours.ravel(), shares, _edges(pixels.mean(axis=2)))
    joined = np.concatenate([_unit(group) for group in groups])
    return _unit(joined).astype(np.float32)


def _edges(grey: NDArray[np.float32]) -> NDArray[np.float64]:
    """(144,): for each cell its strength of edges, and that by direction (0 to 180 degrees)."""
    down, across = np.gradient(grey.astype(np.float64))
    strength = np.hypot(across, down)
    angle = np.mod(np.arctan2(down, across), np.pi)
    direction = np.minimum((angle / np.pi * _BINS).astype(np.int64), _BINS - 1)
    spread = np.eye(_BINS)[direction] * strength[:, :, None]
    by_cell = _cells(spread).mean(axis=2)
    return np.concatenate([np.sqrt(by_cell).ravel(), np.sqrt(by_cell.sum(axis=-1)).ravel()])


def _cells(pixels: NDArray[np.floating]) -> NDArray[np.floating]:
    """(64, 64, C) as (4, 4, 256, C)."""
    edge = _SIDE // _CELLS
    cut = pixels.reshape(_CELLS, edge, _CELLS, edge, -1).swapaxes(1, 2)
    return cut.reshape(_CELLS, _CELLS, edge * edge, -1)


def _unit(vector: NDArray[np.floating]) -> NDArray[np.floating]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
