from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from llavar.records import Box
from llavar.render import fonts
from llavar.render.fonts import Font
from llavar.render.layouts import Style, page, scene
from llavar.render.paint import paint
from llavar.render.scene import Colour, Glyph, LayoutKind, Panel, Scene, Shape, ShapeKind, TextLine

CLEAN = Style(wild=0)
SIZE = 384
WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (200, 0, 0)


def plain(**parts: object) -> Scene:
    empty = Scene(layout=LayoutKind.POSTER, ground=Colour.WHITE, top=WHITE, bottom=WHITE)
    return replace(empty, **parts)


def changed(one: Scene, other: Scene, size: int = SIZE) -> np.ndarray:
    """(size, size): where the two look different."""
    first, second = (np.asarray(paint(item, size), int) for item in (one, other))
    return np.abs(first - second).max(-1) > 40


def window(line: TextLine, glyph: Glyph) -> tuple[slice, slice]:
    """Rows and columns in which a letter has to stand."""
    half = 0.35 * line.em * SIZE
    top, left, right = glyph.y * SIZE - half, glyph.x * SIZE - half, glyph.x * SIZE + half
    return slice(max(0, int(top)), int(top + 2 * half) + 1), slice(max(0, int(left)), int(right) + 1)


@pytest.mark.parametrize("make", [scene, page])
@pytest.mark.parametrize("seed", range(12))
def test_text_is_drawn_where_the_scene_says_and_nowhere_else(make: Callable[..., Scene], seed: int):
    drawn = make(seed, CLEAN)
    marks = changed(drawn, replace(drawn, lines=()))
    allowed = np.zeros_like(marks)
    for line in drawn.lines:
        # Brackets and quotes reach over the em box, and a last letter a little over its advance.
        top, bottom = line.box.top - 0.25 * line.em, line.box.bottom + 0.15 * line.em
        rows = slice(max(0, int(top * SIZE)), int(bottom * SIZE) + 2)
        allowed[rows, max(0, int(line.x * SIZE) - 3) : int(line.box.right * SIZE) + 5] = True
        for glyph in line.glyphs():
            if glyph.char.isalnum():
                assert marks[window(line, glyph)].any(), (line.text, glyph)
    assert not (marks & ~allowed).any()


@pytest.mark.parametrize("seed", range(12))
def test_a_scene_looks_the_same_at_every_size(seed: int):
    drawn = scene(seed, CLEAN)
    small = np.asarray(paint(drawn, 96), float)
    large = paint(drawn, 384)
    assert large.size == (384, 384)
    shrunk = np.asarray(large.resize((96, 96), Image.Resampling.BOX), float)
    other = np.asarray(paint(scene(seed + 1, CLEAN), 96), float)
    assert np.abs(small - shrunk).mean() < 0.5 * np.abs(other - shrunk).mean()
    # Without text, only frames differ: they are a whole number of pixels wide.
    bare = replace(drawn, lines=())
    shrunk = np.asarray(paint(bare, 384).resize((96, 96), Image.Resampling.BOX), float)
    assert np.abs(np.asarray(paint(bare, 96), float) - shrunk).mean() < 8


@pytest.mark.parametrize("seed", range(12))
def test_lines_span_the_same_part_of_the_picture_at_every_size(seed: int):
    drawn = scene(seed, CLEAN)
    for line in drawn.lines:
        alone = plain(lines=(replace(line, ink=BLACK),))
        ends = []
        for size in (96, 384):
            inked = np.flatnonzero((np.asarray(paint(alone, size).convert("L")) < 160).any(0))
            ends.append((inked.min() / size, inked.max() / size))
        (left, right), (large_left, large_right) = ends
        assert left == pytest.approx(large_left, abs=2 / 96)
        assert right == pytest.approx(large_right, abs=2 / 96)


@pytest.mark.parametrize("size", [96, 384])
def test_letters_of_a_long_line_do_not_drift(size: int):
    line = TextLine(text="l" * 40, font=Font.LATO, em=0.07, x=0.05, baseline=0.5, ink=BLACK)
    dark = 255 - np.asarray(paint(plain(lines=(line,)), size).convert("L"), float)
    for glyph in line.glyphs():
        left, right = (round((glyph.x + side * 0.02 * line.em) * size) for side in (-7, 7))
        column = dark.sum(0)[left:right]
        middle = (column * (np.arange(left, right) + 0.5)).sum() / column.sum()
        assert middle == pytest.approx(glyph.x * size, abs=0.6)


@pytest.mark.parametrize("kind", ShapeKind)
def test_ornaments_have_their_colour_and_stay_in_their_box(kind: ShapeKind):
    box = Box(left=0.25, top=0.25, right=0.5, bottom=0.5)
    shape = Shape(kind=kind, colour=Colour.RED, tone=RED, box=box)
    pixels = np.asarray(paint(plain(shapes=(shape,)), 96))
    inside = (pixels == RED).all(-1)
    assert inside[36, 36]
    inside[24:49, 24:49] = False
    assert not inside.any()


