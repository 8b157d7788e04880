from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from llavar.render import fonts
from llavar.render.fonts import Font

PRINTED = string.ascii_letters + string.digits + string.punctuation


def drawn(font: Font, text: str, size: int = 80) -> Image.Image:
    image = Image.new("L", (size * len(text), 2 * size))
    ImageDraw.Draw(image).text((0, 1.5 * size), text, font=fonts.load(font, size), fill=255, anchor="ls")
    return image


def test_held_out_fonts_are_none_of_the_training_ones():
    assert set(fonts.TRAIN).isdisjoint(fonts.HELD_OUT)
    assert set(fonts.TRAIN) | set(fonts.HELD_OUT) == set(Font)
    assert [font for font in Font if font.held_out] == list(fonts.HELD_OUT)
    families = {font.value.partition("-latin")[0] for font in fonts.HELD_OUT}
    assert not any(font.value.startswith(tuple(families)) for font in fonts.TRAIN)


def test_every_file_is_a_font_with_a_notice():
    folder = Path(fonts.__file__).parent
    assert {path.stem for path in folder.glob("*.woff2")} == {font.value for font in Font}
    notices = (folder / "FONTS.md").read_text(encoding="utf-8").lower().replace(" ", "-")
    for font in Font:
        assert font.value.partition("-latin")[0] in notices
    assert "OPEN FONT LICENSE" in (folder / "OFL.txt").read_text(encoding="utf-8").upper()


@pytest.mark.parametrize("font", Font)
def test_every_printable_character_has_a_glyph_of_its_own(font: Font):
    glyphs = {char: drawn(font, char).tobytes() for char in PRINTED}
    assert all(any(pixels) for pixels in glyphs.values())
    assert len(set(glyphs.values())) == len(PRINTED)


@pytest.mark.parametrize("font", Font)
def test_the_table_of_advances_says_how_wide_text_is(font: Font):
    text = "Quick Zebra 47%"
    expected = fonts.load(font, 200.0).getlength(text) / 200
    assert sum(fonts.advance(font, char) for char in text) == pytest.approx(expected, rel=0.02)
    assert 0.5 < fonts.cap_height(font) < 0.9


@pytest.mark.parametrize("font", Font)
def test_the_bar_of_an_e_is_thinner_than_its_bow(font: Font):
    ink = np.asarray(drawn(font, "e", 400)) > 127
    columns = np.flatnonzero(ink.any(0))
    middle = ink[:, (columns[0] + columns[-1]) // 2]
    steps = np.diff(middle.astype(int), prepend=0, append=0)
    starts, ends = (np.flatnonzero(steps == step) for step in (1, -1))
    top, bar, foot = (ends - starts) / 400
    assert fonts.bar(font) == pytest.approx(bar, abs=0.006)
    assert 0.01 < bar <= top <= 1.2 * foot


def test_unknown_characters_are_as_wide_as_a_question_mark():
    assert fonts.advance(Font.LATO, "字") == fonts.advance(Font.LATO, "?")
    assert fonts.advance(Font.LATO, "i") < fonts.advance(Font.LATO, "W")


def test_a_font_is_opened_once_for_each_size():
    assert fonts.load(Font.LORA, 12.5) is fonts.load(Font.LORA, 12.5)
    assert fonts.load(Font.LORA, 12.5) is not fonts.load(Font.LORA, 13.0)
