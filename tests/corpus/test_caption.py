"""Captions of pictures whose text is painted over, and the stages of a recipe that name models."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from llavar.corpus.caption import CaptionSettings, CaptionStage, without_text
from llavar.corpus.item import Item, Origin
from llavar.corpus.recipe import read_recipe, stages_of
from llavar.errors import ConfigError, MissingExtraError, NotFoundError
from llavar.records import Box, Line, Reading, Reject


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("looking_helpers")


def written(size: tuple[int, int] = (300, 200)) -> tuple[Image.Image, Line]:
    """A picture with black text on beige, a blue disc below it, and where the text is."""
    image = Image.new("RGB", size, "beige")
    draw = ImageDraw.Draw(image)
    draw.text((40, 30), "GRAND OPENING", fill="black", font_size=24)
    draw.ellipse((100, 120, 160, 180), fill="blue")
    left, top, right, bottom = draw.textbbox((40, 30), "GRAND OPENING", font_size=24)
    return image, Line(text="GRAND OPENING", box=Box(left=left, top=top, right=right, bottom=bottom))


def test_text_is_gone_and_the_rest_is_as_it_was():
    image, line = written()
    blind = np.asarray(without_text(image, [line])).astype(int)
    beige = np.array([245, 245, 220])
    assert np.abs(blind[20:70, 30:260] - beige).max() <= 6
    before = np.asarray(image).astype(int)
    assert np.array_equal(blind[100:], before[100:])
    assert np.array_equal(np.asarray(without_text(image, [])), before)


def test_boxes_are_brought_to_the_size_that_is_painted():
    image, line = written()
    large = image.resize((1200, 800))
    box = line.box
    scaled = replace(
        line, box=Box(left=box.left * 4, top=box.top * 4, right=box.right * 4, bottom=box.bottom * 4)
    )
    blind = without_text(large, [scaled], max_side=300)
    assert blind.size == (300, 200)
    assert np.asarray(blind)[20:70, 30:260].min() > 200


def test_a_picture_that_is_all_text_leaves_nothing_to_see():
    image, line = written()
    whole = replace(line, box=Box(left=0, top=0, right=300, bottom=200))
    assert without_text(image, [whole]).getcolors() == [(300 * 200, (128, 128, 128))]


def test_the_stage_adds_what_the_captioner_says(helpers: ModuleType, tmp_path: Path):
    image, line = written()
    image.save(tmp_path / "a.png")
    reading = Reading(image="a.png", size=image.size, lines=(line,), engine="e")
    stage = CaptionStage(root=tmp_path, captioner=helpers.Namer())
    describe = stage.maker()()
    item = Item(id="a", origin=Origin(source="s", path="a.png"), readings=(reading,))
    told = describe(item)
    assert isinstance(told, Item)
    assert told.description == "darkest 0"  # the blue of the disc
    unread = describe(replace(item, readings=()))
    assert isinstance(unread, Item)
    gone = describe(Item(id="b", origin=Origin(source="s", path="gone.png")))
    assert isinstance(gone, Reject)
    assert (gone.stage, gone.reason) == ("caption", "the picture cannot be opened")
    assert stage.settings == CaptionSettings(captioner="namer 1")


def test_without_opencv_the_stage_says_what_to_install(helpers: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"llavar\[ocr\]"):
        CaptionStage(root=Path(), captioner=helpers.Namer())()


@pytest.mark.parametrize("wrong", [{"max_side": 8}, {"margin": -1.0}, {"margin": 3.0}])
def test_settings_that_paint_nothing_sensible_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigError, match="give at least 32 pixels"):
        CaptionSettings(captioner="c", **wrong)


# ------------------------------------------------------------------------------------------ recipes


def recipe(folder: Path, more: str, source: str = "{folder: p}") -> Any:
    path = folder / "recipe.yaml"
    path.write_text(f"source: {source}\n{more}")
    return read_recipe(path)


def test_the_order_of_the_stages(helpers: ModuleType, tmp_path: Path):
    everything = recipe(
        tmp_path,
        "select: {model: m, label: red}\ncluster: {model: clip}\ncaption: {model: blip}\n",
        source="{tables: [t.json]}",
    )
    names = [stage.name for stage in stages_of(everything, tmp_path, helpers.StandIns())]
    assert names == [
        "metadata", "fetch", "open", "exact", "select", "features", "cluster", "keep", "ocr", "near",
        "caption", "pairs", "teach",
    ]  # fmt: skip
    plain = [stage.name for stage in stages_of(recipe(tmp_path, ""), tmp_path)]
    assert plain == ["open", "exact", "ocr", "select", "near", "pairs", "teach"]
    bare = [stage.name for stage in stages_of(recipe(tmp_path, "select: null\nnear: null"), tmp_path)]
    assert bare == ["open", "exact", "ocr", "pairs", "teach"]


@pytest.mark.parametrize(
    "more", ["select: {model: m, label: red}", "cluster: {model: m}", "caption: {model: m}"]
)
def test_a_model_without_anybody_to_run_it_is_an_error(more: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="the model 'm', and no models were handed in"):
        stages_of(recipe(tmp_path, more), tmp_path)


def test_folders_of_models_are_beside_the_recipe(helpers: ModuleType, tmp_path: Path):
    (tmp_path / "clip").mkdir()
    made = recipe(
        tmp_path,
        "ocr: {engines: [rapidocr, {name: easyocr, models: easy}]}\n"
        "cluster: {model: clip, centres: c.json}\ncaption: {model: owner/blip}\n",
    )
    assert made.cluster.model == str(tmp_path / "clip")
    assert made.cluster.centres == tmp_path / "c.json"
    assert made.caption.model == "owner/blip"
    assert made.ocr.engines[1].models == tmp_path / "easy"
    with pytest.raises(NotFoundError, match=r"c\.json"):
        stages_of(
            replace(made, ocr=replace(made.ocr, engines=made.ocr.engines[:1])), tmp_path, helpers.StandIns()
        )


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("ocr: {engines: []}", "there are 0 OCR engines"),
        ("ocr: {engines: [rapidocr, rapidocr]}", "named twice"),
        ("ocr: {min_agreement: 0.5}", "1 engine has nobody to agree with"),
        ("ocr: {engines: [rapidocr, tesseract], min_agreement: 5}", "must lie in 0 to 1"),
        ("ocr: {engines: [{name: easyocr, model: x}]}", "Unexpected keyword"),
        ("cluster: {count: 0}", "1 <= count <= sample"),
        ("caption: {}", "caption.model"),
        ("select: {model: m}", "both its name (model) and a label"),
    ],
)
def test_what_cannot_work_is_said_with_its_place(more: str, sentence: str, tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        recipe(tmp_path, more)
    assert sentence in str(caught.value)
