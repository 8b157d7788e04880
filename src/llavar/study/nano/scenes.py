"""From a rendered scene to what the rest of the system takes: a reading, facts, rows and questions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llavar.corpus.wordings import SceneFacts, Shape
from llavar.images import normalize
from llavar.records import Box, Line, Reading
from llavar.render import fonts
from llavar.render.paint import paint
from llavar.render.scene import Scene, ShapeKind, TextLine
from llavar.render.scene import Shape as Ornament

_AS_IT_IS = 0.3
"""Share of the lines whose letters :func:`varied` leaves alone."""

_THINNED, _THINNEST = 0.4, 0.7
"""Share of the others whose bars are thinner, and by how much of a font's at the most."""
_OLD, _SMALL = 0.25, 0.4
"""Shares of the others whose figures rise and sink, and whose small letters have another size."""

SHAPE_NAMES = tuple(kind.value for kind in ShapeKind)


def varied(scene: Scene, seed: str) -> Scene:
    """The scene with most of its lines in letters that no font has: wider, leaning, bolder, of thin bars.

    A dozen fonts are few, and what knows them alone reads others worse: an e as c, where its bar is a hair.
    Lines stay within the picture, and off what stands to their right.
    """
    rng = random.Random(f"varied:{seed}")
    edges = [panel.box.left for panel in scene.panels]
    return replace(scene, lines=tuple(_other(line, edges, rng) for line in scene.lines))


def _other(line: TextLine, edges: Sequence[float], rng: random.Random) -> TextLine:
    if rng.random() < _AS_IT_IS:
        return line
    end = min([1.0, *(edge for edge in edges if edge >= line.x + line.width)])
    room = max(1.0, (end - 0.01 - line.x) / max(line.width, 0.01))
    return replace(
        line,
        stretch=min(rng.uniform(0.85, 1.2), room),
        slant=rng.choice((0.0, rng.uniform(-0.05, 0.25))),
        weight=rng.uniform(-0.015, 0.03),
        contrast=fonts.bar(line.font) * rng.uniform(0, _THINNEST) if rng.random() < _THINNED else 0.0,
        small=rng.uniform(0.88, 1.12) if rng.random() < _SMALL else 1.0,
        old_figures=rng.random() < _OLD,
    )


def facts(scene: Scene) -> SceneFacts:
    """Colour of the ground and the ornaments, as the teacher takes them."""

    def named(shape: Ornament) -> tuple[str, str]:
        return shape.kind.value, shape.colour.value

    groups = groupby(sorted(scene.shapes, key=named), key=named)
    shapes = (Shape(name=name, colour=colour, count=len(list(same))) for (name, colour), same in groups)
    return SceneFacts(ground=scene.ground.value, shapes=tuple(shapes))


def reading(scene: Scene, image: str, size: int) -> Reading:
    """The scene as a perfect OCR engine would read it from a picture of ``size`` x ``size`` pixels."""
    lines = tuple(Line(text=line.text, box=_scaled(line.box, size)) for line in scene.lines)
    return Reading(image=image, size=(size, size), lines=lines, engine="truth")


def pixels(scene: Scene, size: int, index: int) -> NDArray[np.float32]:
    """The scene as a tower of ``size`` x ``size`` pixels takes it, fp32 (3, size, size).

    Every second one is drawn at twice the size and brought down, as pictures from outside are. ``index``
    also seeds the noise.
    """
    image = paint(scene, size * (1 + index % 2), noise_seed=index)
    if image.width != size:
        image = image.resize((size, size), resample=Image.Resampling.BICUBIC)
    return normalize(image)


def _scaled(box: Box, size: int) -> Box:
    return Box(left=box.left * size, top=box.top * size, right=box.right * size, bottom=box.bottom * size)
