"""Pictures of printed text for benchmarks/nano.py, drawn with Pillow by code of their own.

They share nothing with llavar.render but font files: other words (none of its list), other tones, other
arrangements, other sizes in pixels, and of its fonts only those that no training picture has, besides the one
that travels inside Pillow. Text is printed ASCII: words and whole numbers, in capitals, small letters or
title case, 1 to 3 lines with 24 characters at the most. Its height, from the top of a b to the bottom of a p,
is an eighth to a fifth of the picture's side.
"""

from __future__ import annotations

import io
import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from llavar.render.fonts import HELD_OUT

RGB = tuple[int, int, int]

SIDE = 480
"""Side of a picture in pixels."""

LOW, HIGH = 1 / 8, 1 / 5
"""Height of the text, as a share of the side."""

MOST = 24
"""Characters of a picture, line breaks not counted."""

_WORDS = """
acorn adobe aisle almond anchor antler apricot armor ashtray atrium avenue bagel ballad barge basin bazaar
beaver beech bison blossom boulder brandy brook buckle burrow buzzard cabbage calendar canal caravan
carriage cashew cellist chalet chestnut chisel clarinet cobbler coconut comma cone copse cottage coyote
crayon crochet cucumber cupboard dahlia damson dentist diesel dough dune easel eel embassy escort falafel
fennel ferry fiddle fig flannel foxglove freckle gable gallop gazelle geyser glue goblet gondola gorge goose
grouse gull haddock halibut hammock hatch hedgehog heron hinge hull hyacinth icicle incense iris jackal
jasper jockey jug juniper kebab kelp kennel kiosk kiwi knapsack knot lark lasso latch leek lentil limerick
linnet lobster locker loom lute mackerel magpie mallet mammoth marzipan mast mattress meringue mitten moat
molasses moth mulberry mussel napkin nettle noodle nozzle nugget oar oboe okra omelet onyx oven pagoda
pancake parsley parsnip patio pewter pickle pier pillow plaster plough plume pollen poppy porch pretzel
prune pulley quail quay quiver radish raft raisin ramp raspberry ravioli reef rhubarb rivet rook rope rudder
rug sack saffron sandal sardine satchel sausage scone seagull sesame shawl shed shovel shrimp sieve sled
sleet spade sparrow spindle spoon squash squid stool stork stove straw sultana swallow syrup tambourine
tankard tarragon thimble thistle thyme toad toffee tractor trellis trout turnip tweed vicar viola vole
walrus wasp weasel wharf wren yeast yogurt zeppelin zipper
"""
WORDS = tuple(_WORDS.split())

GROUNDS: dict[str, tuple[RGB, ...]] = {
    "white": ((255, 255, 255), (250, 248, 234)),
    "black": ((0, 0, 0), (30, 30, 33)),
    "gray": ((164, 165, 168), (92, 93, 96)),
    "red": ((230, 54, 50), (158, 18, 22)),
    "green": ((62, 176, 108), (4, 98, 10)),
    "blue": ((34, 122, 222), (18, 30, 122)),
    "yellow": ((255, 240, 116), (234, 198, 6)),
    "orange": ((255, 166, 72), (226, 100, 0)),
    "purple": ((152, 82, 192), (78, 20, 108)),
    "pink": ((255, 122, 182), (250, 202, 216)),
}
"""Tones of grounds that have one name. Nobody is asked for the colour of the others."""

NAMELESS: tuple[RGB, ...] = (
    (0, 128, 128),
    (120, 72, 40),
    (222, 202, 164),
    (64, 200, 190),
    (110, 112, 40),
    (95, 25, 44),
    (150, 200, 235),
)

INKS: tuple[RGB, ...] = (
    (0, 0, 0),
    (44, 40, 64),
    (74, 10, 12),
    (8, 56, 36),
    (255, 255, 255),
    (252, 240, 206),
    (208, 236, 255),
    (255, 226, 40),
)
CONTRAST = 100
"""Least difference of luminance between ink and ground, of 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A font by its file; without one it is the font inside Pillow."""

    name: str
    path: Path | None = None


FACES = (
    *(Face(name=font.value.partition("-latin")[0], path=font.path) for font in HELD_OUT),
    Face(name="aileron, in Pillow"),
)
"""What the exam is set in."""

_SYSTEM = Path("/usr/share/fonts/truetype")
SYSTEM_FACES = tuple(
    Face(name=path.stem, path=path)
    for path in (
        *(_SYSTEM / "dejavu" / f"DejaVu{kind}.ttf" for kind in ("Sans", "Sans-Bold", "Serif", "SansMono")),
        *(_SYSTEM / "liberation" / f"Liberation{kind}-Regular.ttf" for kind in ("Sans", "Serif", "Mono")),
    )
)
"""Fonts that many systems have."""


TextMaker = Callable[[random.Random, int, bool], str]
"""Most characters, and whether a number is wanted -> a line."""


