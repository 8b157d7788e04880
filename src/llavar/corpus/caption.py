"""The stage ``caption``: what a picture shows besides its text, for the teacher (section 3.2 of the paper).

The boxes that OCR found are painted over, so that the captioner does not spend its sentence on reading them,
then a captioner describes what is left. Painting is Telea's (2004), as in the paper, from OpenCV, which
comes with RapidOCR.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llavar.corpus.crew import Maker
from llavar.corpus.item import Item
from llavar.corpus.sight import device_of, picture_of
from llavar.corpus.stage import Outcome
from llavar.errors import ConfigError, ImageError, MissingExtraError, NotFoundError
from llavar.records import Line, Reject

if TYPE_CHECKING:
    from PIL.Image import Image

    from llavar.corpus.sight import Captioner

STAGE = "caption"
_RADIUS = 3
"""Pixels around a hole from which its colours are taken."""


class CaptionReason(StrEnum):
    """Why a picture has no caption."""

    CANNOT_OPEN = "the picture cannot be opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSettings:
    """Who describes, and what is painted over."""

    captioner: str
    max_side: int = 512
    """Pictures are brought down to it first: painting takes time with the pixels it fills."""
    margin: float = 0.15
    """How far holes reach beyond the boxes of lines, as a share of their height."""

    def __post_init__(self) -> None:
        if self.max_side < 32 or not 0 <= self.margin <= 2:
            raise ConfigError(
                f"max_side is {self.max_side} and margin {self.margin}; give at least 32 pixels, and 0 to 2"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionStage:
    """Adds a description. Every line that any engine found is painted over, sure or not."""

    root: Path
    captioner: Maker[Captioner]
    max_side: int = 512
    margin: float = 0.15
    time_limit: float | None = 120.0
    name: ClassVar[str] = STAGE
    version: ClassVar[int] = 1
    adds: ClassVar[tuple[str, ...]] = ("description",)

    @property
    def settings(self) -> CaptionSettings:
        return CaptionSettings(captioner=self.captioner.name, max_side=self.max_side, margin=self.margin)

    @property
    def device(self) -> str:
        return device_of(self.captioner)

    def basis(self, item: Item) -> object:
        return item.file or item.origin, item.readings

    def maker(self) -> CaptionStage:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        _require_opencv()
        describe = self.captioner()

        def captioned(item: Item) -> Outcome:
            try:
                picture = picture_of(item, self.root)
            except (ImageError, NotFoundError, OSError) as error:
                reason = CaptionReason.CANNOT_OPEN
                return Reject(id=item.id, stage=STAGE, reason=reason, detail=str(error))
            lines = [line for reading in item.readings for line in reading.lines]
            blind = without_text(picture, lines, max_side=self.max_side, margin=self.margin)
            return replace(item, description=" ".join(describe(blind).split()))

        return captioned


def _require_opencv() -> None:
    if importlib.util.find_spec("cv2") is None:
        raise MissingExtraError(
            "painting over text needs OpenCV, which is not installed: run  pip install 'llavar[ocr]'"
        )


def without_text(
    picture: Image, lines: Iterable[Line], *, max_side: int = 512, margin: float = 0.15
) -> Image:
    """The picture at ``max_side`` pixels at most, its lines of text filled in from around them.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    _require_opencv()
    import cv2
    import numpy as np
    from PIL import Image as Pillow

    cv2.setNumThreads(1)
    scale = min(1.0, max_side / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    small = picture.convert("RGB").resize((width, height), Pillow.Resampling.LANCZOS)
    holes = np.zeros((height, width), dtype=np.uint8)
    for line in lines:
        box, more = line.box, margin * line.box.height
        left, top = max(0.0, box.left - more) * scale, max(0.0, box.top - more) * scale
        right, bottom = (box.right + more) * scale, (box.bottom + more) * scale
        holes[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = 255
    if holes.all():  # there is nothing to fill from
        return Pillow.new("RGB", (width, height), "gray")
    filled = cv2.inpaint(np.asarray(small), holes, _RADIUS, cv2.INPAINT_TELEA)
    return Pillow.fromarray(filled)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionChoice:
    """What a recipe says about captions."""

    model: str
    """A captioner of Hugging Face (BLIP and its kin): id or folder."""
    device: str = "cpu"
    max_side: int = 512
    margin: float = 0.15
    time_limit: float = 120.0

    def __post_init__(self) -> None:
        CaptionSettings(captioner=self.model, max_side=self.max_side, margin=self.margin)
