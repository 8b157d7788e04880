"""Arrange text and ornaments into scenes: posters, covers, quote cards, signs, receipts and their like.

Everything is drawn from one ``random.Random``, so a scene is a pure function of its seed and its
:class:`Style`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from llavar.records import Box
from llavar.render import fonts, words
from llavar.render.fonts import Font
from llavar.render.scene import (
    RGB,
    TONES,
    Colour,
    LayoutKind,
    Panel,
    Scene,
    Shape,
    ShapeKind,
    TextLine,
    text_width,
)

EM_MIN, EM_MAX = 0.125, 0.2
"""Font size as a share of the picture's side: what a 96 pixel tower can see."""

_MARGIN = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Which scenes to draw.

    ``held_out_*`` switch to the parts that training never sees; ``random_text`` is the share of lines made of
    characters without meaning, ``doubled`` the chance of each of them to be the one before it again;
    ``max_lines`` of 0 draws ornaments alone; ``wild`` adds noise and blur.
    """

    held_out_words: bool = False
    held_out_fonts: bool = False
    held_out_layouts: bool = False
    random_text: float = 0.0
    doubled: float = 0.0
    min_lines: int = 1
    max_lines: int = 3
    shapes: float = 0.7
    wild: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What a layout decides: where the text may stand and how, and what lies behind it."""

    zone: Box
    align: float
    lines: tuple[int, int]
    panels: tuple[Panel, ...] = ()
    paper: RGB | None = None
    receipt: bool = False


def scene(seed: int | str, style: Style) -> Scene:
    """The scene of ``seed``; equal arguments give an equal scene on every machine."""
    rng = random.Random(f"scene:{seed}")
    layout = rng.choice([kind for kind in LayoutKind if kind.held_out == style.held_out_layouts])
    ground = rng.choice(list(Colour))
    top = _jitter(rng, TONES[ground])
    bottom = _jitter(rng, top, 26) if rng.random() < 0.3 else top
    plan = _PLANS[layout](rng, top)
    lines = _set_text(rng, plan, style, plan.paper or top)
    return Scene(
        layout=layout,
        ground=ground,
        top=top,
        bottom=bottom,
        lines=lines,
        shapes=_ornaments(rng, ground, lines, plan) if rng.random() < style.shapes else (),
        panels=plan.panels,
        noise=rng.uniform(0, 9) if rng.random() < style.wild else 0.0,
        blur=rng.uniform(0, 0.006) if rng.random() < style.wild else 0.0,
    )


def _poster(rng: random.Random, _ground: RGB) -> _Plan:
    top = rng.uniform(_MARGIN, 0.25)
    return _Plan(zone=_box(_MARGIN, top, 1 - _MARGIN, 0.94), align=0.5, lines=(1, 3))


def _cover(rng: random.Random, ground: RGB) -> _Plan:
    paper = _contrasting(rng, ground, 60)
    band = _box(0, rng.uniform(0.05, 0.2), 1, rng.uniform(0.6, 0.75))
    zone = _box(_MARGIN, band.top + 0.02, 1 - _MARGIN, band.bottom - 0.02)
    return _Plan(
        zone=zone, align=rng.choice((0.0, 0.5)), lines=(1, 2), paper=paper, panels=(_panel(paper, band),)
    )


def _quote(rng: random.Random, ground: RGB) -> _Plan:
    frame = Panel(tone=_contrasting(rng, ground, 60), box=_box(0.02, 0.02, 0.98, 0.98), outline=True)
    return _Plan(zone=_box(0.06, 0.12, 0.94, 0.9), align=0.5, lines=(2, 3), panels=(frame,))


def _sign(rng: random.Random, ground: RGB) -> _Plan:
    paper = _contrasting(rng, ground, 60)
    middle, half = rng.uniform(0.3, 0.7), rng.uniform(0.13, 0.24)
    plate = _box(0.03, middle - half, 0.97, middle + half)
    zone = _box(0.06, plate.top + 0.02, 0.94, plate.bottom - 0.02)
    return _Plan(zone=zone, align=0.5, lines=(1, 2), paper=paper, panels=(_panel(paper, plate),))


