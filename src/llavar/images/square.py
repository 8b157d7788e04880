"""Pictures as the arrays that a vision tower takes.

The three transforms are those of the original, under one name each (:class:`Transform`); :func:`pixels` is
bit-identical to them.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from llavar.errors import ConfigError
from llavar.images.opening import Limits, Source, open_image, to_rgb

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PAD_COLOUR = (122, 116, 104)
"""The CLIP mean as whole 8-bit numbers, which the original's padding uses."""

_MOST_SIZE = 4096
_MOST_CANVAS = 400_000_000
_MOST_RESIZED = 100_000_000
_STRIP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """Mean and deviation of each channel, of values from 0 to 1, that a tower was trained with: CLIP's."""

    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @property
    def colour(self) -> tuple[int, int, int]:
        """The mean as whole 8-bit numbers, with which ``pad`` fills; CLIP's is :data:`PAD_COLOUR`."""
        red, green, blue = (int(value * 255) for value in self.mean)
        return red, green, blue


CLIP = Norm()
SIGLIP = Norm(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class Transform(StrEnum):
    """How a picture of any shape becomes a square one."""

    PAD = "pad"
    """Centred on a square of the mean colour, then resized (the original's training)."""
    FIT = "fit"
    """Long side to the size, top left on black (its text-VQA and MME evaluation: ``resize_image``)."""
    CROP = "crop"
    """Short side to the size, centre cropped (CLIP's own: web page, COCO questions)."""


_LIMITS = Limits()


def pixels(
    image: Source | Image.Image,
    *,
    transform: str | Transform,
    size: int,
    norm: Norm = CLIP,
    limits: Limits = _LIMITS,
    exif: bool = True,
) -> NDArray[np.float32]:
    """What the vision tower takes: float32 of shape (3, size, size), normalised by the tower's constants.

    Bit-identical to the original (``pad`` of train.py, ``fit`` = ``resize_image`` of mme_eval.py, ``crop`` =
    CLIPImageProcessor). ``limits`` and ``exif`` apply if a file is opened, see :func:`open_image`.
    """
    seen = view(image, transform=transform, size=size, norm=norm, limits=limits, exif=exif)
    return normalize(seen, norm)


def view(
    image: Source | Image.Image,
    *,
    transform: str | Transform,
    size: int | tuple[int, int],
    norm: Norm = CLIP,
    limits: Limits = _LIMITS,
    exif: bool = True,
) -> Image.Image:
    """The picture as the model sees it: RGB, before the normalisation.

    ``size`` is the side of a square in pixels, or (width, height) of another rectangle.
    """
    chosen = _transform(transform)
    width, height = (size, size) if isinstance(size, int) else size
    if not 1 <= min(width, height) <= max(width, height) <= _MOST_SIZE:
        raise ConfigError(f"The image size is {size}; give the tower's, 1 to {_MOST_SIZE} pixels.")
    if not isinstance(image, Image.Image):
        rgb = open_image(image, limits=limits, exif=exif)
    else:  # large ones are not copied for nothing
        rgb = image if image.mode == "RGB" and not image.info else to_rgb(image)
    if chosen is Transform.PAD:
        return _pad(rgb, width, height, norm.colour)
    elif chosen is Transform.FIT:
        return _fit(rgb, width, height)
    return _crop(rgb, width, height)


def normalize(picture: Image.Image, norm: Norm = CLIP) -> NDArray[np.float32]:
    """RGB of (width, height) as float32 of shape (3, height, width), by the tower's mean and deviation."""
    table, values = _table(norm), np.asarray(picture)
    return np.stack([table[channel][values[..., channel]] for channel in range(3)])


def data_uri(image: Image.Image, *, max_side: int = 512, quality: int | None = 85) -> str:
    """A picture as a ``data:`` URI for a self-contained page, at most ``max_side`` pixels on its longer side.

    JPEG of that ``quality`` (1 to 95), or lossless PNG if it is None (small pictures whose pixels matter).
    """
    if max_side < 1 or (quality is not None and not 1 <= quality <= 95):
        raise ConfigError(
            f"max_side is {max_side} and quality {quality}; give at least 1, and 1 to 95 or None for PNG."
        )
    small, buffer = to_rgb(image), io.BytesIO()
    small.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    kind = "png" if quality is None else "jpeg"
    # Full chroma resolution: coloured text frays without it.
    options = {"optimize": True} if quality is None else {"quality": quality, "subsampling": 0}
    small.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _transform(name: str) -> Transform:
    try:
        return Transform(name)
    except ValueError as error:
        raise ConfigError(
            f"The image transform is {name!r} and must be one of {', '.join(Transform)} "
            "(the original's 'square' is crop, its 'resize_image' is fit)."
        ) from error


def _pad(image: Image.Image, width: int, height: int, colour: tuple[int, int, int]) -> Image.Image:
    """``expand2square`` of the original, then CLIP's resize, without the large square in memory.

    Pillow resamples rows first and columns then, with 8 bits in between; doing the rows strip by strip gives
    the same pixels. Canvases of more than :data:`_MOST_CANVAS` pixels would take minutes: those pictures are
    brought near the final size first, which changes nothing that can be seen.
    """
    wide, high = _canvas(image.size, width, height)
    if wide * high > _MOST_CANVAS:
        image = image.resize(_scaled(image.size, 4 * width / wide), Image.Resampling.BICUBIC)
        wide, high = _canvas(image.size, width, height)
    left, top = (wide - image.width) // 2, (high - image.height) // 2
    narrow = Image.new("RGB", (width, high))
    for y in range(0, high, _STRIP):
        strip = Image.new("RGB", (wide, min(_STRIP, high - y)), colour)
        strip.paste(image, (left, top - y))
        narrow.paste(strip.resize((width, strip.height), Image.Resampling.BICUBIC), (0, y))
    return narrow.resize((width, height), Image.Resampling.BICUBIC)


def _canvas(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """The smallest rectangle of the shape ``width`` x ``height`` around a picture; sides are rounded up."""
    return max(size[0], -(-size[1] * width // height)), max(size[1], -(-size[0] * height // width))


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """``resize_image`` of the original; a side that it would round down to nothing keeps one pixel."""
    # The quotient first, then one more rounding: 380 / 570 gives 224 this way, and 223 by a scale factor.
    ratio = image.width / image.height
    wider = ratio > width / height
    shape = (width, max(1, int(width / ratio))) if wider else (max(1, int(height * ratio)), height)
    square = Image.new("RGB", (width, height))
    square.paste(image.resize(shape, Image.Resampling.BICUBIC), (0, 0))
    return square


def _crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """CLIP's own: scaled until it covers the size (a square: short side to it), then the centre.

    Of very long pictures (at size 336 beyond 885 to 1) only the middle is resized, or else a line of
    100,000 x 1 pixels would become one of 33,600,000 x 336.
    """
    short = min(image.size)
    if width * height * max(image.size) > _MOST_RESIZED * short:
        most = 8 * short * -(-max(width, height) // min(width, height))
        image = _centre(image, min(image.width, most), min(image.height, most))
    if image.width * height <= image.height * width:
        shape = (width, int(width * image.height / image.width))
    else:
        shape = (int(height * image.width / image.height), height)
    return _centre(image.resize(shape, Image.Resampling.BICUBIC), width, height)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, math.floor(size[0] * factor)), max(1, math.floor(size[1] * factor))


@cache
def _table(norm: Norm) -> NDArray[np.float32]:
    """The normalised value of each 8-bit one, shape (3, 256), in the original's order of roundings.

    Times 1/255 in float64, rounded to float32; then minus mean and divided by deviation, both in float32
    (transformers.image_transforms: rescale, normalize).
    """
    scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean = np.array(norm.mean, dtype=np.float32)[:, None]
    table = (scaled[None] - mean) / np.array(norm.std, dtype=np.float32)[:, None]
    table.setflags(write=False)
    return table
