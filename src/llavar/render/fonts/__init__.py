"""The fonts that travel with the renderer, in a training and a held-out part.

Glyph positions come from one table of advances for each font (no kerning, no hinting), so that a scene can be
laid out without drawing it, and means the same at every scale.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from itertools import groupby
from pathlib import Path

from PIL import ImageFont

_FOLDER = Path(__file__).parent
_UNIT = 256
"""Size at which advances are measured; large enough that rounding does not matter."""


class Font(StrEnum):
    """A font file by its short name; ``FONTS.md`` beside this file holds the copyright notices."""

    LATO = "lato-latin-400-normal"
    LATO_BLACK = "lato-latin-900-normal"
    SOURCE_SANS = "source-sans-3-latin-400-normal"
    NUNITO = "nunito-latin-700-normal"
    LORA = "lora-latin-400-normal"
    MERRIWEATHER = "merriweather-latin-700-normal"
    INCONSOLATA = "inconsolata-latin-600-normal"
    COURIER_PRIME = "courier-prime-latin-400-normal"
    OSWALD = "oswald-latin-400-normal"
    QUICKSAND = "quicksand-latin-600-normal"
    ZILLA_SLAB = "zilla-slab-latin-500-normal"
    FIRA_SANS = "fira-sans-latin-500-normal"
    PLAYFAIR = "playfair-display-latin-600-normal"
    BITTER = "bitter-latin-500-normal"
    WORK_SANS = "work-sans-latin-400-normal"

    @property
    def held_out(self) -> bool:
        """Whether training never sees this font."""
        return self in HELD_OUT

    @property
    def path(self) -> Path:
        return _FOLDER / f"{self.value}.woff2"


HELD_OUT = (Font.PLAYFAIR, Font.BITTER, Font.WORK_SANS)
TRAIN = tuple(font for font in Font if font not in HELD_OUT)


@cache
def load(font: Font, size: float) -> ImageFont.FreeTypeFont:
    """The font at ``size`` pixels for an em; kept, because opening one costs more than a whole scene."""
    return ImageFont.truetype(font.path, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _advances(font: Font) -> dict[str, float]:
    sized = load(font, _UNIT)
    return {chr(code): sized.getlength(chr(code)) / _UNIT for code in range(32, 127)}


@cache
def cap_height(font: Font) -> float:
    """Height of a capital H in ems."""
    return _height(font, "H")


@cache
def x_height(font: Font) -> float:
    """Height of an x in ems."""
    return _height(font, "x")


@cache
def figure_height(font: Font) -> float:
    """Height of a 1 in ems."""
    return _height(font, "1")


def _height(font: Font, char: str) -> float:
    _, top, _, bottom = load(font, _UNIT).getbbox(char, anchor="ls")
    return (bottom - top) / _UNIT


@cache
def bar(font: Font) -> float:
    """Height of the bar of an e in ems: the thinnest that letters are told apart by."""
    drawn = load(font, _UNIT).getmask("e")
    width, height = drawn.size
    inked = (drawn.getpixel((width // 2, row)) > 127 for row in range(height))
    heights = [len(list(rows)) for ink, rows in groupby(inked) if ink]
    return heights[1] / _UNIT


def advance(font: Font, char: str) -> float:
    """How far ``char`` moves the pen, in ems; what is not printable ASCII is taken as wide as ``?``."""
    table = _advances(font)
    return table.get(char, table["?"])