def _receipt(rng: random.Random, ground: RGB) -> _Plan:
    rule_at = rng.uniform(0.9, 0.96)
    rule = _panel(_contrasting(rng, ground, 80), _box(0.06, rule_at, 0.94, rule_at + 0.012))
    zone = _box(rng.uniform(0.03, 0.09), 0.04, 0.96, rule_at - 0.02)
    return _Plan(zone=zone, align=0.0, lines=(2, 4), panels=(rule,), receipt=True)


def _advert(rng: random.Random, _ground: RGB) -> _Plan:
    return _Plan(
        zone=_box(_MARGIN, rng.uniform(0.3, 0.5), 1 - _MARGIN, 0.96),
        align=rng.choice((0.0, 1.0)),
        lines=(1, 2),
    )


def _ticket(rng: random.Random, ground: RGB) -> _Plan:
    stub = _panel(_contrasting(rng, ground, 50), _box(0, 0, rng.uniform(0.05, 0.1), 1))
    return _Plan(zone=_box(0.13, 0.06, 0.97, 0.8), align=0.0, lines=(1, 3), panels=(stub,))


def _banner(rng: random.Random, ground: RGB) -> _Plan:
    paper = _contrasting(rng, ground, 60)
    middle = rng.uniform(0.35, 0.65)
    band = _box(0, middle - 0.13, 1, middle + 0.13)
    return _Plan(zone=band, align=0.5, lines=(1, 1), paper=paper, panels=(_panel(paper, band),))


def _business_card(rng: random.Random, ground: RGB) -> _Plan:
    rule = _panel(_contrasting(rng, ground, 60), _box(0.08, 0.28, 0.92, 0.295))
    return _Plan(zone=_box(0.05, 0.34, 0.95, 0.95), align=1.0, lines=(2, 3), panels=(rule,))


_PLANS: dict[LayoutKind, Callable[[random.Random, RGB], _Plan]] = {
    LayoutKind.POSTER: _poster,
    LayoutKind.COVER: _cover,
    LayoutKind.QUOTE: _quote,
    LayoutKind.SIGN: _sign,
    LayoutKind.RECEIPT: _receipt,
    LayoutKind.ADVERT: _advert,
    LayoutKind.TICKET: _ticket,
    LayoutKind.BANNER: _banner,
    LayoutKind.BUSINESS_CARD: _business_card,
}


def _set_text(rng: random.Random, plan: _Plan, style: Style, paper: RGB) -> tuple[TextLine, ...]:
    """Lines that fit the plan's zone, from top to bottom; fewer than planned where they do not fit."""
    low, high = (max(n, style.min_lines) if style.min_lines else n for n in plan.lines)
    count = min(rng.randint(low, max(low, high)), style.max_lines)
    if rng.random() < 0.1:
        count = min(count, style.min_lines)
    family = fonts.HELD_OUT if style.held_out_fonts else fonts.TRAIN
    face, ink = rng.choice(family), _contrasting(rng, paper, 95)
    tracking = rng.uniform(0.02, 0.12) if rng.random() < 0.2 else 0.0
    ems = [_size(rng) for _ in range(count)]
    leading = rng.uniform(1.08, 1.4)
    while ems and leading * sum(ems) > plan.zone.height:
        ems = [max(em * 0.93, EM_MIN) for em in ems]
        if all(em == EM_MIN for em in ems) and leading * sum(ems) > plan.zone.height:
            ems, leading = (ems[:-1], leading) if leading <= 1.09 else (ems, 1.08)
    slack = plan.zone.height - leading * sum(ems)
    y = plan.zone.top + slack * rng.random()
    lines: list[TextLine] = []
    for index, em in enumerate(ems):
        if index and rng.random() < 0.25:
            face = rng.choice(family)
        text = _fitting(rng, plan, style, face, em, tracking, index)
        y += leading * em
        spare = plan.zone.width - text_width(text, face, em, tracking)
        x = plan.zone.left + spare * (plan.align if rng.random() < 0.9 else rng.random())
        baseline = y - 0.28 * em - (leading - 1) * em / 2
        lines.append(
            TextLine(text=text, font=face, em=em, x=x, baseline=baseline, ink=ink, tracking=tracking)
        )
    return tuple(line for line in lines if line.text)


