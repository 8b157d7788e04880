from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest

from llavar.render import fonts, words
from llavar.render.layouts import EM_MAX, EM_MIN, Style, luminance, page, scene
from llavar.render.scene import TONES, Colour, LayoutKind, Scene, TextLine, text_width
from llavar.study.nano.scenes import varied

SEEDS = range(150)
HELD_OUT = Style(held_out_words=True, held_out_fonts=True, held_out_layouts=True)
STYLES = {"plain": Style(), "random": Style(random_text=0.6, max_lines=4), "held out": HELD_OUT}

FRESH = """
import hashlib
from llavar.render.layouts import Style, page, scene
drawn = [make(seed, Style(random_text=0.5)) for make in (scene, page) for seed in range(20)]
print(hashlib.sha256(repr(drawn).encode()).hexdigest())
"""


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> Style:
    return STYLES[request.param]


def test_a_scene_is_a_function_of_its_seed_and_style():
    assert scene("a", Style()) == scene("a", Style())
    assert page("a", Style()) == page("a", Style())
    assert scene("a", Style()) != scene("b", Style())
    assert len({scene(seed, Style()).text for seed in SEEDS}) > 0.9 * len(SEEDS)


def test_scenes_are_the_same_in_another_process():
    drawn = [make(seed, Style(random_text=0.5)) for make in (scene, page) for seed in range(20)]
    ours = hashlib.sha256(repr(drawn).encode()).hexdigest()
    result = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ours


def test_scenes_of_a_seed_never_change():
    # The embedded model was trained on these very scenes, and the exam is made of them.
    drawn = scene("pinned", Style())
    assert (drawn.layout, drawn.ground, drawn.text) == (LayoutKind.SIGN, Colour.WHITE, "SCHOOL")
    assert page("pinned", Style()).text.splitlines()[0] == "RUNNER n0m 8"


def test_held_out_layouts_and_fonts_stay_out_of_training(style: Style):
    drawn = [scene(seed, style) for seed in SEEDS]
    assert {item.layout.held_out for item in drawn} == {style.held_out_layouts}
    assert {line.font.held_out for item in drawn for line in item.lines} == {style.held_out_fonts}
    assert {item.layout for item in drawn} == {k for k in LayoutKind if k.held_out == style.held_out_layouts}
    part = fonts.HELD_OUT if style.held_out_fonts else fonts.TRAIN
    assert {line.font for item in drawn for line in item.lines} == set(part)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("make", [scene, page])
def test_no_scene_holds_a_whole_word_of_the_other_part(make: Callable[..., Scene], held_out: bool):
    other = set(words.vocabulary(held_out=not held_out))
    own = set(words.vocabulary(held_out=held_out))
    style = Style(held_out_words=held_out, max_lines=4)
    lines = [line.text for seed in SEEDS for line in make(seed, style).lines]
    seen = {word for line in lines for word in line.lower().split()}
    # Fillers of pages and words that were cut to fit may spell anything of up to five characters.
    assert not {word for word in seen & other if make is scene or len(word) > 5}
    assert len(seen & own) > 50


def test_lines_lie_inside_the_picture_and_apart(style: Style):
    for seed in SEEDS:
        lines = scene(seed, style).lines
        for line in lines:
            box = line.box
            assert 0 <= box.left < box.right <= 1.0 + 1e-9
            assert 0 <= box.top < box.bottom <= 1
            assert EM_MIN <= line.em <= EM_MAX
        for upper, lower in pairwise(lines):
            assert upper.box.bottom <= lower.box.top


def test_pages_have_rules_beside_their_text_at_times():
    pages = [page(seed, Style(random_text=0.6)) for seed in range(200)]
    ruled = [drawn for drawn in pages if drawn.panels]
    assert 0.2 < len(ruled) / len(pages) < 0.55
    for drawn in ruled:
        for rule in drawn.panels:
            for line in (*drawn.lines, *varied(drawn, drawn.text).lines):
                apart = line.x > rule.box.right or line.x + line.width < rule.box.left
                assert apart, (line.text, rule)


