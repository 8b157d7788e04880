"""Scenes with small text."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from llavar import images
from llavar.images import WHOLE, Tiles
from llavar.models.tokenizer import nano_tokenizer
from llavar.render.layouts import Style, scene
from llavar.render.paint import paint
from llavar.study.nano.scenes import pixels
from llavar.study.nano.small import SmallData, SmallObjective, anywhere, crowded, seen, shrunk

FOUR = Tiles(rows=2, columns=2)


def test_a_small_scene_is_the_large_one_in_a_corner():
    """All that is drawn keeps its place and colour; sizes of fonts are rounded by the renderer."""
    drawn = scene(3, Style(wild=0, shapes=1))
    small = shrunk(drawn, 0.5, 0.25, 0.5)
    assert small.text == drawn.text
    assert [line.em for line in small.lines] == [line.em / 2 for line in drawn.lines]
    corner = paint(small, 256).crop((64, 128, 192, 256))
    difference = np.abs(np.asarray(corner, int) - np.asarray(paint(drawn, 128), int))
    assert (difference.max(axis=2) > 60).mean() < 0.03


def test_small_scenes_stay_within_the_picture():
    for seed in range(30):
        small = anywhere(scene(seed, Style()), 0.5, random.Random(seed))
        assert all(line.x >= 0 and line.x + line.width <= 1.01 for line in small.lines)
        assert all(line.box.top >= -0.02 and line.box.bottom <= 1.02 for line in small.lines)


def test_lines_of_a_crowded_picture_read_from_top_to_bottom():
    for seed in range(10):
        drawn = crowded(str(seed), Style(), 0.5, 8, random.Random(seed))
        heights = [line.baseline for line in drawn.lines]
        assert 1 <= len(heights) <= 8
        assert heights == sorted(heights)
        assert all(line.box.top >= 0 and line.box.bottom <= 1 for line in drawn.lines)


def test_one_view_is_the_picture_that_nano_is_trained_on():
    for index in range(2):
        drawn = scene(index, Style())
        assert np.array_equal(seen(drawn, 96, WHOLE, index)[0], pixels(drawn, 96, index))


def test_tiles_of_a_scene_are_cut_from_twice_the_size():
    drawn = scene(1, Style(wild=0))
    found = seen(drawn, 96, FOUR, 0)
    large = images.normalize(paint(drawn, 192))
    assert found.shape == (5, 3, 96, 96)
    assert np.array_equal(found[4], large[:, 96:, 96:])


@pytest.mark.parametrize("tiles", [WHOLE, FOUR])
def test_a_step_is_a_function_of_its_number_and_fits_the_pictures(tiles: Tiles):
    model: Any = None
    objective = SmallObjective(model, nano_tokenizer(), SmallData(tiles=tiles, batch=4, parts=2))
    first, again = ([asked.batch for asked in objective.batches(5)] for _ in range(2))
    assert [batch.rows for batch in first] == [2, 2]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.ids, other.ids)
        assert one.vision is not None
        assert other.vision is not None
        assert torch.equal(one.vision, other.vision)
        patches = int((one.ids == nano_tokenizer().image_patch_id).sum())
        assert patches == len(one.vision) * 144 == 2 * tiles.views * 144
    assert objective.size(objective.batches(5)[0]).supervised > 0
