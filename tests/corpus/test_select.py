"""Which pictures are taken: by metadata, by a classifier, by what OCR has found."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavar.cli import main
from llavar.corpus.item import Item, Origin, Scores
from llavar.corpus.select import (
    MetadataSettings,
    MetadataStage,
    ModelStage,
    SelectChoice,
    TextSettings,
    TextStage,
    covered,
    text_score,
    unknown,
)
from llavar.errors import ConfigError
from llavar.records import Box, Line, Reading, Reject


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("looking_helpers")


def line(text: str, left: float, top: float, right: float, bottom: float, confidence: float = 1.0) -> Line:
    return Line(text=text, box=Box(left=left, top=top, right=right, bottom=bottom), confidence=confidence)


def reading(*lines: Line) -> Reading:
    return Reading(image="a", size=(100, 100), lines=lines, engine="e")


def found(watermark: float = -1.0, unsafe: float = -1.0) -> Item:
    return Item(id="a", origin=Origin(source="s", watermark=watermark, unsafe=unsafe))


@pytest.mark.parametrize(
    ("watermark", "unsafe", "reason"),
    [
        (0.79, 0.49, None),
        (-1.0, -1.0, None),
        (0.8, 0.1, "a watermark is likely"),
        (0.1, 0.5, "unsafe content is likely"),
        (1.0, 1.0, "a watermark is likely"),
    ],
)
def test_metadata_speaks_against_a_picture_from_the_papers_limits_on(
    watermark: float, unsafe: float, reason: str | None
):
    outcome = MetadataStage().judged(found(watermark, unsafe))
    assert (outcome.reason if isinstance(outcome, Reject) else None) == reason


def test_a_limit_of_one_takes_all():
    stage = MetadataStage(settings=MetadataSettings(max_watermark=1, max_unsafe=1))
    assert isinstance(stage.judged(found(1.0, 1.0)), Item)


def test_what_passes_for_want_of_metadata_is_counted():
    counted = unknown([[found(), found(0.1)], [found(0.1, 0.2), found(-1.0, 0.3)]])
    assert (counted.watermark, counted.unsafe) == (2, 2)


def test_a_run_says_what_passed_for_want_of_metadata(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [
        {"URL": "http://a.example/1.jpg", "pwatermark": 0.9, "punsafe": 0.1},
        {"URL": "http://a.example/2.jpg", "pwatermark": 0.2},
        {"URL": "http://a.example/3.jpg"},
    ]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("source: {tables: [t.json]}")
    assert main(["corpus", "run", str(recipe), "--out", str(tmp_path / "c"), "--until", "metadata"]) == 0
    assert "metadata  3 in, 2 kept" in capsys.readouterr().out
    assert main(["corpus", "status", str(tmp_path / "c")]) == 0
    said = capsys.readouterr().out
    assert "1 left out: a watermark is likely" in said
    assert "passed unknown: 1 on watermarks, 2 on safety" in said


# ------------------------------------------------------------------------------------------ by OCR


POSTER = reading(line("GRAND OPENING", 10, 10, 90, 30), line("coffee for 350 at noon", 10, 40, 90, 50))


def test_the_formula():
    """Area 0.8 * 0.3 = 0.24, above 0.1; 7 words, above 6."""
    assert text_score(POSTER, TextSettings()) == 1
    half = TextSettings(full_words=14, full_area=0.48)
    assert text_score(POSTER, half) == pytest.approx(0.5, abs=0.01)
    unsure = reading(*(line(one.text, 10, 10, 90, 30, confidence=0.4) for one in POSTER.lines))
    assert text_score(unsure, TextSettings()) == pytest.approx(0.4, abs=0.01)


def test_texture_read_as_letters_and_footnotes_are_not_text_rich():
    texture = reading(line("i ; l .", 0, 0, 100, 60, confidence=0.3))
    assert text_score(texture, TextSettings()) == 0
    footnote = reading(line("set in ten point type by hand", 80, 98, 100, 99))
    assert text_score(footnote, TextSettings()) < 0.25
    assert text_score(reading(), TextSettings()) == 0
    assert text_score(reading(line("  ", 0, 0, 100, 100)), TextSettings()) == 0


def test_overlapping_boxes_cover_their_ground_once():
    one = line("a", 0, 0, 50, 100)
    assert covered([one], (100, 100)) == 0.5
    assert covered([one, one, line("b", 25, 0, 50, 100)], (100, 100)) == 0.5
    assert covered([], (100, 100)) == 0
    assert covered([one], (0, 0)) <= 1


boxes = st.builds(line, st.text(max_size=9), *[st.floats(0, 300) for _ in range(4)], st.floats(0, 1))


@settings(deadline=None)
@given(st.lists(boxes, max_size=6))
def test_scores_lie_in_0_to_1(lines: list[Line]):
    assert 0 <= text_score(reading(*lines), TextSettings()) <= 1


def test_the_stage_keeps_the_score_and_the_cluster():
    item = Item(id="a", origin=Origin(source="s"), readings=(POSTER,), scores=Scores(cluster=4))
    kept = TextStage().judged(item)
    assert isinstance(kept, Item)
    assert kept.scores == Scores(text=1.0, scorer="ocr 1", cluster=4)
    empty = Item(id="b", origin=Origin(source="s"), readings=(reading(),))
    rejected = TextStage().maker()()(empty)
    assert isinstance(rejected, Reject)
    assert (rejected.stage, rejected.reason) == ("select", "not text-rich enough")
    assert rejected.detail == "0.000 by ocr 1, at least 0.25 is wanted"
    assert isinstance(TextStage(settings=TextSettings(min_text=0)).judged(empty), Item)


# ------------------------------------------------------------------------------------------ by a model


def test_a_classifier_judges_pictures(helpers: ModuleType, tmp_path: Path):
    Image.new("RGB", (40, 40), (255, 0, 0)).save(tmp_path / "red.png")
    Image.new("RGB", (40, 40), (51, 0, 0)).save(tmp_path / "dark.png")
    (tmp_path / "page.png").write_bytes(b"<html>")
    stage = ModelStage(root=tmp_path, scorer=helpers.Redness())
    judge = stage.maker()()
    red, dark, page, gone = (
        judge(Item(id=name, origin=Origin(source="s", path=f"{name}.png")))
        for name in ("red", "dark", "page", "gone")
    )
    assert isinstance(red, Item)
    assert red.scores == Scores(text=1.0, scorer="redness 1")
    assert isinstance(dark, Reject)
    assert dark.detail == "0.200 by redness 1, at least 0.8 is wanted"
    assert [one.reason for one in (page, gone) if isinstance(one, Reject)] == [
        "the picture cannot be opened"
    ] * 2
    assert stage.settings.scorer == "redness 1"


@pytest.mark.parametrize(
    ("make", "settings_"),
    [
        (MetadataSettings, {"max_unsafe": 1.2}),
        (TextSettings, {"min_text": -1}),
        (TextSettings, {"full_area": 0}),
        (TextSettings, {"full_words": 0}),
        (SelectChoice, {"model": "x/y"}),
        (SelectChoice, {"label": "poster"}),
        (SelectChoice, {"min_text": 2}),
    ],
)
def test_settings_that_cannot_work_are_refused(make: Any, settings_: dict[str, Any]):
    with pytest.raises(ConfigError):
        make(**settings_)
