"""The size of a picture from the head of its file: that of the picture when it is opened."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from llavar import images
from llavar.errors import ImageError, NotFoundError


def saved(kind: str, size: tuple[int, int] = (50, 20), *, orientation: int = 1) -> bytes:
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, "red").save(out, kind, exif=exif.tobytes())
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_it_is_that_of_the_opened_picture(kind: str, orientation: int) -> None:
    data = saved(kind, orientation=orientation)
    assert images.image_size(data) == images.open_image(data).size


def test_pictures_that_lie_are_turned(tmp_path: Path) -> None:
    (tmp_path / "lying.jpg").write_bytes(saved("JPEG", orientation=6))
    assert images.image_size(tmp_path / "lying.jpg") == (20, 50)


def test_comments_that_pillow_refuses_cost_no_picture() -> None:
    info, out = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("note", "x" * (80 << 20), zip=True)
    Image.new("RGB", (7, 5)).save(out, "PNG", pnginfo=info)
    assert images.image_size(out.getvalue()) == (7, 5)


def test_a_head_is_enough() -> None:
    assert images.image_size(saved("PNG", (600, 400))[:200]) == (600, 400)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        images.image_size(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="is a folder"):
        images.image_size(tmp_path)
    with pytest.raises(ImageError, match="empty"):
        images.image_size(b"")
    with pytest.raises(ImageError, match="HTML"):
        images.image_size(b"<!doctype html><p>not found</p>")
    with pytest.raises(ImageError, match="megapixels"):
        images.image_size(saved("PNG"), limits=images.Limits(max_pixels=999))
