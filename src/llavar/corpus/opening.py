"""The stage ``open``: every picture is decoded once, in a process that may die of it, and measured.

What came from the network is encoded anew, upright and without metadata: what goes on from here is what was
looked at, and no decoder behind this stage meets a file that a stranger made. Pictures of the user's own
folders stay where they are and as they are.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llavar.corpus.item import Fingerprint, Item, PictureFile
from llavar.corpus.stage import Outcome
from llavar.errors import ConfigError, ImageError, NotFoundError
from llavar.images import Limits, open_image
from llavar.records import Reject

if TYPE_CHECKING:
    from PIL.Image import Image

STAGE = "open"
FOLDER = "images"
THINNED = "images.thinned"
"""A file beside it, once pictures that no row uses were removed from it."""

_SIDE = 64
"""A picture is brought to 64 x 64 grey pixels; of its cosine transform the 16 x 16 slowest waves count."""


class OpenReason(StrEnum):
    """Why a picture is not taken."""

    NO_FILE = "it has no file"
    CANNOT_OPEN = "the picture cannot be opened"
    TOO_SMALL = "too small"
    TOO_LONG = "too long and narrow"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSettings:
    """Which pictures are taken. Sides in pixels."""

    min_side: int = 32
    max_ratio: float = 8.0
    """Longest side over shortest one."""
    max_side: int = 2048
    """Fetched pictures are brought down to it."""
    quality: int = 95
    """Of fetched pictures that come as JPEG, WebP or AVIF and are kept as JPEG; others are kept as PNG."""

    def __post_init__(self) -> None:
        if self.min_side < 1 or not self.max_ratio >= 1:
            raise ConfigError(
                f"min_side is {self.min_side} and max_ratio {self.max_ratio}, but they must be at least 1; "
                "give 32 and 8, for example"
            )
        if self.max_side < self.min_side or not 1 <= self.quality <= 100:
            raise ConfigError(
                f"max_side is {self.max_side} and quality {self.quality}; give at least min_side "
                f"({self.min_side}), and 1 to 100"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStage:
    """Adds size, hashes and fingerprint; ``root`` is what relative paths start from."""

    root: Path
    settings: OpenSettings = OpenSettings()
    time_limit: float | None = 30.0
    name: ClassVar[str] = STAGE
    version: ClassVar[int] = 2
    """Pillow's own version decides the bytes of pictures that are encoded anew."""

    def maker(self) -> OpenStage:
        return self

    @property
    def has_lost(self) -> bool:
        return (self.root / THINNED).exists()

    def is_gone(self, item: Item) -> bool:
        """Of pictures that were encoded anew; others lie outside of the corpus."""
        file = item.file
        return file is not None and bool(item.origin.url) and not (self.root / file.path).is_file()

    def __call__(self) -> Callable[[Item], Outcome]:
        return partial(measured, root=self.root, settings=self.settings)


def measured(item: Item, *, root: Path, settings: OpenSettings) -> Outcome:
    """The item with its file and fingerprint, or why it is not taken."""
    name = item.file.path if item.file is not None else item.origin.path
    if not name:
        return _reject(item, OpenReason.NO_FILE, item.origin.url)
    try:
        picture, data = _opened(item, root, name)
    except (ImageError, NotFoundError) as error:
        return _reject(item, OpenReason.CANNOT_OPEN, str(error))
    except OSError as error:
        return _reject(item, OpenReason.CANNOT_OPEN, f"{error.strerror or type(error).__name__}: {name}")
    short, long = min(picture.size), max(picture.size)
    if short < settings.min_side:
        return _reject(item, OpenReason.TOO_SMALL, f"{short} pixels, at least {settings.min_side} are wanted")
    if long > settings.max_ratio * short:
        detail = f"{long} x {short} pixels, at most {settings.max_ratio:g} to 1 is wanted"
        return _reject(item, OpenReason.TOO_LONG, detail)
    original = hashlib.sha256(data).hexdigest() if item.origin.url else ""
    if item.origin.url:
        name, picture, data = _encoded(picture, data, root, settings)
    file = PictureFile(
        path=name,
        sha256=hashlib.sha256(data).hexdigest(),
        width=picture.width,
        height=picture.height,
        bytes=len(data),
        original_sha256=original,
    )
    # Without the stamp: a file that was touched and is the same changes nothing behind this stage.
    origin = replace(item.origin, stamp="", member=None)
    return replace(item, origin=origin, file=file, fingerprint=fingerprint(picture))


def _opened(item: Item, root: Path, name: str) -> tuple[Image, bytes]:
    """The picture of an item and the bytes that it came as. Raises ImageError, NotFoundError, OSError."""
    member = item.origin.member
    if item.file is not None or member is None:
        return open_image(root / name, called=name), (root / name).read_bytes()
    with (root / name).parent.open("rb") as tar:
        tar.seek(member.offset)
        data = tar.read(min(member.bytes, Limits().max_bytes + 1))  # which open_image refuses
    return open_image(data, called=name), data


def _encoded(picture: Image, original: bytes, root: Path, settings: OpenSettings) -> tuple[str, Image, bytes]:
    """Name, pixels and bytes of a picture written anew; the name is the hash of what was fetched."""
    import io

    from PIL import Image as Pillow

    if max(picture.size) > settings.max_side:
        scale = settings.max_side / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Pillow.Resampling.LANCZOS)
    lossy = original[:3] == b"\xff\xd8\xff" or original[8:12] in (b"WEBP", b"avif")
    held = io.BytesIO()
    if lossy:
        picture.save(
            held, "JPEG", quality=settings.quality, subsampling=0
        )  # coloured text needs whole chroma
    else:
        picture.save(held, "PNG")
    digest = hashlib.sha256(original).hexdigest()
    name = Path(FOLDER) / digest[:2] / (digest + (".jpg" if lossy else ".png"))
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")  # nodes of a cluster share process ids
    aside.write_bytes(held.getvalue())
    aside.replace(target)
    with Pillow.open(io.BytesIO(held.getvalue())) as kept:  # as everybody behind this stage will see it
        return name.as_posix(), kept.convert("RGB"), held.getvalue()


def fingerprint(picture: Image) -> Fingerprint:
    """Hash of the upright RGB pixels, 256 bits that edited copies nearly share, and a small grey copy.

    The bits say which of the slowest waves of the grey picture (cosine transform, the constant one left out
    of the median) are above their median, as in the perceptual hash of Zauner (2010), with 256 bits for his
    64: two quote cards of one template differ in 3 bits of 64.
    """
    import numpy as np
    from PIL import Image as Pillow

    from llavar.corpus.likeness import above_median, content, cosines

    exact = hashlib.sha256(f"{picture.mode} {picture.size} ".encode())
    exact.update(picture.tobytes())
    grey = picture.convert("L")
    small = grey.resize((_SIDE, _SIDE), Pillow.Resampling.LANCZOS, reducing_gap=3.0)
    waves = cosines(_SIDE)
    bits = above_median((waves @ np.asarray(small, dtype=np.float64) @ waves.T).ravel())
    packed = np.packbits(bits).tobytes().hex()
    return Fingerprint(pixels=exact.hexdigest(), perceptual=packed, content=content(grey))


def distance(one: str, other: str) -> int:
    """In how many bits two perceptual fingerprints differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def _reject(item: Item, reason: OpenReason, detail: str) -> Reject:
    return Reject(id=item.id, stage=STAGE, reason=reason, detail=detail)
