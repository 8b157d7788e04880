"""Pictures of every kind that users and crawls bring: a right answer or one sentence."""

from __future__ import annotations

import base64
import io
import os
import pickle
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from llavar import images
from llavar.errors import ConfigError, ImageError, LlavarError, NotFoundError
from llavar.images import Limits, Transform, opening

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# Stored as the wide (top row red green, bottom row blue white), seen upright after the turn.
STORED = ((RED, GREEN), (BLUE, WHITE))
UPRIGHT = {
    1: ((RED, GREEN), (BLUE, WHITE)),
    2: ((GREEN, RED), (WHITE, BLUE)),
    3: ((WHITE, BLUE), (GREEN, RED)),
    4: ((BLUE, WHITE), (RED, GREEN)),
    5: ((RED, BLUE), (GREEN, WHITE)),
    6: ((BLUE, RED), (WHITE, GREEN)),
    7: ((WHITE, GREEN), (BLUE, RED)),
    8: ((GREEN, WHITE), (RED, BLUE)),
}


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze(-1) if channels == 1 else values)


def quarters(width: int = 64, height: int = 32) -> Image.Image:
    small = Image.new("RGB", (2, 2))
    small.putdata([colour for row in STORED for colour in row])
    return small.resize((width, height), Image.Resampling.NEAREST)


