from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from llavar.records import Box
from llavar.render.fonts import Font
from llavar.render.grid import BLANK, CHARACTERS, CLASSES, COLOURS, SHAPES, grid, widths
from llavar.render.layouts import Style, page, scene
from llavar.render.scene import Colour, LayoutKind, Scene, Shape, ShapeKind, TextLine

SIDE = 12
WHITE = (255, 255, 255)
EMPTY = Scene(layout=LayoutKind.POSTER, ground=Colour.PINK, top=WHITE, bottom=WHITE)


def line(text: str, *, x: float = 0.05, baseline: float = 0.5, em: float = 0.15) -> TextLine:
    return TextLine(text=text, font=Font.LATO, em=em, x=x, baseline=baseline, ink=(0, 0, 0))


@pytest.mark.parametrize(
    "style", [Style(), Style(random_text=1.0, max_lines=4), Style(held_out_fonts=True, held_out_layouts=True)]
)
@pytest.mark.parametrize("make", [scene, page])
def test_reading_the_cells_gives_the_text(make: Callable[..., Scene], style: Style):
    for seed in range(200):
        drawn = make(seed, style)
        assert grid(drawn, SIDE).text() == drawn.text, seed


def test_cells_hold_the_character_that_stands_there():
    truth = grid(replace(EMPTY, lines=(line("Hi", x=0.5),)), SIDE)
    row = truth.chars[int(line("Hi").middle * SIDE)].ravel()
    places = np.flatnonzero(row)
    first, second = line("Hi", x=0.5).glyphs()
    assert list(places) == [int(first.x * 2 * SIDE), int(second.x * 2 * SIDE)]
    assert [CHARACTERS[code - 1] for code in row[places]] == ["H", "i"]
    assert np.count_nonzero(truth.chars) == 2


def test_narrow_letters_move_on_to_the_next_free_cell():
    truth = grid(replace(EMPTY, lines=(line("illicit", em=0.1),)), SIDE)
    assert truth.text() == "illicit"
    places = np.flatnonzero(truth.chars[int(line("i", em=0.1).middle * SIDE)].ravel())
    assert len(places) == 7


def test_what_does_not_fit_into_a_row_is_left_out():
    assert grid(replace(EMPTY, lines=(line("i" * 40),)), SIDE).text() == "i" * 23
    assert grid(replace(EMPTY, lines=(line("AB", x=2.0, baseline=5.0),)), SIDE).text() == "A"


def test_unknown_characters_read_as_question_marks():
    assert grid(replace(EMPTY, lines=(line("a字b"),)), SIDE).text() == "a?b"


def test_colours_and_ornaments_cover_their_box():
    box = Box(left=0.5, top=0.25, right=0.7, bottom=0.4)
    shape = Shape(kind=ShapeKind.TRIANGLE, colour=Colour.BLUE, tone=(0, 0, 200), box=box)
    truth = grid(replace(EMPTY, shapes=(shape,)), SIDE)
    marked = truth.shape == SHAPES.index("triangle")
    assert [int(axis.min()) for axis in np.nonzero(marked)] == [3, 6]
    assert [int(axis.max()) for axis in np.nonzero(marked)] == [4, 8]
    assert (truth.colour[marked] == COLOURS.index(Colour.BLUE)).all()
    assert (truth.colour[~marked] == COLOURS.index(Colour.PINK)).all()
    assert set(np.unique(truth.shape)) == {0, SHAPES.index("triangle")}


def test_cells_fit_the_widths_of_their_classes():
    for seed in range(50):
        for make in (scene, page):
            cells = grid(make(seed, Style(random_text=0.5)), SIDE).cells()
            assert (cells.shape, cells.dtype) == ((SIDE, SIDE, 6), np.int64)
            assert (cells >= 0).all()
            assert (cells.max((0, 1)) < np.array(widths(SIDE))).all()
    assert (cells[3, 5, 4], cells[3, 5, 5]) == (3, 5)


def test_an_empty_scene_is_blank():
    truth = grid(EMPTY, 5)
    assert (truth.chars == BLANK).all()
    assert truth.text() == ""
    assert len(CHARACTERS) + 1 == CLASSES == 96