def test_pages_are_full_of_lines_that_do_not_overlap():
    for seed in SEEDS:
        lines = page(seed, Style(random_text=0.6)).lines
        assert len(lines) >= 3
        for line in lines:
            assert line.x >= 0.02 - 1e-9
            assert line.x + line.width <= 0.98 + 1e-9
            assert 0 < line.middle < 1
            assert line.baseline < 1
        for upper, lower in pairwise(lines):
            assert upper.baseline < lower.baseline - 0.9 * lower.em * fonts.cap_height(lower.font)


def test_ornaments_never_cover_text(style: Style):
    counts: set[int] = set()
    for seed in SEEDS:
        drawn = scene(seed, style)
        counts.add(len(drawn.shapes))
        for shape in drawn.shapes:
            assert shape.box.left >= 0
            assert shape.box.right <= 1
            assert shape.colour is not drawn.ground
            assert all(shape.box.bottom <= s.box.top or shape.box.top >= s.box.bottom for s in drawn.lines)
        assert len({(shape.kind, shape.colour) for shape in drawn.shapes}) <= 1
    assert counts == {0, 1, 2, 3}


def test_text_can_be_told_from_what_lies_behind_it(style: Style):
    for seed in SEEDS:
        drawn = scene(seed, style)
        for line in drawn.lines:
            behind = [
                panel.tone
                for panel in drawn.panels
                if not panel.outline and panel.box.top <= line.middle <= panel.box.bottom
                if panel.box.left <= line.x <= panel.box.right
            ]
            paper = behind[-1] if behind else drawn.top
            assert abs(luminance(line.ink) - luminance(paper)) > 70


def test_the_number_of_lines_is_bounded():
    assert {len(scene(seed, Style(max_lines=0, min_lines=0)).lines) for seed in SEEDS} == {0}
    assert max(len(scene(seed, Style(max_lines=2)).lines) for seed in SEEDS) == 2
    assert {len(scene(seed, Style(min_lines=0)).lines) for seed in SEEDS} >= {0, 1, 2, 3}
    assert all(scene(seed, Style()).lines for seed in SEEDS)


def test_without_wildness_or_shapes_there_are_none():
    for seed in range(40):
        drawn = scene(seed, Style(wild=0, shapes=0))
        assert (drawn.noise, drawn.blur, drawn.shapes) == (0.0, 0.0, ())


def test_every_colour_can_be_named_and_told_from_the_others():
    assert set(TONES) == set(Colour)
    assert len(set(TONES.values())) == len(Colour)


def test_the_text_of_a_scene_is_its_lines_from_the_top():
    lines = [
        TextLine(text=text, font=fonts.Font.LATO, em=0.15, x=0.1, baseline=y, ink=(0, 0, 0))
        for text, y in (("OPEN", 0.3), ("24 h", 0.6))
    ]
    drawn = Scene(
        layout=LayoutKind.SIGN,
        ground=Colour.WHITE,
        top=(255, 255, 255),
        bottom=(255, 255, 255),
        lines=tuple(lines),
    )
    assert drawn.text == "OPEN\n24 h"


def test_tracking_stands_between_characters_only():
    plain = text_width("AB", fonts.Font.LATO, 0.2)
    assert text_width("AB", fonts.Font.LATO, 0.2, 0.5) == pytest.approx(plain + 0.1)
    assert text_width("", fonts.Font.LATO, 0.2, 0.5) == 0
    line = TextLine(text="AB", font=fonts.Font.LATO, em=0.2, x=0.1, baseline=0.5, ink=(0, 0, 0), tracking=0.5)
    first, second = line.glyphs()
    advance = fonts.advance(fonts.Font.LATO, "A") * 0.2
    assert first.x == pytest.approx(0.1 + advance / 2)
    assert second.x - first.x == pytest.approx(advance / 2 + 0.1 + fonts.advance(fonts.Font.LATO, "B") * 0.1)
