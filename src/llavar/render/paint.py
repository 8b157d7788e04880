"""Draw a scene at any resolution."""

from __future__ import annotations

from math import ceil

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from llavar.records import Box
from llavar.render import fonts
from llavar.render.scene import RGB, Scene, Shape, ShapeKind, TextLine


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
            image.paste(line.ink, mask=_varied(line, size))
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
    face = fonts.load(line.font, round(line.em * size, 1))
    fill = line.ink if ink is None else ink
    pen = line.x
    for char in line.text:
        draw.text((pen * size, line.baseline * size), char, font=face, fill=fill, anchor="ls")
        pen += (fonts.advance(line.font, char) + line.tracking) * line.em


def _varied(line: TextLine, size: int) -> Image.Image:
    """Where there is ink of a line whose letters are not quite the font's, ``size`` x ``size``.

    It is drawn as it would be without that, at twice the size, and then sheared and stretched into place. A
    stem becomes wider or narrower by the union, or the section, of the letters and themselves a little aside.
    """
    fine = 2 * size
    drawn = Image.new("L", (ceil(fine / min(line.stretch, 1.0)), fine))
    _line(ImageDraw.Draw(drawn), line, fine, ink=255)
    across, lean = 2 / line.stretch, 2 * line.slant / line.stretch
    start = fine * (line.x - (line.x + line.slant * line.middle) / line.stretch)
    aside = fine * line.em * abs(line.weight) / 2

    def placed(by: float) -> Image.Image:
        to_drawn = (across, lean, start + by, 0.0, 2.0, 0.0)
        return drawn.transform((size, size), Image.Transform.AFFINE, to_drawn, Image.Resampling.BICUBIC)

    if not line.weight:
        return placed(0.0)
    both = ImageChops.lighter if line.weight > 0 else ImageChops.darker
    return both(placed(-aside), placed(aside))


def _noisy(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Grey noise with a standard deviation of ``strength`` levels of 255."""
    grain = np.random.default_rng(seed).normal(0, strength, (image.height, image.width, 1))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def _pixels(box: Box, size: int) -> tuple[float, float, float, float]:
    return box.left * size, box.top * size, box.right * size, box.bottom * size
