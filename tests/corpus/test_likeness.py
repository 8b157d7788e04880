"""Copies whose edges differ are laid over each other, and similar texts find each other."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from llavar.corpus.likeness import (
    BITS,
    KEYS,
    SIDE,
    _not_flat,
    _spans,
    content,
    equal_rows,
    fewest_bits,
    keys_of,
    same_words,
)

KEYS_OF_HOURS = [1805164341815554842, 4708993229092910863]
"""The first two of the keys of "Open daily 9-17"."""


def drawn(seed: int, size: tuple[int, int] = (300, 240)) -> Image.Image:
    """Shapes up to the edges, on a ground that changes from left to right."""
    rng = random.Random(seed)
    image = Image.linear_gradient("L").rotate(90).resize(size)
    draw = ImageDraw.Draw(image)
    for _ in range(25):
        x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        draw.ellipse((x - 20, y - 12, x + 20, y + 12), fill=rng.randrange(256))
    return image


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Without these shares of the sides."""
    wide, high = image.size
    return image.crop(
        (round(left * wide), round(top * high), round(wide * (1 - right)), round(high * (1 - bottom)))
    )


def framed(image: Image.Image, width: int, shade: int = 0) -> Image.Image:
    found = Image.new("L", (image.width + 2 * width, image.height + 2 * width), shade)
    found.paste(image, (width, width))
    return found


def boxed(image: Image.Image) -> Image.Image:
    """Bars at two sides, as players of films set them."""
    found = Image.new("L", (2 * image.width, image.height), 255)
    found.paste(image, (image.width // 2, 0))
    return found


CUTS: list[Callable[[Image.Image], Image.Image]] = [
    lambda image: cut(image, 0.02, 0.02, 0.02, 0.02),
    lambda image: cut(image, 0.07, 0.0, 0.03, 0.01),
    lambda image: cut(image, 0.0, 0.0, 0.0, 0.09),
    lambda image: framed(image, 9),
    lambda image: framed(framed(image, 20, 255), 5),
    boxed,
    lambda image: cut(image.resize((200, 160)), 0.04, 0.05, 0.0, 0.06),
]


@pytest.mark.parametrize("edit", CUTS)
def test_what_was_cut_off_or_added_at_the_edges_does_not_count(edit: Callable[[Image.Image], Image.Image]):
    for seed in range(3):
        whole, copy = content(drawn(seed)), content(edit(drawn(seed)))
        assert fewest_bits(whole, copy, 10) <= 20
        assert fewest_bits(copy, whole, 10) == fewest_bits(whole, copy, 10)


def test_other_pictures_lie_far_away_however_they_are_moved():
    contents = [content(drawn(seed)) for seed in range(5)]
    found = [fewest_bits(one, other, 10) for one in contents for other in contents if one != other]
    assert min(found) > 60


def test_no_more_is_cut_off_than_is_allowed():
    whole, copy = content(drawn(1)), content(cut(drawn(1), 0.08, 0.08, 0.08, 0.08))
    assert fewest_bits(whole, copy, 10) <= 20 < fewest_bits(whole, copy, 3)
    assert fewest_bits(whole, whole, 0) == 0


def test_flat_margins_do_not_belong_to_the_content():
    alone = drawn(2)
    assert content(framed(alone, 40)) == content(alone)
    assert content(framed(framed(alone, 11, 250), 30, 90)) == content(alone)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (1500, 40), (32, 32)])
def test_pictures_of_any_size_have_a_content(size: tuple[int, int]):
    for image in (Image.new("L", size, 255), drawn(3, size)):
        assert len(content(image)) == -(-SIDE * SIDE // 3) * 4


def test_what_shows_nothing_is_like_nothing():
    blank = content(Image.new("L", (64, 64), 200))
    assert fewest_bits(blank, blank, 10) == BITS
    assert fewest_bits(content(drawn(1)), blank, 10) == BITS
    assert fewest_bits("", content(drawn(1)), 10) == BITS


def test_margins_are_found_in_large_pictures():
    large = drawn(4).resize((1800, 1440))
    assert fewest_bits(content(framed(large, 200)), content(drawn(4)), 10) <= 20


# ---------------------------------------------------------------------------------------------- texts


def misread(text: str, share: float, seed: int) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(string.ascii_lowercase) if rng.random() < share else letter for letter in text)


def test_similar_texts_have_a_key_in_common_and_others_have_none():
    rng = random.Random(0)
    texts = [misread(" ".join(["letters"] * 12), 1.0, rng.randrange(10**9)) for _ in range(60)]
    for place, text in enumerate(texts):
        assert np.any(keys_of(text) == keys_of(misread(text, 0.03, place)))
        assert np.any(keys_of(text) == keys_of(text.upper().replace(" ", "\n") + " www.stock.example"))
    assert len(same_words(np.stack([keys_of(text) for text in texts]))) == 0


@pytest.mark.parametrize("text", ["", " \n", "?!", "—"])
def test_without_letters_there_are_no_keys(text: str):
    assert not keys_of(text).any()
    assert len(same_words(np.stack([keys_of(text)] * 3))) == 0


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40))
def test_any_text_has_keys_that_its_case_and_blanks_do_not_change(text: str):
    keys = keys_of(text)
    assert keys.shape == (KEYS,)
    assert np.array_equal(keys, keys_of(f"  {text}\n"))


def test_keys_are_the_same_on_every_machine():
    assert [int(key) for key in keys_of("Open daily 9-17")[:2]] == KEYS_OF_HOURS


def test_of_many_with_one_text_each_is_told_of_the_first_ones_alone():
    keys = np.stack([keys_of("certificate of attendance")] * 40)
    pairs = same_words(keys)
    assert [tuple(pair) for pair in pairs[:3]] == [(1, 0), (2, 0), (2, 1)]
    assert {int(earlier) for later, earlier in pairs if later == 39} == set(range(16))
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12))
def test_groups_are_of_all_equal_rows(rows: list[tuple[int, int]]):
    found = [group.tolist() for group in equal_rows(np.array(rows, dtype=np.uint8).reshape(-1, 2))]
    places = {row: [place for place, other in enumerate(rows) if other == row] for row in rows}
    assert sorted(found) == sorted(group for group in places.values() if len(group) > 1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 31), (20, 32), (17, 100), (64, 512)])
def test_spans_are_of_the_means_of_parts(shape: tuple[int, int]):
    grey = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    edges = sorted({int(edge) for edge in np.linspace(0, shape[1], 32, endpoint=False)})
    parts = [grey[:, start:end] for start, end in zip(edges, [*edges[1:], shape[1]], strict=True)]
    means = np.stack([part.sum(axis=1) / part.shape[1] for part in parts], axis=1)
    assert np.array_equal(_spans(grey), np.ptp(means, axis=1))
    assert np.array_equal(_spans(grey.T[::-1]), _spans(np.ascontiguousarray(grey.T[::-1])))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_margins_end_where_the_first_row_is_not_flat(above: int, below: int, rows: int, seed: int):
    inner = np.random.default_rng(seed).integers(0, 256, (rows, 40), dtype=np.uint8)
    inner[[0, -1], :20], inner[[0, -1], 20:] = 0, 255
    grey = np.pad(inner, ((above, below), (0, 0)), constant_values=100)
    assert _not_flat(grey) == (above, above + rows)
    assert _not_flat(np.ascontiguousarray(grey.T).T) == (above, above + rows)
    assert _not_flat(grey[:above]) is None