def _fitting(
    rng: random.Random, plan: _Plan, style: Style, face: Font, em: float, tracking: float, index: int
) -> str:
    """A text that is no wider than the zone; drawn again, and at last cut, where it is too wide."""
    room = _room(plan.zone.width, em, face, tracking)
    text = _text(rng, plan, style, room, index)
    for shorter in range(room, 2, -1):
        if text_width(text, face, em, tracking) <= plan.zone.width:
            break
        text = _text(rng, plan, style, shorter, index)
    while text_width(text, face, em, tracking) > plan.zone.width:
        text = text[:-1].rstrip()
    return text


def _text(rng: random.Random, plan: _Plan, style: Style, room: int, index: int) -> str:
    length = max(2, min(room, rng.randint(3, 13)))
    if rng.random() < style.random_text:
        text = words.random_string(rng, rng.randint(1, length), doubled=style.doubled)
        if length > 6 and rng.random() < 0.4:
            cut = rng.randint(2, len(text)) if len(text) > 2 else len(text)
            text = f"{text[:cut]} {text[cut:]}".strip()
        return text
    if plan.receipt and index and rng.random() < 0.7:
        item = words.cased(rng, words.word(rng, held_out=style.held_out_words))
        return f"{item} {words.number(rng)}"
    if rng.random() < 0.15:
        return words.number(rng)
    return words.phrase(rng, held_out=style.held_out_words, length=length)


def _room(width: float, em: float, face: Font, tracking: float) -> int:
    """About how many characters of ``face`` fit."""
    return max(1, int(width / text_width("n", face, em) / (1 + tracking)))


def _size(rng: random.Random) -> float:
    return rng.uniform(EM_MIN, EM_MAX) if rng.random() < 0.7 else rng.uniform(EM_MIN, 0.145)


def _ornaments(
    rng: random.Random, ground: Colour, lines: tuple[TextLine, ...], plan: _Plan
) -> tuple[Shape, ...]:
    """One to three like shapes in a row in the widest band that is free of text and panels."""
    taken = [line.box for line in lines] + [p.box for p in plan.panels if not p.outline and p.box.width > 0.5]
    height, top = _widest_gap(taken)
    if height < 0.13:
        return ()
    kind, colour = rng.choice(list(ShapeKind)), _unlike(rng, ground)
    count = rng.randint(1, 3)
    side = min(rng.uniform(0.12, 0.24), height - 0.02, 0.8 / count - 0.04)
    gap = rng.uniform(0.03, 0.08)
    left = 0.05 + (0.9 - count * side - (count - 1) * gap) * rng.random()
    y = top + 0.01 + (height - side - 0.02) * rng.random()
    tone = _jitter(rng, TONES[colour])
    boxes = (_box(left + i * (side + gap), y, left + i * (side + gap) + side, y + side) for i in range(count))
    return tuple(Shape(kind=kind, colour=colour, tone=tone, box=box) for box in boxes)


def _widest_gap(taken: list[Box]) -> tuple[float, float]:
    """Height and top of the highest band of the picture that no box reaches into."""
    gaps: list[tuple[float, float]] = []
    free_from = 0.04
    for box in sorted(taken, key=lambda box: box.top):
        gaps.append((box.top - free_from, free_from))
        free_from = max(free_from, box.bottom)
    return max([*gaps, (0.96 - free_from, free_from)])


def _unlike(rng: random.Random, ground: Colour) -> Colour:
    """A colour that can be told from ``ground``."""
    far = [c for c in Colour if sum(abs(a - b) for a, b in zip(TONES[c], TONES[ground], strict=True)) > 150]
    return rng.choice(far)