def test_the_three_ornaments_differ():
    box = Box(left=0.2, top=0.2, right=0.8, bottom=0.8)
    shapes = [Shape(kind=kind, colour=Colour.RED, tone=RED, box=box) for kind in ShapeKind]
    covered = [np.asarray(paint(plain(shapes=(shape,)), 96))[..., 1] == 0 for shape in shapes]
    circle, square, triangle = (int(mask.sum()) for mask in covered)
    assert circle / square == pytest.approx(np.pi / 4, rel=0.05)
    assert triangle / square == pytest.approx(0.5, rel=0.05)


def test_panels_are_filled_or_outlined():
    box = Box(left=0.1, top=0.1, right=0.9, bottom=0.9)
    filled = np.asarray(paint(plain(panels=(Panel(tone=RED, box=box),)), 100))
    outlined = np.asarray(paint(plain(panels=(Panel(tone=RED, box=box, outline=True),)), 100))
    assert tuple(filled[50, 50]) == RED
    assert tuple(outlined[50, 50]) == WHITE
    assert tuple(outlined[50, 10]) == tuple(outlined[10, 50]) == RED


def test_the_ground_fades_from_top_to_bottom():
    pixels = np.asarray(paint(plain(top=BLACK, bottom=(100, 200, 50)), 64))
    assert tuple(pixels[0, 0]) == BLACK
    assert tuple(pixels[-1, -1]) == (100, 200, 50)
    assert (np.diff(pixels[:, 7, 1].astype(int)) >= 0).all()
    assert (pixels == pixels[:, :1]).all()


def test_tracking_moves_letters_apart():
    line = TextLine(text="HH", font=Font.LATO, em=0.2, x=0.1, baseline=0.5, ink=BLACK)
    wide = replace(line, tracking=0.8)
    near, far = (np.asarray(paint(plain(lines=(item,)), SIZE).convert("L")) < 128 for item in (line, wide))
    assert np.flatnonzero(far.any(0)).max() == pytest.approx(np.flatnonzero(near.any(0)).max() + 61, abs=2)
    assert np.flatnonzero(far.any(0)).min() == np.flatnonzero(near.any(0)).min()


LETTERS = TextLine(text="HoH", font=Font.LATO, em=0.2, x=0.1, baseline=0.5, ink=BLACK)


def inked(line: TextLine, size: int = SIZE) -> np.ndarray:
    """(size, size): where a line has ink on white."""
    return np.asarray(paint(plain(lines=(line,)), size).convert("L")) < 128


@pytest.mark.parametrize("stretch", [0.8, 1.3])
def test_stretched_letters_are_wider_or_narrower_and_as_high(stretch: float):
    usual, other = inked(LETTERS), inked(replace(LETTERS, stretch=stretch))
    start = np.flatnonzero(usual.any(0)).min() - 0.1 * SIZE
    assert np.ptp(np.flatnonzero(other.any(0))) == pytest.approx(
        stretch * np.ptp(np.flatnonzero(usual.any(0))), abs=3
    )
    assert np.flatnonzero(other.any(0)).min() == pytest.approx(0.1 * SIZE + stretch * start, abs=2)
    assert np.flatnonzero(other.any(1)).min() == pytest.approx(np.flatnonzero(usual.any(1)).min(), abs=2)
    assert replace(LETTERS, stretch=stretch).width == pytest.approx(stretch * LETTERS.width)


def test_slanted_letters_lean_about_the_middle_of_the_capitals():
    usual, other = inked(LETTERS), inked(replace(LETTERS, slant=0.25))
    rows = np.flatnonzero(usual.any(1))
    top, middle, bottom = rows.min() + 2, int(LETTERS.middle * SIZE), rows.max() - 2
    first = [np.flatnonzero(other[row]).min() - np.flatnonzero(usual[row]).min() for row in (top, bottom)]
    assert first[0] == pytest.approx(0.25 * (middle - top), abs=2)
    assert first[1] == pytest.approx(0.25 * (middle - bottom), abs=2)


def test_stems_become_wider_and_narrower():
    stems = [
        int(inked(replace(LETTERS, weight=weight))[int(0.4 * SIZE)].sum()) for weight in (-0.03, 0, 0.05)
    ]
    assert stems[0] < stems[1] < stems[2]


