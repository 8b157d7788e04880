"""A picture in tiles: the overview, then the cells of a larger picture, in order."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavar import images
from llavar.errors import ConfigError, ImageError
from llavar.images import MOST_TILES, WHOLE, Tiles, Transform


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("transform", Transform)
@pytest.mark.parametrize("shape", [(50, 30), (30, 50), (40, 40), (7, 90)])
def test_one_view_is_the_picture_as_it_always_was(transform: Transform, shape: tuple[int, int]):
    image = noise(*shape)
    (only,) = images.view_pixels(image, tiles=WHOLE, transform=transform, size=16)
    assert np.array_equal(only, images.pixels(image, transform=transform, size=16))


@pytest.mark.parametrize("transform", Transform)
def test_the_overview_comes_first_and_then_the_cells_row_by_row(transform: Transform):
    image = noise(53, 38)
    found = images.view_pixels(image, tiles=Tiles(rows=2, columns=2), transform=transform, size=16)
    large = images.pixels(image, transform=transform, size=32)
    by_hand = [
        images.pixels(image, transform=transform, size=16),
        large[:, :16, :16],
        large[:, :16, 16:],
        large[:, 16:, :16],
        large[:, 16:, 16:],
    ]
    assert found.dtype == np.float32
    assert np.array_equal(found, np.stack(by_hand))


@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    transform=st.sampled_from(list(Transform)),
)
def test_cells_put_together_are_the_large_picture(
    width: int, height: int, rows: int, columns: int, transform: Transform
):
    image, tiles = noise(width, height), Tiles(rows=rows, columns=columns)
    found = images.view_pixels(image, tiles=tiles, transform=transform, size=8)
    assert found.shape == (tiles.views, 3, 8, 8)
    if tiles.views > 1:
        lines = [np.concatenate(found[1 + r * columns : 1 + (r + 1) * columns], axis=2) for r in range(rows)]
        large = images.view(image, transform=transform, size=(8 * columns, 8 * rows))
        assert np.array_equal(np.concatenate(lines, axis=1), images.normalize(large))


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 3),
    columns=st.integers(2, 3),
    overlap=st.integers(1, 50),
    size=st.integers(4, 30),
    transform=st.sampled_from(list(Transform)),
)
def test_cells_that_overlap_share_what_they_say(
    rows: int, columns: int, overlap: int, size: int, transform: Transform
):
    tiles, image = Tiles(rows=rows, columns=columns, overlap=overlap), noise(61, 47)
    width, height = tiles.extent(size)
    shared = round(size * overlap / 100)
    assert (width, height) == (columns * size - (columns - 1) * shared, rows * size - (rows - 1) * shared)
    whole = images.normalize(images.view(image, transform=transform, size=(width, height)))
    found = images.view_pixels(image, tiles=tiles, transform=transform, size=size)[1:]
    for (left, top), cell in zip(tiles.corners(size), found, strict=True):
        assert np.array_equal(cell, whole[:, top : top + size, left : left + size])
    assert tiles.corners(size)[-1] == (width - size, height - size)
    if shared:
        assert np.array_equal(found[0][:, :, -shared:], found[1][:, :, :shared])


def test_a_wide_grid_keeps_the_shape_of_what_is_shown():
    """A wide picture fills a grid of one row with less around it than a square has."""
    image = Image.new("RGB", (40, 20), "white")
    square = np.asarray(images.view(image, transform="pad", size=16))
    wide = np.asarray(images.view(image, transform="pad", size=(32, 16)))
    assert 0.3 < (square == 255).all(axis=2).mean() <= 0.5
    assert (wide == 255).all()
    fitted = np.asarray(images.view(image, transform="fit", size=(16, 32)))
    assert (fitted[:8] == 255).all()
    assert not fitted[9:].any()


def test_limits_hold_for_tiles_and_a_broken_picture_is_an_error():
    data = io.BytesIO()
    noise(20, 20).save(data, format="PNG")
    with pytest.raises(ImageError, match="megapixels"):
        images.views(
            data.getvalue(),
            tiles=Tiles(rows=2, columns=2),
            transform="pad",
            size=8,
            limits=images.Limits(max_pixels=100),
        )
    with pytest.raises(ConfigError, match="1 to 4096 pixels"):
        images.views(noise(4, 4), tiles=Tiles(rows=8, columns=8), transform="pad", size=1000)


def test_tiles_are_written_as_rows_and_columns():
    assert Tiles.parse("2x3") == Tiles(rows=2, columns=3)
    assert str(Tiles(rows=2, columns=3)) == "2x3"
    assert Tiles.parse("2x3+17%") == Tiles(rows=2, columns=3, overlap=17)
    assert str(Tiles(rows=2, columns=3, overlap=17)) == "2x3+17%"
    assert Tiles.parse("1x2+10%").views == 3
    assert (WHOLE.views, Tiles.parse("2x2").views, Tiles.parse("1x2").views) == (1, 5, 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2",
        "2x",
        "x2",
        "2 x 2",
        "2x2x2",
        "-1x2",
        "0x2",
        "2x9",
        "9999x1",
        "٢x٢",
        "2x2+17",
        "2x2+%",
        "2x2-5%",
    ],
)
def test_other_tiles_are_refused_with_what_is_possible(text: str):
    with pytest.raises(ConfigError, match="ROWSxCOLUMNS"):
        Tiles.parse(text)
    assert MOST_TILES == 8


def test_how_much_tiles_may_overlap():
    with pytest.raises(ConfigError, match="tiles overlap by 51 %; give 0 to 50"):
        Tiles.parse("2x2+51%")
    with pytest.raises(ConfigError, match="one tile has no neighbour"):
        Tiles.parse("1x1+10%")