def corners(image: Image.Image) -> tuple[tuple[object, ...], ...]:
    width, height = image.size
    return tuple(
        tuple(image.getpixel((x, y)) for x in (width // 4, width - 1 - width // 4))
        for y in (height // 4, height - 1 - height // 4)
    )


def with_orientation(image: Image.Image, value: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(image, kind, exif=exif.tobytes())


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def claimed_png(width: int, height: int) -> bytes:
    """A few bytes that claim to be a picture of that size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def refusal(source: images.Source, **options: object) -> str:
    with pytest.raises(ImageError) as caught:
        images.open_image(source, **options)  # pyright: ignore[reportArgumentType]
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert len(sentence) < 400
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    return sentence


def answered(data: bytes) -> bool:
    """Whether the answer is an RGB picture or one of our sentences; other exceptions pass through."""
    try:
        return images.open_image(data, limits=Limits(max_pixels=1_000_000)).mode == "RGB"
    except LlavarError as error:
        return str(error).endswith(".")


# ------------------------------------------------------------------------------------ what can be opened


def test_path_text_bytes_and_file_give_the_same_picture(tmp_path: Path) -> None:
    picture, path = noise(9, 7), tmp_path / "picture.png"
    picture.save(path)
    data = path.read_bytes()
    for source in (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data)):
        opened = images.open_image(source)
        assert (opened.mode, opened.size, opened.tobytes()) == ("RGB", (9, 7), picture.tobytes())
    with path.open("rb") as file:
        assert images.open_image(file).tobytes() == picture.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "JPEG", "WEBP", "AVIF"])
def test_formats(kind: str) -> None:
    if kind not in Image.registered_extensions().values():
        pytest.skip(f"this build of Pillow has no {kind}")
    opened = images.open_image(encoded(Image.new("RGB", (20, 10), (200, 40, 90)), kind))
    assert opened.size == (20, 10)
    assert np.abs(np.asarray(opened).astype(int) - (200, 40, 90)).max() <= 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    kind = "TIFF" if mode in ("CMYK", "F") else "PNG"
    opened = images.open_image(encoded(Image.new(mode, (5, 4)), kind))
    assert (opened.mode, opened.size) == ("RGB", (5, 4))


def test_alpha_is_dropped_and_not_blended() -> None:
    transparent = Image.new("RGBA", (3, 3), (10, 20, 30, 0))
    assert images.open_image(encoded(transparent)).getpixel((1, 1)) == (10, 20, 30)


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(256))])
def test_palette_with_and_without_alpha_equals_plain_conversion(transparency: int | bytes | None) -> None:
    picture = noise(16, 16).quantize(200)
    options = {} if transparency is None else {"transparency": transparency}
    data = encoded(picture, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert images.open_image(data).tobytes() == expected.tobytes()


def test_cmyk_jpeg_has_its_colours() -> None:
    picture = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    red, green, blue = images.open_image(encoded(picture, "JPEG", quality=95)).getpixel((8, 8))
    assert red > 230
    assert max(green, blue) < 30


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    opened = images.open_image(encoded(Image.fromarray(ramp)))
    assert [opened.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


def test_sixteen_bit_grey_keeps_the_picture_that_the_caller_has() -> None:
    picture = Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))
    picture.info["note"] = "mine"
    assert images.to_rgb(picture).getpixel((1, 0)) == WHITE
    assert (picture.mode, picture.info) == ("I;16", {"note": "mine"})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 128.0, 255.0], [0, 128, 255]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), float("inf"), 0.5], [0, 0, 128]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
        ([7.0, 7.0, 7.0], [7, 7, 7]),
    ],
)
def test_float_grey_of_any_range(values: list[float], expected: list[int]) -> None:
    picture = Image.fromarray(np.array([values], dtype=np.float32))
    opened = images.open_image(encoded(picture, "TIFF"))
    assert [opened.getpixel((x, 0))[0] for x in range(3)] == expected


def test_animation_gives_its_first_frame_whatever_the_file_is_called(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    path = tmp_path / "really_a_gif.jpg"
    path.write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert images.open_image(path).getpixel((4, 4)) == RED


def test_a_jpeg_of_several_pictures_gives_its_first() -> None:
    data = encoded(quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 32))])
    assert np.abs(np.asarray(images.open_image(data)).astype(int) - np.asarray(quarters())).mean() < 10


def test_twelve_thousand_by_nine_thousand_is_accepted() -> None:
    opened = images.open_image(encoded(Image.new("1", (12_000, 9_000), 1)))
    assert opened.size == (12_000, 9_000)
    square = images.view(opened, transform="pad", size=96)
    assert square.getpixel((48, 48)) == WHITE
    assert square.getpixel((48, 2)) == images.PAD_COLOUR


def test_a_jpeg_can_be_decoded_smaller_but_only_when_asked() -> None:
    data = encoded(quarters(800, 400), "JPEG")
    assert images.open_image(data).size == (800, 400)
    assert images.open_image(data, reduced_to=100).size == (200, 100)
    assert images.open_image(data, reduced_to=5000).size == (800, 400)
    assert images.open_image(encoded(quarters(800, 400)), reduced_to=100).size == (800, 400)
    with pytest.raises(ConfigError, match="reduced_to is 0"):
        images.open_image(data, reduced_to=0)


def test_nothing_of_the_file_stays_on_the_picture() -> None:
    opened = images.open_image(with_orientation(quarters(), 6, "JPEG"))
    assert opened.info == {}
    assert not opened.getexif()


# ------------------------------------------------------------------------------------------------- EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_baked_in(orientation: int) -> None:
    data = with_orientation(quarters(), orientation)
    upright = images.open_image(data)
    assert corners(upright) == UPRIGHT[orientation]
    assert upright.size == ((64, 32) if orientation <= 4 else (32, 64))
    assert corners(images.open_image(data, exif=False)) == STORED


def test_a_rotated_tiff_is_turned_once() -> None:
    data = with_orientation(quarters(), 6, "TIFF")
    assert corners(images.open_image(data)) == UPRIGHT[6]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    assert corners(images.open_image(with_orientation(quarters(), orientation))) == STORED


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x07\0\0\0\x01\0",
        b"Exif\0\0garbage garbage garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x02\0\xff\xff\xff\x7f\0\0\0\0" * 40,
    ],
)
def test_broken_exif_does_not_cost_the_picture(exif: bytes) -> None:
    assert images.open_image(encoded(quarters(), "JPEG", exif=exif)).size == (64, 32)
    assert images.open_image(encoded(quarters(), "WEBP", exif=exif)).size == (64, 32)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_any_exif_block_leaves_a_picture(block: bytes) -> None:
    data = encoded(Image.new("RGB", (6, 4)), "JPEG", exif=b"Exif\0\0" + block)
    assert sorted(images.open_image(data).size) == [4, 6]


# ---------------------------------------------------------------------------------------------- refusals


def test_missing_paths(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    for path in (tmp_path / "no.png", tmp_path / "no" / "no.png", tmp_path / "file.txt" / "no.png"):
        with pytest.raises(NotFoundError, match=r"There is no picture at .*; check the path\.$") as caught:
            images.open_image(path)
        assert isinstance(caught.value, FileNotFoundError)


def test_a_dangling_link_is_missing(tmp_path: Path) -> None:
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "gone.png")
    with pytest.raises(NotFoundError):
        images.open_image(link)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert "no regular file" in refusal(pipe)
    assert "no regular file" in refusal("/dev/zero")
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert "cannot be read" in refusal(loop)
    assert "cannot be read" in refusal("x" * 5000 + ".png")
    assert "cannot be read" in refusal("null\0byte.png")
    assert "is a URL" in refusal("https://example.com/cat.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_forbidden_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(noise(2, 2)))
    path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_control_characters_in_a_path_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\nb.png"
    path.write_bytes(b"no picture")
    assert "\x1b" not in refusal(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html><title>404</title>", "HTML page"),
        (b"\xef\xbb\xbf\n  <HTML>", "HTML page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04........", "archive"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"just some words", "no picture of a supported kind"),
        (b"\xff", "no picture of a supported kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a supported kind"),
        (b"\x89PNG\r\n\x1a\n", "no sound PNG"),
        (b"GIF89a", "no sound GIF"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"BM", "BMP"),
        (b"P6 x x x", "PPM"),
        (b"II*\0\xff\xff\xff\xff", "TIFF"),
    ],
)
def test_what_is_no_picture(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "named.png"
    path.write_bytes(data)
    sentence = refusal(path)
    assert "named.png" in sentence
    assert words in sentence or "damaged" in sentence
    if data:
        assert "given as bytes" in refusal(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_files(kind: str, share: float) -> None:
    data = encoded(noise(64, 64), kind)
    refusal(data[: int(len(data) * share)])


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    st.booleans(),
)
def test_damaged_bytes_give_a_picture_or_one_of_our_errors(
    kind: str, damage: list[tuple[int, int]], in_header: bool
) -> None:
    data = bytearray(encoded(noise(12, 9), kind))
    for position, value in damage:
        data[position % (min(len(data), 64) if in_header else len(data))] = value
    assert answered(bytes(data))


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\0", b"BM", b"P5\n"]),
    st.binary(max_size=300),
)
def test_arbitrary_bytes_never_raise_anything_else(magic: bytes, rest: bytes) -> None:
    assert answered(magic + rest)


def test_text_files_are_named() -> None:
    assert "binary mode" in refusal(io.StringIO("text"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("size", [(50_000, 50_000), (14_143, 14_143), (2**31 - 1, 1)])
def test_decompression_bombs_are_refused_by_their_header(size: tuple[int, int]) -> None:
    sentence = refusal(claimed_png(*size))
    assert f"{size[0]:,} x {size[1]:,}" in sentence
    assert "200.0" in sentence
    assert "max_pixels" in sentence


def test_a_gif_with_a_frame_beyond_its_screen() -> None:
    data = bytearray(encoded(Image.new("P", (4, 4)), "GIF"))
    at = data.index(b"\x2c", 13 + 3 * 2 ** ((data[10] & 7) + 1)) + 5
    data[at : at + 4] = struct.pack("<HH", 65_535, 65_535)
    refusal(bytes(data))


def test_limits_are_those_that_are_given() -> None:
    data = encoded(noise(20, 10))
    assert images.open_image(data, limits=Limits(max_pixels=200, max_side=20, max_bytes=len(data))).size == (
        20,
        10,
    )
    assert "max_pixels" in refusal(data, limits=Limits(max_pixels=199))
    assert "max_side" in refusal(data, limits=Limits(max_side=19))
    assert "max_bytes" in refusal(data, limits=Limits(max_bytes=len(data) - 1))
    assert "max_bytes" in refusal(io.BytesIO(data), limits=Limits(max_bytes=10))
    with pytest.raises(ConfigError, match=r"max_side is 0"):
        Limits(max_side=0)


def test_a_long_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert "max_bytes" in refusal(path, limits=Limits(max_bytes=1000))


@pytest.mark.parametrize("packed", [True, False])
def test_huge_comments_in_a_png_are_left_out(packed: bool) -> None:
    comments = PngImagePlugin.PngInfo()
    for index in range(1 if packed else 70):
        comments.add_text(f"Comment {index}", "x" * 2**20 * (20 if packed else 1), zip=packed)
    picture = noise(8, 6)
    data = encoded(picture, pnginfo=comments)
    with pytest.raises(ValueError, match=r"too large|Too much memory"):
        Image.open(io.BytesIO(data)).load()
    assert images.open_image(data).tobytes() == picture.tobytes()


def test_damage_in_a_png_with_huge_comments_is_still_found() -> None:
    comments = PngImagePlugin.PngInfo()
    comments.add_text("Comment", "x" * 2**21, zip=True)
    data = encoded(noise(64, 64), pnginfo=comments)
    assert "damaged" in refusal(data[:-2000])


def test_memory_that_runs_out_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(opening, "to_rgb", fail)
    assert "more memory than there is" in refusal(encoded(noise(2, 2)))


# ------------------------------------------------------------------------------------------ global state


def test_pillow_and_warnings_are_left_as_they_were() -> None:
    before = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    pictures = [
        encoded(noise(16, 16).quantize(16), transparency=bytes(16)),
        encoded(quarters(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff"),
        encoded(Image.new("1", (10_000, 9_000))),  # beyond the size at which Pillow warns
        b"II*\0\x08\0\0\0\xff\xff" + b"\x01" * 40,
        b"",
    ]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in pictures:
            with suppress(ImageError):
                images.open_image(data)
        assert [str(one.message) for one in caught] == []
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_threads_leave_no_filter_behind() -> None:
    before, start = list(warnings.filters), threading.Barrier(8)
    data = encoded(noise(16, 16).quantize(16), transparency=bytes(16))

    def work(_: int) -> int:
        start.wait()
        return sum(images.open_image(data).width for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [320] * 8
    assert list(warnings.filters) == before


# -------------------------------------------------------------------------------------------- transforms


def straightforward(image: Image.Image, transform: str, size: int) -> Image.Image:
    """The three transforms as one would first write them, whatever they cost."""
    width, height = image.size
    if transform == "pad":
        side = max(image.size)
        canvas = Image.new("RGB", (side, side), images.PAD_COLOUR)
        canvas.paste(image, ((side - width) // 2, (side - height) // 2))
        return canvas.resize((size, size), Image.Resampling.BICUBIC)
    if transform == "fit":
        canvas = Image.new("RGB", (size, size), (0, 0, 0))
        shape = (
            (size, int(size / (width / height))) if width > height else (int(size * (width / height)), size)
        )
        canvas.paste(image.resize(shape, Image.Resampling.BICUBIC), (0, 0))
        return canvas
    long = int(size * max(width, height) / min(width, height))
    resized = image.resize((size, long) if width <= height else (long, size), Image.Resampling.BICUBIC)
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    return resized.crop((left, top, left + size, top + size))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from(["pad", "fit", "crop"]),
    st.sampled_from([24, 31, 96]),
)
def test_transforms_equal_the_straightforward_ones(
    width: int, height: int, transform: str, size: int
) -> None:
    if max(width, height) / min(width, height) > size:
        return  # there the original stops with an error
    picture = noise(width, height, seed=width * 1000 + height)
    expected = straightforward(picture, transform, size)
    assert images.view(picture, transform=transform, size=size).tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(700, 40), (40, 700), (600, 599), (257, 256)])
def test_padding_in_strips_equals_padding_at_once(shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    expected = straightforward(picture, "pad", 48)
    assert images.view(picture, transform=Transform.PAD, size=48).tobytes() == expected.tobytes()


@pytest.mark.parametrize("transform", Transform)
@pytest.mark.parametrize("shape", [(1, 1), (100_000, 1), (1, 100_000), (30_000, 2), (2, 30_000), (97, 1)])
def test_extreme_shapes(shape: tuple[int, int], transform: Transform) -> None:
    found = images.view(Image.new("RGB", shape, (9, 99, 199)), transform=transform, size=96)
    assert found.size == (96, 96)
    assert (9, 99, 199) in {colour for _, colour in found.getcolors(96 * 96)} or transform is Transform.PAD


def test_what_surrounds_the_picture() -> None:
    wide = Image.new("RGB", (200, 100), RED)
    padded = images.view(wide, transform="pad", size=96)
    assert [padded.getpixel((48, y)) for y in (4, 48, 91)] == [(122, 116, 104), RED, (122, 116, 104)]
    fitted = images.view(wide, transform="fit", size=96)
    assert [fitted.getpixel((48, y)) for y in (4, 40, 56, 91)] == [RED, RED, (0, 0, 0), (0, 0, 0)]
    assert images.view(wide, transform="crop", size=96).getcolors() == [(96 * 96, RED)]


def test_a_short_side_of_380_from_570_by_380_is_not_rounded_twice() -> None:
    fitted = images.view(Image.new("RGB", (570, 380), WHITE), transform="fit", size=336)
    assert np.asarray(fitted).any(axis=(1, 2)).sum() == 224


def test_pixels_are_normalised_in_float32() -> None:
    picture = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3))
    found = images.pixels(picture, transform="crop", size=16)
    assert (found.shape, found.dtype, found.flags["C_CONTIGUOUS"]) == ((3, 16, 16), np.float32, True)
    values = (np.arange(256) * (1 / 255)).astype(np.float32)
    for channel in range(3):
        mean, deviation = np.float32(images.CLIP_MEAN[channel]), np.float32(images.CLIP_STD[channel])
        assert (found[channel].ravel() == (values - mean) / deviation).all()


def test_pixels_may_be_written_to_without_changing_the_next_ones() -> None:
    picture = noise(8, 8)
    first = images.pixels(picture, transform="crop", size=8)
    kept = first.copy()
    first[:] = 0
    assert (images.pixels(picture, transform="crop", size=8) == kept).all()


def test_a_file_and_the_opened_picture_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_orientation(quarters(), 6, "JPEG"))
    upright = images.pixels(images.open_image(path), transform="fit", size=24)
    assert (images.pixels(path, transform="fit", size=24) == upright).all()
    assert not np.array_equal(images.pixels(path, transform="fit", size=24, exif=False), upright)


def test_unknown_settings_name_the_choices() -> None:
    picture = noise(4, 4)
    with pytest.raises(ConfigError, match=r"'square' .* pad, fit, crop .*'square' is crop"):
        images.pixels(picture, transform="square", size=8)
    for size in (0, -1, 5000):
        with pytest.raises(ConfigError, match=f"image size is {size};"):
            images.view(picture, transform="pad", size=size)


# --------------------------------------------------------------------------------------------- data URIs


def decoded(uri: str) -> tuple[str, Image.Image]:
    head, _, body = uri.partition(",")
    return head, Image.open(io.BytesIO(base64.b64decode(body, validate=True)))


def test_data_uri_as_jpeg_and_png() -> None:
    picture = noise(300, 100)
    head, small = decoded(images.data_uri(picture, max_side=60, quality=80))
    assert (head, small.format, small.size) == ("data:image/jpeg;base64", "JPEG", (60, 20))
    head, exact = decoded(images.data_uri(picture, max_side=300, quality=None))
    assert (head, exact.tobytes()) == ("data:image/png;base64", picture.tobytes())
    assert picture.size == (300, 100)


def test_data_uri_takes_any_mode_and_never_enlarges() -> None:
    for mode in ("RGBA", "CMYK", "P", "L", "1"):
        _, found = decoded(images.data_uri(Image.new(mode, (7, 5))))
        assert found.size == (7, 5)


@pytest.mark.parametrize(("max_side", "quality"), [(0, 85), (10, 0), (10, 96)])
def test_data_uri_settings(max_side: int, quality: int) -> None:
    with pytest.raises(ConfigError, match="max_side is"):
        images.data_uri(noise(2, 2), max_side=max_side, quality=quality)
