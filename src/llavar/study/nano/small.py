"""Scenes with small text, and a training on them, to show that a model that sees tiles reads smaller text.

A scene is made small by moving all that is in it into a part of the picture: lines keep their text and font
and lose height. The same scene, large and small, so asks for the same reading at another resolution.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llavar import chat
from llavar.data.encode import encode
from llavar.images import WHOLE, Tiles, view_pixels
from llavar.models.tokenizer import TextTokenizer
from llavar.records import Box, Conversation, Example
from llavar.render.layouts import Style, page
from llavar.render.paint import paint
from llavar.render.scene import Panel, Scene
from llavar.study.nano.decoder import lesson, spell
from llavar.study.nano.tune import LessonObjective, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallData:
    """What is asked about how many scenes, and how the model sees them.

    ``scale`` is the height of the text against that of nano's own scenes; a share ``whole`` keeps theirs. Of
    the others a share ``pages`` is full of text, of which up to ``lines`` lines are to be spelt. The other
    fields are those of :class:`~llavar.study.nano.tune.TuneData`.
    """

    tiles: Tiles = WHOLE
    scale: float = 0.5
    whole: float = 0.1
    size: int = 96
    patches: int = 12
    batch: int = 16
    parts: int = 2
    turns: int = 5
    pages: float = 0.6
    lines: int = 8
    random_text: float = 0.45
    seed: str = "small"


def shrunk(drawn: Scene, scale: float, left: float, top: float) -> Scene:
    """``drawn`` at ``scale`` of its size, its corner at (``left``, ``top``); the ground fills the rest."""

    def moved(box: Box) -> Box:
        return Box(
            left=left + scale * box.left,
            top=top + scale * box.top,
            right=left + scale * box.right,
            bottom=top + scale * box.bottom,
        )

    return replace(
        drawn,
        lines=tuple(
            replace(
                line,
                em=scale * line.em,
                x=left + scale * line.x,
                baseline=top + scale * line.baseline,
            )
            for line in drawn.lines
        ),
        shapes=tuple(replace(shape, box=moved(shape.box)) for shape in drawn.shapes),
        panels=tuple(replace(panel, box=moved(panel.box)) for panel in drawn.panels),
        blur=scale * drawn.blur,
    )


def crowded(name: str, style: Style, scale: float, most: int, rng: random.Random) -> Scene:
    """Up to ``most`` lines of small text all over the picture, in bands that are pages of their own."""
    start = rng.uniform(-scale, 0)
    bands: list[Scene] = []
    while start + len(bands) * scale < 1:
        full = page(f"{name}:{len(bands)}", style)
        bands.append(shrunk(full, scale, rng.uniform(0, 1 - scale), start + len(bands) * scale))
    lines = [line for band in bands for line in band.lines if line.box.top >= 0 and line.box.bottom <= 1]
    kept = sorted(rng.sample(range(len(lines)), min(rng.randint(1, most), len(lines))))
    panels = tuple(
        Panel(tone=band.top, box=Box(left=0, top=top, right=1, bottom=top + scale))
        for band, top in zip(bands, (start + place * scale for place in range(len(bands))), strict=True)
    )
    return replace(bands[0], lines=tuple(lines[place] for place in kept), panels=panels)


def anywhere(drawn: Scene, scale: float, rng: random.Random) -> Scene:
    """``drawn`` at ``scale`` of its size, somewhere in the picture."""
    return shrunk(drawn, scale, rng.uniform(0, 1 - scale), rng.uniform(0, 1 - scale))


def seen(drawn: Scene, size: int, tiles: Tiles, index: int) -> NDArray[np.float32]:
    """What a tower of ``size`` pixels takes of a scene: fp32 (views, 3, size, size).

    Every second scene is drawn at twice the size and brought down; ``index`` also seeds the noise.
    """
    side = max(tiles.extent(size))
    image = paint(drawn, side * (1 + index % 2), noise_seed=index)
    if image.width != side:
        image = image.resize((side, side), resample=Image.Resampling.BICUBIC)
    return view_pixels(image, tiles=tiles, transform="pad", size=size)


class SmallObjective(LessonObjective):
    """Trained on conversations about scenes with small text."""

    def __init__(self, model: Any, tokenizer: TextTokenizer, data: SmallData) -> None:
        super().__init__(model, tokenizer, batch=data.batch, micro=data.parts)
        self.data = data

    def sample(self, index: int) -> Sample:
        data, name = self.data, f"{self.data.seed}:{index}"
        rng = random.Random(name)
        drawn, conversation = self._lesson(name, rng)
        row = Example(id=str(index), images=(str(index),), conversation=conversation)
        encoded = encode(
            row,
            self.tokenizer,
            chat.get("llava_v1"),
            image_tokens=data.patches**2,
            views=data.tiles.views,
        )
        return Sample(encoded, seen(drawn, data.size, data.tiles, index), drawn.text)

    def _lesson(self, name: str, rng: random.Random) -> tuple[Scene, Conversation]:
        data, style = self.data, Style(random_text=self.data.random_text, wild=0.4)
        whole = rng.random() < data.whole
        if not whole and rng.random() < data.pages:
            drawn = crowded(name, style, data.scale, data.lines, rng)
            return drawn, spell(drawn, rng)
        drawn, conversation, _ = lesson(name, rng, style, data.pages if whole else 0.0, 4.0, data.turns)
        return drawn if whole else anywhere(drawn, data.scale, rng), conversation