@pytest.mark.parametrize("slant", [0.0, 0.2])
def test_bars_become_thinner_and_stems_keep_their_width(slant: float):
    usual = replace(LETTERS, text="H", em=0.6, baseline=0.7, slant=slant)
    thin = replace(usual, contrast=0.03)
    row, column = int(0.55 * SIZE), int((0.1 + usual.width / 2) * SIZE)
    assert inked(thin)[row].sum() == pytest.approx(inked(usual)[row].sum(), abs=1)
    lost = inked(usual)[:, column].sum() - inked(thin)[:, column].sum()
    assert lost == pytest.approx(0.03 * 0.6 * SIZE, abs=1)


def height_of(line: TextLine, place: int) -> tuple[float, float]:
    """How far the letter at a place reaches above and below the baseline, in ems."""
    glyph = list(line.glyphs())[place]
    rows, columns = window(line, glyph)
    about = slice(max(0, rows.start - 20), rows.stop + 20)
    found = np.flatnonzero(inked(line)[about, columns].any(1)) + about.start
    base = line.baseline * SIZE
    return (base - found.min()) / (line.em * SIZE), (found.max() + 1 - base) / (line.em * SIZE)


@pytest.mark.parametrize("weight", [0.0, 0.01])
@pytest.mark.parametrize("small", [0.85, 1.15])
def test_small_letters_change_their_size_alone(small: float, weight: float):
    usual = replace(LETTERS, text="HxH", tracking=0.3, weight=weight)
    other = replace(usual, small=small)
    assert height_of(other, 0) == height_of(usual, 0)
    assert height_of(other, 1)[0] == pytest.approx(small * height_of(usual, 1)[0], abs=0.02)
    columns = [
        np.flatnonzero(inked(line)[:, window(line, glyph)[1]].any(0)).mean()
        for line, glyph in ((line, list(line.glyphs())[1]) for line in (usual, other))
    ]
    assert columns[0] == pytest.approx(columns[1], abs=1.5), "in the same place"
    assert [glyph.x for glyph in other.glyphs()] == [glyph.x for glyph in usual.glyphs()]


@pytest.mark.parametrize("font", [Font.LATO, Font.COURIER_PRIME, Font.NUNITO])
def test_old_figures_are_as_low_as_an_x_or_hang_below(font: Font):
    line = TextLine(text="x016395", font=font, em=0.15, x=0.02, baseline=0.5, ink=BLACK, tracking=0.3)
    usual, other = (
        [height_of(drawn, k) for k in range(7)] for drawn in (line, replace(line, old_figures=True))
    )
    x_height = usual[0][0]
    for place in (1, 2):
        assert other[place] == pytest.approx((x_height, 0.0), abs=0.04)
    assert other[3] == usual[3]
    for place in (4, 5, 6):
        hangs = usual[place][0] - other[place][0]
        assert hangs == pytest.approx(fonts.figure_height(font) - fonts.x_height(font), abs=0.02)
        assert other[place][1] - usual[place][1] == pytest.approx(hangs, abs=0.02)


@pytest.mark.parametrize("font", Font)
def test_no_varied_letter_is_cut(font: Font):
    """They are drawn in a strip about their line, which holds what reaches highest and lowest."""
    usual = TextLine(text="|[{$Qgj@", font=font, em=0.2, x=0.02, baseline=0.5, ink=BLACK)
    rows, other = (np.flatnonzero(inked(line).any(1)) for line in (usual, replace(usual, weight=0.01)))
    assert other[0] == pytest.approx(rows[0], abs=2)
    assert other[-1] == pytest.approx(rows[-1], abs=2)
    high = np.flatnonzero(inked(replace(usual, weight=0.01, baseline=0.1)).any(1))
    assert high[0] == 0, "a line that leaves the picture is cut by nothing but its edge"


@pytest.mark.parametrize("seed", range(8))
def test_varied_letters_stand_where_the_scene_says(seed: int):
    usual = page(seed, CLEAN)
    drawn = replace(
        usual,
        lines=tuple(replace(line, stretch=0.88, slant=0.2, weight=0.02) for line in usual.lines),
    )
    marks = changed(drawn, replace(drawn, lines=()))
    for line in drawn.lines:
        for glyph in line.glyphs():
            if glyph.char.isalnum():
                assert marks[window(line, glyph)].any(), (line.text, glyph)


def test_noise_comes_from_its_own_seed():
    drawn = plain(top=(128, 128, 128), bottom=(128, 128, 128), noise=8.0)
    one, same, other = (np.asarray(paint(drawn, 96, noise_seed=seed), float) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()
    assert one.std() == pytest.approx(8, rel=0.05)
    assert (one[..., 0] == one[..., 2]).all()


def test_blur_softens_edges():
    half = Panel(tone=BLACK, box=Box(left=0, top=0, right=0.5, bottom=1))
    sharp = np.asarray(paint(plain(panels=(half,)), 96).convert("L"))
    soft = np.asarray(paint(plain(panels=(half,), blur=0.02), 96).convert("L"))
    assert set(np.unique(sharp)) == {0, 255}
    assert len(np.unique(soft)) > 4
