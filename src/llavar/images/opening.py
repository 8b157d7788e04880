"""Open a picture file, which is hostile input: an RGB picture comes, or one sentence, for every file."""

from __future__ import annotations

import importlib
import io
import os
import struct
import threading
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from llavar.errors import ConfigError, ImageError, NotFoundError

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""What :func:`open_image` opens: a path, the bytes of a file, or an open binary file."""

_PLUGINS: Mapping[str, str] = {
    "JPEG": "PIL.JpegImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "PPM": "PIL.PpmImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
}
FORMATS = tuple(_PLUGINS)
"""The only decoders that ever see a file. EPS, for one, would start another program."""

_LOOKALIKES = (
    ((b"<!doctype html", b"<html", b"<head", b"<body"), "is an HTML page and no picture; download it again"),
    ((b"<svg", b"<?xml"), "is SVG or other XML and no pixel picture; export it as PNG"),
    ((b"%pdf",), "is a PDF document; export its pages as PNG"),
    ((b"version https://git-lfs",), "is a Git LFS pointer and no picture; run `git lfs pull`"),
    ((b"pk\x03\x04", b"\x1f\x8b"), "is an archive and no picture; unpack it"),
)
_ORIENTATION_TAG = 0x0112
_UPRIGHT: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_LYING = (5, 6, 7, 8)
"""Orientations that exchange width and height."""

_warnings_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a picture may cost before it is refused. 12,000 x 9,000 pixels pass the defaults."""

    max_pixels: int = 200_000_000
    """Width times height."""
    max_bytes: int = 256 * 2**20
    """Length of the file."""
    max_side: int = 100_000
    """The longer edge: resampling needs memory in proportion to it, however thin the picture is."""

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes", "max_side"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Limits.{name} is {getattr(self, name)}, but must be at least 1.")


_LIMITS = Limits()


def open_image(
    source: Source,
    *,
    limits: Limits = _LIMITS,
    exif: bool = True,
    reduced_to: int | None = None,
    called: str | None = None,
) -> Image.Image:
    """Any picture as 8-bit RGB, upright, detached from its file and without metadata.

    Alpha is dropped and the first frame of an animation taken, as ``convert("RGB")`` of the original does.
    Pictures of more than 8 bits are scaled to 8. An EXIF orientation that cannot be read counts as upright.

    Args:
        source: A path, the bytes of a picture file, or an open binary file (read from where it stands).
        limits: Refuse pictures beyond these.
        exif: Turn the picture upright by its EXIF orientation. The original ignored it: False is the parity
            switch. (TIFF is always upright: Pillow turns it while decoding, for the original too.)
        reduced_to: Decode a JPEG at 1/2, 1/4 or 1/8 if both sides stay at least this long. Several times
            faster on photographs; other pixels than a full decode, so never where parity matters.
        called: What sentences call it, where a path is not to stand in them; also for bytes.

    Raises:
        NotFoundError: Nothing is at that path.
        ImageError: A folder, no picture, damaged, or beyond a limit; one sentence.
    """
    if reduced_to is not None and reduced_to < 1:
        raise ConfigError(f"reduced_to is {reduced_to}, but must be at least 1 pixel, or None.")
    name, data = _read(source, limits, called)
    with _explained(name):
        return _decode(name, data, limits, exif=exif, reduced_to=reduced_to)


def image_size(source: Source, *, limits: Limits = _LIMITS) -> tuple[int, int]:
    """Width and height of what :func:`open_image` gives, from the head of the file where that says it.

    A file that is cut short behind its head still has a size.

    Raises:
        NotFoundError, ImageError: as :func:`open_image`.
    """
    name, data = _read(source, limits)
    with _explained(name):
        try:
            image = _identify(name, data)
        except ImageError:
            raise
        except ValueError:  # a PNG that opens without its comments
            return _decode(name, data, limits, exif=True, reduced_to=None).size
        _check_size(name, image.size, limits)
        if image.format == "TIFF":  # Pillow turns it while it decodes
            return _decode(name, data, limits, exif=True, reduced_to=None).size
        width, height = image.size
        return (height, width) if _orientation(image) in _LYING else (width, height)


