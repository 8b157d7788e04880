"""A scene: what a rendered picture holds, exactly, before a single pixel is drawn.

All lengths are in units of the picture's side (0 to 1, origin at the top left), so that a scene can be drawn
at any resolution: small for training a tower, large for an OCR engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from llavar.records import Box
from llavar.render import fonts
from llavar.render.fonts import Font

RGB = tuple[int, int, int]


class Colour(StrEnum):
    """Colours that a question may ask for. The value is the word; :data:`TONES` gives typical pixels."""

    WHITE = "white"
    BLACK = "black"
    GRAY = "gray"
    RED = "red"
    GREEN = "green"
    BLUE = "blue"
    YELLOW = "yellow"
    ORANGE = "orange"
    PURPLE = "purple"
    PINK = "pink"


TONES: dict[Colour, RGB] = {
    Colour.WHITE: (246, 246, 244),
    Colour.BLACK: (18, 18, 20),
    Colour.GRAY: (128, 128, 130),
    Colour.RED: (196, 34, 36),
    Colour.GREEN: (34, 132, 62),
    Colour.BLUE: (34, 74, 178),
    Colour.YELLOW: (250, 216, 62),
    Colour.ORANGE: (240, 134, 30),
    Colour.PURPLE: (112, 44, 150),
    Colour.PINK: (246, 164, 196),
}


class ShapeKind(StrEnum):
    """Ornaments that a question may count."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"


class LayoutKind(StrEnum):
    """How a scene is arranged. The last three are held out: training never shows them."""

    POSTER = "poster"
    COVER = "cover"
    QUOTE = "quote"
    SIGN = "sign"
    RECEIPT = "receipt"
    ADVERT = "advert"
    TICKET = "ticket"
    BANNER = "banner"
    BUSINESS_CARD = "business card"

    @property
    def held_out(self) -> bool:
        return self in (LayoutKind.TICKET, LayoutKind.BANNER, LayoutKind.BUSINESS_CARD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyph:
    """One character and the middle of its advance."""

    char: str
    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine:
    """One line of text: the pen starts at ``x``, letters stand on ``baseline``, ``em`` is the font size.

    The last six make other letters of a font's: ``stretch`` is their width as a share of the font's,
    ``slant`` how far they lean to the right for each unit of height, about the middle of the capitals,
    ``weight`` how much wider, in ems, every stem is (below 0 it is narrower), ``contrast`` how much thinner
    every bar is, ``small`` the size of small letters as a share of the font's, and ``old_figures`` lets
    figures rise and sink as small letters do.
    """

    text: str
    font: Font
    em: float
    x: float
    baseline: float
    ink: RGB
    tracking: float = 0.0
    stretch: float = 1.0
    slant: float = 0.0
    weight: float = 0.0
    contrast: float = 0.0
    small: float = 1.0
    old_figures: bool = False

    @property
    def width(self) -> float:
        return self.stretch * text_width(self.text, self.font, self.em, self.tracking)

    @property
    def plain(self) -> bool:
        """Whether the letters are the font's own."""
        return self.stretch == 1 and not (self.slant or self.weight or self.contrast)

    @property
    def middle(self) -> float:
        """Height of the middle of the capitals."""
        return self.baseline - 0.5 * self.em * fonts.cap_height(self.font)

    @property
    def box(self) -> Box:
        """From the top of the ascenders to the bottom of the descenders, roughly."""
        return Box(
            left=self.x,
            top=self.baseline - 0.78 * self.em,
            right=self.x + self.width,
            bottom=self.baseline + 0.22 * self.em,
        )

    def glyphs(self) -> Iterator[Glyph]:
        """Every character with its place, spaces included."""
        pen, middle = self.x, self.middle
        for char in self.text:
            step = self.stretch * fonts.advance(self.font, char) * self.em
            yield Glyph(char=char, x=pen + step / 2, y=middle)
            pen += step + self.stretch * self.tracking * self.em


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A filled ornament in its box."""

    kind: ShapeKind
    colour: Colour
    tone: RGB
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A plain rectangle behind text or as a rule; nobody asks for it."""

    tone: RGB
    box: Box
    outline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything in one picture. ``top`` and ``bottom`` are the tones between which the ground fades."""

    layout: LayoutKind
    ground: Colour
    top: RGB
    bottom: RGB
    lines: tuple[TextLine, ...] = ()
    shapes: tuple[Shape, ...] = ()
    panels: tuple[Panel, ...] = ()
    noise: float = 0.0
    blur: float = 0.0

    @property
    def text(self) -> str:
        """The lines from top to bottom, one under the other."""
        return "\n".join(line.text for line in self.lines)


def text_width(text: str, font: Font, em: float, tracking: float = 0.0) -> float:
    """Length of ``text`` in the unit of ``em``."""
    return em * (sum(fonts.advance(font, char) for char in text) + tracking * max(len(text) - 1, 0))
