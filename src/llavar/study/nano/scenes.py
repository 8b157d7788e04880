"""From a rendered scene to what the rest of the system takes: a reading, facts, rows and questions."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llavar.corpus.wordings import SceneFacts, Shape
from llavar.images import normalize
from llavar.records import Box, Line, Reading
from llavar.render.paint import paint
from llavar.render.scene import Scene, ShapeKind
from llavar.render.scene import Shape as Ornament

SHAPE_NAMES = tuple(kind.value for kind in ShapeKind)


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