def _contrasting(rng: random.Random, paper: RGB, gap: float) -> RGB:
    """A tone whose luminance differs from that of ``paper`` by at least ``gap`` of 255."""
    tones = [(10, 10, 12), (250, 250, 248), *TONES.values()]
    usable = [tone for tone in tones if abs(luminance(tone) - luminance(paper)) >= gap]
    return _jitter(rng, rng.choice(usable), 10)


def luminance(tone: RGB) -> float:
    """Perceived brightness from 0 to 255 (ITU-R BT.601)."""
    return 0.299 * tone[0] + 0.587 * tone[1] + 0.114 * tone[2]


def _jitter(rng: random.Random, tone: RGB, by: int = 14) -> RGB:
    shift = rng.randint(-by, by)
    r, g, b = (min(255, max(0, value + shift + rng.randint(-by // 3, by // 3))) for value in tone)
    return (r, g, b)


def _box(left: float, top: float, right: float, bottom: float) -> Box:
    return Box(left=left, top=top, right=right, bottom=bottom)


def _panel(tone: RGB, box: Box) -> Panel:
    return Panel(tone=tone, box=box)


def page(seed: int | str, style: Style) -> Scene:
    """A picture full of text, line under line, each in its own font: the densest lesson for a tower.

    Some have a rule beside the text, which is no letter.
    """
    rng = random.Random(f"page:{seed}")
    ground = rng.choice(list(Colour))
    top = _jitter(rng, TONES[ground])
    bottom = _jitter(rng, top, 26) if rng.random() < 0.3 else top
    left, right = (rng.uniform(0.03, 0.1) if rng.random() < 0.2 else 0.0 for _ in "lr")
    rules = tuple(_rule(rng, top, at) for at, there in ((left, left), (1 - right, right)) if there)
    plan = _Plan(zone=_box(left + 0.02, 0.0, 0.98 - right, 1.0), align=rng.random(), lines=(7, 7))
    family = fonts.HELD_OUT if style.held_out_fonts else fonts.TRAIN
    lines: list[TextLine] = []
    y = rng.uniform(-0.02, 0.06)
    while True:
        em, face = _size(rng), rng.choice(family)
        if y + em > 1:
            break
        tracking = rng.uniform(0.02, 0.12) if rng.random() < 0.15 else 0.0
        text = _fitting(rng, plan, style, face, em, tracking, 0)
        text += _filler(rng, style, text, face, em, tracking, plan.zone.width)
        x = plan.zone.left + (plan.zone.width - text_width(text, face, em, tracking)) * rng.random()
        ink = _contrasting(rng, top, 70)
        lines.append(
            TextLine(text=text, font=face, em=em, x=x, baseline=y + 0.76 * em, ink=ink, tracking=tracking)
        )
        y += em * rng.uniform(1.0, 1.25)
    return Scene(
        layout=LayoutKind.POSTER,
        ground=ground,
        top=top,
        bottom=bottom,
        lines=tuple(lines),
        panels=rules,
        noise=rng.uniform(0, 9) if rng.random() < style.wild else 0.0,
        blur=rng.uniform(0, 0.006) if rng.random() < style.wild else 0.0,
    )


def _rule(rng: random.Random, ground: RGB, at: float) -> Panel:
    """A line from the top to the bottom of a picture, at most as wide as a stem."""
    half = rng.uniform(0.003, 0.012)
    return _panel(_contrasting(rng, ground, 60), _box(at - half, 0, at + half, 1))


def _filler(
    rng: random.Random, style: Style, text: str, face: Font, em: float, tracking: float, width: float
) -> str:
    """What may follow ``text`` so that the line is nearly full."""
    extra = ""
    while True:
        more = f" {words.random_string(rng, rng.randint(1, 5), doubled=style.doubled)}"
        if text_width(text + extra + more, face, em, tracking) > width:
            return extra
        extra += more