@contextmanager
def _explained(name: str) -> Generator[None]:
    """Whatever goes wrong with the bytes of a picture ends in one sentence."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        reason = str(error).split(",")[0]
        raise ImageError(f"{name} goes beyond Pillow's own limit ({reason}); scale it down.") from error
    except MemoryError as error:
        raise ImageError(f"{name} needs more memory than there is; scale it down.") from error
    except Exception as error:  # decoders answer hostile bytes with nearly any exception
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ImageError(f"{name} is damaged or cut short ({reason}); get the file again.") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture that is open already as 8-bit RGB: alpha dropped, more than 8 bits scaled to 8."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_to_8_bits(np.asarray(image, dtype=np.float32)))
    # Pillow warns about transparency beside a palette, which never changes what convert("RGB") gives.
    with _quiet() if "transparency" in image.info else nullcontext():
        rgb = image.convert("RGB")
    # What is left describes the file (its profile, its orientation) and would be wrong if saved again.
    rgb.info = {}
    return rgb


def _read(source: Source, limits: Limits, called: str | None = None) -> tuple[str, bytes]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = _quoted(called) if called else "the picture given as bytes", bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        name, data = _read_path(source, limits, called)
    else:
        name = "the picture in the open file"
        data = source.read(limits.max_bytes + 1)
        if not isinstance(data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ImageError(f"{name} came as {type(data).__name__}; open the file in binary mode ('rb').")
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); get the file again.")
    if len(data) > limits.max_bytes:
        raise ImageError(
            f"{name} has more than {limits.max_bytes / 2**20:,.1f} MiB, the limit; "
            "scale it down or raise max_bytes."
        )
    return name, data


def _read_path(source: str | os.PathLike[str], limits: Limits, called: str | None) -> tuple[str, bytes]:
    """Its name for sentences and its bytes, at most one more than the limit.

    Only regular files are read: a pipe or a device could block forever.
    """
    path, name = Path(source), _quoted(called or os.fspath(source))
    if os.fspath(source).lower().startswith(("http://", "https://")):
        raise ImageError(f"{name} is a URL and no path; fetch it and give the bytes.")
    try:
        if path.is_dir():
            raise ImageError(f"{name} is a folder; name one picture in it.")
        if path.exists() and not path.is_file():
            raise ImageError(f"{name} is no regular file (a pipe or a device); copy the picture to a file.")
        with path.open("rb") as file:
            return name, file.read(limits.max_bytes + 1)
    except ImageError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"There is no picture at {name}; check the path.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{name} cannot be read ({reason}); check the path and its permissions.") from error


def _decode(
    name: str, data: bytes, limits: Limits, *, exif: bool, reduced_to: int | None, whole: bool = True
) -> Image.Image:
    image = None
    try:
        image = _identify(name, data)
        _check_size(name, image.size, limits)
        if reduced_to is not None:
            image.draft(None, (reduced_to, reduced_to))
        _load(image)
    except ValueError as error:
        # Pillow refuses a PNG whose comments unpack to megabytes. The pixels are sound: leave the
        # comments out.
        if not whole or isinstance(error, ImageError) or not data.startswith(b"\x89PNG"):
            raise
        return _decode(name, _without_comments(data), limits, exif=exif, reduced_to=reduced_to, whole=False)
    turn = _UPRIGHT.get(_orientation(image)) if exif else None
    rgb = to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _identify(name: str, data: bytes) -> ImageFile.ImageFile:
    """The header read, not one pixel decoded.

    ``Image.open`` is not used: its pixel limit is a global of the process and below ours, and to raise it
    here would raise it for other threads. The decoders are public, and so is the registry of them.
    """
    failure = ""
    for kind, module in _PLUGINS.items():
        with suppress(ImportError):  # Pillow before 11.3 has no AVIF
            importlib.import_module(module)
        if kind not in Image.OPEN:
            continue
        factory, accepts = Image.OPEN[kind]
        if accepts is None or accepts(data[:16]) is not True:
            continue
        try:
            with _quiet():
                image = factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            failure = f"is no sound {kind} file ({str(error)[:120] or 'its header is damaged'}); get it again"
            continue
        return image
    raise ImageError(f"{name} {failure or _lookalike(data)}.")


def _lookalike(data: bytes) -> str:
    """Why bytes that no decoder knows are no picture, and what to do."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for marks, sentence in _LOOKALIKES:
        if start.startswith(marks):
            return sentence
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheif"):
        return "is a HEIC photograph, which is not supported; convert it to JPEG"
    return f"is no picture of a supported kind ({', '.join(FORMATS)}): it begins with {data[:8]!r}"


def _check_size(name: str, size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} is {width:,} x {height:,}, {width * height / 1e6:,.1f} megapixels, and the limit is "
            f"{limits.max_pixels / 1e6:,.1f}; scale it down or raise max_pixels."
        )
    if max(size) > limits.max_side:
        raise ImageError(
            f"{name} is {width:,} x {height:,} and no side may be longer than {limits.max_side:,} pixels; "
            "cut it into parts or raise max_side."
        )


def _load(image: ImageFile.ImageFile) -> None:
    # Only TIFF warns while it decodes; the others need no lock, so threads decode side by side.
    if image.format == "TIFF":
        with _quiet():
            image.load()
    else:
        image.load()


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF orientation 1 to 8; 1, upright, where there is none or it cannot be read."""
    try:
        with _quiet():
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - EXIF is a free-form block: damage there must not cost the picture
        return 1
    return value if isinstance(value, int) else 1


@contextmanager
def _quiet() -> Generator[None]:
    """No Pillow warnings inside. Filters are global to the process, so one thread at a time changes them."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _without_comments(data: bytes) -> bytes:
    """A PNG without its text chunks; what follows a damaged chunk is kept, for the decoder to judge."""
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if data[at + 4 : at + 8] not in (b"tEXt", b"zTXt", b"iTXt"):
            kept.append(data[at:end])
        at = end
    return b"".join(kept) + data[at:]


def _to_8_bits(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey of unknown range: 0..1, 0..255 and 0..65535 as they are meant, others by their own range."""
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high, factor = float(values.min()), float(values.max()), 1.0
    if low < 0 or high > 65535:
        factor = 255 / max(high - low, 1e-30)
    elif high > 255:
        low, factor = 0.0, 1 / 257
    elif high <= 1 and not np.array_equal(values, np.round(values)):
        low, factor = 0.0, 255.0
    else:
        low = 0.0
    return np.clip(np.round((values.astype(np.float64) - low) * factor), 0, 255).astype(np.uint8)


def _quoted(path: str) -> str:
    """A path for a sentence: control characters escaped, and its end kept if it is long."""
    return repr(path if len(path) <= 200 else "..." + path[-197:])