def printed(rng: random.Random, room: int, number: bool) -> str:
    """Words in one case, or a number, alone or after a word."""
    case = rng.choice((str.upper, str.lower, str.capitalize))
    value = str(rng.randrange(10 ** rng.randint(1, 5)))
    if number and (room < 8 or rng.random() < 0.5):
        return value[:room]
    words = [_word(rng, room - (len(value) + 1 if number else 0))]
    while not number and rng.random() < 0.4 and room - len(" ".join(words)) > 4:
        words.append(_word(rng, room - len(" ".join(words)) - 1))
    return " ".join([*map(case, words), *([value] if number else [])])


def meaningless(rng: random.Random, room: int, _number: bool) -> str:
    """Letters and digits drawn by lot: nothing can be guessed."""
    pool = string.ascii_letters + string.digits
    return "".join(rng.choice(pool) for _ in range(rng.randint(3, max(3, min(8, room)))))


def marked(rng: random.Random, room: int, number: bool) -> str:
    """Words and prices with punctuation."""
    if number:
        form = rng.choice(("${}.{:02d}", "{}.{}%", "#{}-{}"))
        return form.format(rng.randint(1, 99), rng.randint(1, 99))
    word = _word(rng, room - 2).capitalize()
    return rng.choice(("{}!", "{}?", '"{}"', "{}.", "({})", "{},", "{}:")).format(word)


