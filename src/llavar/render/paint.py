"""Draw a scene at any resolution."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, floor

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from llavar.records import Box
from llavar.render import fonts
from llavar.render.scene import RGB, Scene, Shape, ShapeKind, TextLine

_ABOVE, _BELOW = 1.25, 0.5
"""How far letters reach above and below their baseline at the most, in ems."""


def paint(scene: Scene, size: int, *, noise_seed: int = 0) -> Image.Image:
    """``scene`` as an RGB picture of ``size`` x ``size`` pixels.

    Noise is the only part that the scene itself does not fix; it comes from ``noise_seed``.
    """
    image = _ground(scene, size)
    draw = ImageDraw.Draw(image)
    for panel in scene.panels:
        corners = _pixels(panel.box, size)
        if panel.outline:
            draw.rectangle(corners, outline=panel.tone, width=max(1, round(0.015 * size)))
        else:
            draw.rectangle(corners, fill=panel.tone)
    for shape in scene.shapes:
        _shape(draw, shape, size)
    for line in scene.lines:
        if line.plain:
            _line(draw, line, size)
        else:
            mask, top = _varied(line, size)
            image.paste(line.ink, (0, top), mask)
    if scene.blur:
        image = image.filter(ImageFilter.GaussianBlur(scene.blur * size))
    return _noisy(image, scene.noise, noise_seed) if scene.noise else image


def _ground(scene: Scene, size: int) -> Image.Image:
    if scene.top == scene.bottom:
        return Image.new("RGB", (size, size), scene.top)
    fade = np.linspace(scene.top, scene.bottom, size).round().astype(np.uint8)
    return Image.fromarray(np.repeat(fade[:, None, :], size, axis=1))


def _shape(draw: ImageDraw.ImageDraw, shape: Shape, size: int) -> None:
    left, top, right, bottom = _pixels(shape.box, size)
    if shape.kind is ShapeKind.CIRCLE:
        draw.ellipse((left, top, right, bottom), fill=shape.tone)
    elif shape.kind is ShapeKind.SQUARE:
        draw.rectangle((left, top, right, bottom), fill=shape.tone)
    else:
        draw.polygon(((left, bottom), (right, bottom), ((left + right) / 2, top)), fill=shape.tone)


def _line(draw: ImageDraw.ImageDraw, line: TextLine, size: int, ink: RGB | int | None = None) -> None:
    """Letter by letter, each where the scene says: within a text, Pillow rounds advances to whole pixels."""
    fill = line.ink if ink is None else ink
    pen = line.x
    for char in line.text:
        step = fonts.advance(line.font, char) * line.em
        share, sunk = _place(line, char)
        face = fonts.load(line.font, round(share * line.em * size, 1))
        at = ((pen + (1 - share) * step / 2) * size, (line.baseline + sunk) * size)
        draw.text(at, char, font=face, fill=fill, anchor="ls")
        pen += step + line.tracking * line.em


def _place(line: TextLine, char: str) -> tuple[float, float]:
    """How large a letter of a line is, as a share of the font's, and how far below the baseline it stands.

    Of old figures 0, 1 and 2 are as low as an x, 6 and 8 as they are, and the others hang below.
    """
    if char.islower():
        return line.small, 0.0
    if not (line.old_figures and char.isdigit()):
        return 1.0, 0.0
    small, figure = line.small * fonts.x_height(line.font), fonts.figure_height(line.font)
    return small / figure if char in "012" else 1.0, (figure - small) * line.em * (char in "34579")


def _varied(line: TextLine, size: int) -> tuple[Image.Image, int]:
    """Where a line has ink whose letters are not quite the font's: rows of a picture, and which is the first.

    It is drawn as it would be without that, at twice the size, and then sheared and stretched into place. A
    stem becomes wider or narrower by the union, or the section, of the letters and themselves a little aside,
    and a bar thinner by the section of the letters and themselves a little lower.
    """
    fine = 2 * size
    top = max(0, floor((line.baseline - _ABOVE * line.em) * size))
    rows = min(size, ceil((line.baseline + _BELOW * line.em) * size)) - top
    drawn = Image.new("L", (ceil(fine / min(line.stretch, 1.0)), 2 * rows))
    _line(ImageDraw.Draw(drawn), replace(line, baseline=line.baseline - top / size), fine, ink=255)
    across, lean = 2 / line.stretch, 2 * line.slant / line.stretch
    start = fine * (line.x - (line.x + line.slant * line.middle) / line.stretch) + lean * top
    aside = fine * line.em * abs(line.weight) / 2
    below = fine * line.em * line.contrast / 2

    def placed(by: float, down: float) -> Image.Image:
        to_drawn = (across, lean, start + by, 0.0, 2.0, down)
        return drawn.transform((size, rows), Image.Transform.AFFINE, to_drawn, Image.Resampling.BICUBIC)

    def stems(down: float) -> Image.Image:
        if not line.weight:
            return placed(0.0, down)
        both = ImageChops.lighter if line.weight > 0 else ImageChops.darker
        return both(placed(-aside, down), placed(aside, down))

    inked = ImageChops.darker(stems(-below), stems(below)) if below else stems(0.0)
    return inked, top


def _noisy(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Grey noise with a standard deviation of ``strength`` levels of 255."""
    grain = np.random.default_rng(seed).normal(0, strength, (image.height, image.width, 1))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def _pixels(box: Box, size: int) -> tuple[float, float, float, float]:
    return box.left * size, box.top * size, box.right * size, box.bottom * size
