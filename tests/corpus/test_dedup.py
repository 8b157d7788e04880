"""Duplicates are found, and cards of one template are not taken for any."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from llavar.corpus.dedup import ExactStage, NearSettings, NearStage, agree, alike
from llavar.corpus.item import Fingerprint, Item, Origin, PictureFile
from llavar.corpus.opening import OpenSettings, fingerprint, measured
from llavar.corpus.stage import Outcome
from llavar.errors import ConfigError
from llavar.records import Box, Line, Reading, Reject


def item(name: str, *, sha: int = 0, pixels: int = 0, bits: int = 0, text: str = "") -> Item:
    line = Line(text=text, box=Box(left=0, top=0, right=9, bottom=9))
    return Item(
        id=name,
        origin=Origin(source="s"),
        file=PictureFile(path=name, sha256=f"{sha:064x}", width=1, height=1, bytes=1),
        fingerprint=Fingerprint(pixels=f"{pixels:064x}", perceptual=f"{bits:064x}"),
        readings=(Reading(image=name, size=(9, 9), lines=(line,), engine="e"),),
    )


def ended(stage: ExactStage | NearStage, *shards: list[Item]) -> dict[str, tuple[str, str]]:
    decision = stage.decide(shards)
    judge = stage.judge(decision)
    outcomes: list[Outcome] = [outcome for items in shards for outcome in judge(items)]
    assert [outcome.id for outcome in outcomes] == [one.id for items in shards for one in items]
    return {one.id: (one.reason, one.detail) for one in outcomes if isinstance(one, Reject)}


HIGH = 1 << 250
"""Hashes are told apart by their first half."""


def test_the_first_of_equal_files_or_pixels_stays_across_shards():
    one, same = item("a", sha=HIGH, pixels=HIGH), item("c", sha=HIGH, pixels=HIGH)
    encoded = item("d", sha=HIGH + (HIGH >> 1), pixels=HIGH)
    other = item("b", sha=HIGH + (HIGH >> 2), pixels=HIGH + (HIGH >> 2))
    assert ended(ExactStage(), [one, other], [same, encoded]) == {
        "c": ("same file as another", "a"),
        "d": ("same pixels as another", "a"),
    }


def test_near_ones_go_only_where_their_texts_agree():
    first = item("a", bits=0b1111, text="Dream big and dare to fail")
    copy = item("b", bits=0b1100, text="Dream big and dare to fail.")
    card = item("c", bits=0b1101, text="Stay hungry, stay foolish")
    far = item("d", bits=(1 << 60) - 1, text="Dream big and dare to fail")
    assert ended(NearStage(), [first, copy], [card, far]) == {
        "b": ("edited copy of another", "a, 2 of 256 bits differ")
    }


def test_chains_of_small_edits_do_not_run_away():
    step = (1 << 15) - 1
    chain = [item(str(place), bits=(1 << (15 * place)) - 1, text="SALE") for place in range(5)]
    assert step.bit_count() == 15
    gone = ended(NearStage(settings=NearSettings(max_bits=20)), chain)
    assert sorted(gone) == ["1", "3"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.lists(st.lists(st.integers(0, 255), max_size=30), min_size=2, max_size=12))
def test_every_pair_within_the_limit_is_found_and_no_other(limit: int, flipped: list[list[int]]):
    rows = np.zeros((len(flipped), 256), dtype=np.uint8)
    for place, bits in enumerate(flipped):
        rows[place, bits] ^= 1
    packed = np.packbits(rows, axis=1)
    expected = [
        (later, earlier, int((rows[later] != rows[earlier]).sum()))
        for earlier, later in itertools.combinations(range(len(rows)), 2)
        if (rows[later] != rows[earlier]).sum() <= limit
    ]
    assert alike(packed, limit) == sorted(expected)


def test_without_pictures_there_are_no_pairs():
    assert ended(NearStage(), []) == {}
    assert alike(np.zeros((0, 32), dtype=np.uint8), 5) == []


def quote(text: str) -> Image.Image:
    image = Image.new("RGB", (320, 240), "#20364a")
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 20, 300, 220), outline="#e0c080", width=3)
    for row, line in enumerate(text.split("/")):
        draw.text((50, 70 + 40 * row), line, fill="white", font_size=28)
    return image


def edits(image: Image.Image) -> list[Image.Image]:
    smaller = image.resize((240, 180), Image.Resampling.BILINEAR)
    brighter = ImageEnhance.Brightness(image).enhance(1.1)
    return [image.resize((400, 300)), smaller, brighter]


def test_edited_copies_of_real_pictures_are_found_and_cards_of_a_template_stay(tmp_path: Path):
    texts = ["dream big/dare to fail", "stay hungry/stay foolish", "less is more/more or less"]
    shards: list[Item] = []
    for number, text in enumerate(texts):
        for version, image in enumerate([quote(text), *edits(quote(text))]):
            line = Line(text=text, box=Box(left=0, top=0, right=9, bottom=9))
            reading = Reading(image="", size=image.size, lines=(line,), engine="e")
            name = f"{number}-{version}"
            shards.append(
                Item(id=name, origin=Origin(source="s"), fingerprint=fingerprint(image), readings=(reading,))
            )
    gone = ended(NearStage(), shards)
    assert sorted(gone) == [f"{number}-{version}" for number in range(3) for version in (1, 2, 3)]


def read(name: str, image: Image.Image, text: str) -> Item:
    line = Line(text=text, box=Box(left=0, top=0, right=9, bottom=9))
    reading = Reading(image="", size=image.size, lines=(line,), engine="e")
    return Item(id=name, origin=Origin(source="s"), fingerprint=fingerprint(image), readings=(reading,))


def cut_and_framed(text: str) -> dict[str, Image.Image]:
    """A quote on a ground without flat margins, cut at its edges, and in a frame."""
    image = Image.linear_gradient("L").resize((320, 240)).convert("RGB")
    image.paste(quote(text).crop((15, 15, 305, 225)), (15, 15))
    framed = Image.new("RGB", (360, 280), "white")
    framed.paste(image, (20, 20))
    return {"whole": image, "cut": image.crop((12, 6, 314, 240)), "framed": framed}


def test_copies_that_were_cut_or_framed_are_found_where_the_same_is_written():
    shard = [
        read(f"{text}-{name}", image, text)
        for text in ("dream big/dare to fail", "stay hungry/stay foolish")
        for name, image in cut_and_framed(text).items()
    ]
    gone = ended(NearStage(), shard[:4], shard[4:])
    assert sorted(gone) == sorted(one.id for one in shard if not one.id.endswith("whole"))
    assert all(detail.endswith("bits differ where they overlap") for _, detail in gone.values())
    assert ended(NearStage(settings=NearSettings(max_crop=0)), shard) == {}


def test_the_same_words_on_another_picture_are_no_copy():
    text = "dream big/dare to fail"
    other = Image.linear_gradient("L").rotate(90).resize((320, 240)).convert("RGB")
    ImageDraw.Draw(other).text((40, 120), text, fill="black", font_size=20)
    assert ended(NearStage(), [read("a", quote(text), text), read("b", other, text)]) == {}


@pytest.mark.parametrize(
    ("name", "other", "same"),
    [
        ("anna smith", "john miller", False),
        ("anna smith", "anna srnith", True),
        ("anna smith", "", True),
        ("no. 17", "no. 18", False),
        ("john miller", "no. 18", False),
    ],
)
def test_a_name_in_the_place_of_another_tells_cards_apart(name: str, other: str, same: bool):
    rest = "certificate of attendance at the annual meeting of the society in spring"
    pair = [item("a", text=f"{rest} {name}"), item("b", bits=1, text=f"{rest} {other}")]
    assert bool(ended(NearStage(), pair)) is same
    assert bool(ended(NearStage(settings=NearSettings(min_text=0)), pair)) is True


def test_words_that_nobody_is_sure_of_tell_nothing_apart():
    rest = "certificate of attendance at the annual meeting of the society in spring"
    pair: list[Item] = []
    for number, text in enumerate(("qwrtzp", "hjklmn")):
        one = item(str(number), bits=number, text=rest)
        box = Box(left=0, top=9, right=9, bottom=12)
        doubtful = Line(text=text, box=box, confidence=0.5)
        reading = replace(one.readings[0], lines=(*one.readings[0].lines, doubtful))
        pair.append(replace(one, readings=(reading,)))
    assert list(ended(NearStage(), pair)) == ["1"]


def test_what_only_the_comparison_needed_is_gone_behind_it():
    stage, one = NearStage(), read("a", quote("one"), "one")
    assert one.fingerprint is not None
    assert one.fingerprint.content
    (kept,) = stage.judge(stage.decide([[one]]))([one])
    assert isinstance(kept, Item)
    assert kept.fingerprint == replace(one.fingerprint, content="")


def test_the_same_picture_in_two_formats_is_one(tmp_path: Path):
    for name in ("a.png", "b.bmp"):
        quote("one").save(tmp_path / name)
    opened = [
        measured(Item(id=name, origin=Origin(source="s", path=name)), root=tmp_path, settings=OpenSettings())
        for name in ("a.png", "b.bmp")
    ]
    assert ended(ExactStage(), [one for one in opened if isinstance(one, Item)]) == {
        "b.bmp": ("same pixels as another", "a.png")
    }


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("", "", True),
        ("", "a", False),
        ("open daily", "open daily", True),
        ("open daily", "closed", False),
        ("certificate no. 17 of 20", "certificate no. 18 of 20", False),
        ("certificate no. 17 of 20", "certificate no. 17 0f 20", True),
        ("first line here second line there", "second line there first line here", True),
        ("dream big", "dream big www.stock.example", True),
        ("dream big", "dream big and dare to fail, and fail again", False),
        ("sale", "sale of all our winter coats", False),
        ("1 2 3 4 5 6 7 8 9 10", "1 2 3 4 5 6 7 8 9 11", True),
    ],
)
def test_texts_agree_by_what_they_have_in_common(one: str, other: str, same: bool):
    assert agree(one, other, 0.8) is same


@pytest.mark.parametrize("wrong", [{"max_bits": 61}, {"max_bits": -1}, {"min_text": 1.5}, {"max_crop": 21}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is {next(iter(wrong.values()))}"):
        NearSettings(**wrong)