def _word(rng: random.Random, room: int) -> str:
    return rng.choice([word for word in WORDS if len(word) <= max(room, 3)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is drawn: which texts in which faces, and how high."""

    faces: tuple[Face, ...] = FACES
    text: TextMaker = printed
    low: float = LOW
    high: float = HIGH
    most_lines: int = 3


PLAIN = Kind()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A picture and what is known of it. ``ground`` is empty where the colour has no single name."""

    name: str
    image: Image.Image
    lines: tuple[str, ...]
    ground: str
    number: str
    face: str
    height: float
    arrangement: str

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def draw(name: str, kind: Kind = PLAIN, *, blank: bool = False) -> Drawn:
    """The picture of a name, without text if it is to be ``blank``; equal names give equal pictures."""
    rng = random.Random(f"nano exam: {name}")
    ground, image, tones = _ground(rng)
    ink = rng.choice([tone for tone in INKS if _readable(tone, tones)])
    face = rng.choice(kind.faces)
    lines, height = ((), 0.0) if blank else _lines(rng, kind, face)
    arrangement = rng.choice(tuple(ARRANGEMENTS))
    _write(image, lines, _font(face, round(height * SIDE, 1)), ink, ARRANGEMENTS[arrangement], rng)
    number = next((word for line in lines for word in line.split() if word.isdigit()), "")
    return Drawn(
        name=name,
        image=image,
        lines=lines,
        ground=ground,
        number=number,
        face=face.name,
        height=height,
        arrangement=arrangement,
    )


def _ground(rng: random.Random) -> tuple[str, Image.Image, tuple[RGB, RGB]]:
    """The name of its colour, the ground, and the tones between which it lies: one, or a gradient."""
    if rng.random() < 0.3:
        name, first = "", rng.choice(NAMELESS)
    else:
        name = rng.choice(tuple(GROUNDS))
        first = rng.choice(GROUNDS[name])
    if rng.random() < 0.5:
        return name, Image.new("RGB", (SIDE, SIDE), first), (first, first)
    # Away from the middle, so that no ink becomes unreadable at one end.
    end = 255 if luminance(first) > 127 else 0
    r, g, b = (round(value + 0.2 * (end - value)) for value in first)
    second = (r, g, b)
    down, across = np.indices((SIDE, SIDE)) / (SIDE - 1)
    share = rng.choice((down, across, (down + across) / 2, np.hypot(down - 0.5, across - 0.5) / 0.7072))
    mixed = np.asarray(first) + share[..., None] * (np.asarray(second) - np.asarray(first))
    return name, Image.fromarray(mixed.round().astype(np.uint8)), (first, second)


def luminance(tone: RGB) -> float:
    """From 0 to 255 (ITU-R BT.601)."""
    return 0.299 * tone[0] + 0.587 * tone[1] + 0.114 * tone[2]


def _readable(ink: RGB, tones: tuple[RGB, RGB]) -> bool:
    return all(abs(luminance(ink) - luminance(tone)) >= CONTRAST for tone in tones)


def _lines(rng: random.Random, kind: Kind, face: Face) -> tuple[tuple[str, ...], float]:
    """Texts that fit, none of them twice, at most one with a number; and their height."""
    height, count = rng.uniform(kind.low, kind.high), rng.randint(1, kind.most_lines)
    numbered = rng.randrange(count) if rng.random() < 0.55 else -1
    while True:
        font, room, lines = _font(face, round(height * SIDE, 1)), MOST, list[str]()
        for place in range(count):
            left = room - 3 * (count - place - 1)
            text = _fitting(rng, kind.text, font, left, number=place == numbered)
            if not text or text in lines:
                break
            lines.append(text)
            room -= len(text)
        if len(lines) == count:
            return tuple(lines), height
        height = max(kind.low, 0.95 * height)


def _fitting(
    rng: random.Random, text: TextMaker, font: ImageFont.FreeTypeFont, room: int, *, number: bool
) -> str:
    """A line that is no wider than the picture allows, or nothing if twenty tries gave none."""
    for _ in range(20):
        line = text(rng, min(room, rng.randint(3, 14)), number)
        if len(line) <= room and font.getlength(line) <= 0.93 * SIDE:
            return line
    return ""


@cache
def _font(face: Face, height: float) -> ImageFont.FreeTypeFont:
    """The face at a size at which from the top of a b to the bottom of a p there are ``height`` pixels."""
    probe = _open(face, 200)
    _, top, _, bottom = probe.getbbox("bdlpqg", anchor="ls")
    return _open(face, max(4.0, 200 * height / (bottom - top)))


def _open(face: Face, size: float) -> ImageFont.FreeTypeFont:
    if face.path is not None:
        return ImageFont.truetype(face.path, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


Arrangement = Callable[[random.Random, list[float], float], list[tuple[float, float]]]
"""Widths of lines and the height of one, in shares of the side -> left edges and tops."""


def _tops(rng: random.Random, count: int, height: float) -> list[float]:
    """A block of lines somewhere between top and bottom."""
    step = height * rng.uniform(1.08, 1.5)
    step = min(step, (0.96 - height) / max(count - 1, 1))
    first = rng.uniform(0.02, 0.98 - height - step * (count - 1))
    return [first + step * place for place in range(count)]


def _flush(share: float) -> Arrangement:
    """Lines one under the other: flush left, centred, flush right; the block lies where it likes."""

    def place(rng: random.Random, widths: list[float], height: float) -> list[tuple[float, float]]:
        widest = max(widths)
        left = rng.uniform(0.03, 0.97 - widest)
        edges = [left + share * (widest - width) for width in widths]
        return list(zip(edges, _tops(rng, len(widths), height), strict=True))

    return place


def _spread(rng: random.Random, widths: list[float], height: float) -> list[tuple[float, float]]:
    """From the top edge to the bottom edge, each line at a place of its own."""
    gap = (0.94 - height) / max(len(widths) - 1, 1)
    tops = [0.03 + gap * place for place in range(len(widths))]
    if len(widths) == 1:
        tops = [rng.uniform(0.03, 0.97 - height)]
    return [(rng.uniform(0.03, 0.97 - width), top) for width, top in zip(widths, tops, strict=True)]


def _stepped(rng: random.Random, widths: list[float], height: float) -> list[tuple[float, float]]:
    """Each line begins further right than the one above, as far as there is room."""
    edges = [
        0.03 + (0.94 - width) * place / max(len(widths) - 1, 1) * rng.uniform(0.5, 1)
        for place, width in enumerate(widths)
    ]
    return list(zip(edges, _tops(rng, len(widths), height), strict=True))


ARRANGEMENTS: dict[str, Arrangement] = {
    "flush left": _flush(0.0),
    "centred": _flush(0.5),
    "flush right": _flush(1.0),
    "spread": _spread,
    "stepped": _stepped,
}


def _write(
    image: Image.Image,
    lines: tuple[str, ...],
    font: ImageFont.FreeTypeFont,
    ink: RGB,
    arrangement: Arrangement,
    rng: random.Random,
) -> None:
    if not lines:
        return
    pen = ImageDraw.Draw(image)
    _, top, _, bottom = font.getbbox("bdlpqg", anchor="ls")
    places = arrangement(rng, [font.getlength(line) / SIDE for line in lines], (bottom - top) / SIDE)
    for line, (left, above) in zip(lines, places, strict=True):
        pen.text((left * SIDE, above * SIDE - top), line, font=font, fill=ink, anchor="ls")


# --- what happens to pictures ----------------------------------------------------------------------------


def turned(degrees: float) -> Callable[[Drawn], Image.Image]:
    """Turned to the left or to the right; the ground fills the corners."""

    def change(drawn: Drawn) -> Image.Image:
        sign = random.Random(f"turned {drawn.name}").choice((-1, 1))
        corner = drawn.image.getpixel((0, 0))
        assert isinstance(corner, tuple)
        return drawn.image.rotate(sign * degrees, Image.Resampling.BICUBIC, fillcolor=corner)

    return change


def noisy(strength: float, grain: int) -> Callable[[Drawn], Image.Image]:
    """Grey noise with a deviation of ``strength`` levels of 255, in grains of so many pixels."""

    def change(drawn: Drawn) -> Image.Image:
        rng = np.random.default_rng(list(drawn.name.encode()))
        coarse = rng.normal(0, strength, (-(-SIDE // grain),) * 2)
        fine = coarse.repeat(grain, 0).repeat(grain, 1)[:SIDE, :SIDE, None]
        return Image.fromarray((np.asarray(drawn.image) + fine).clip(0, 255).astype(np.uint8))

    return change


def jpeg(quality: int) -> Callable[[Drawn], Image.Image]:
    """Through JPEG and back."""

    def change(drawn: Drawn) -> Image.Image:
        held = io.BytesIO()
        drawn.image.save(held, format="JPEG", quality=quality)
        return Image.open(held).convert("RGB")

    return change
