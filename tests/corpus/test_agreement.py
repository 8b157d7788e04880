"""How far two engines agree, character by character."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavar.cli import main
from llavar.corpus.agreement import AgreementSettings, AgreementStage, likeness
from llavar.corpus.engines import rapidocr, tesseract
from llavar.corpus.item import Item, Origin
from llavar.errors import ConfigError
from llavar.records import Box, Line, Reading, Reject


def reading(*texts: str, engine: str = "one", confidence: float = 0.9) -> Reading:
    lines = tuple(
        Line(text=text, box=Box(left=0, top=20 * n, right=90, bottom=20 * n + 15), confidence=confidence)
        for n, text in enumerate(texts)
    )
    return Reading(image="a", size=(100, 100), lines=lines, engine=engine)


def item(*readings: Reading) -> Item:
    return Item(id="a", origin=Origin(source="s"), readings=readings)


def subsequence(one: str, other: str) -> int:
    """Length of the longest common one, the slow way."""
    row = [0] * (len(other) + 1)
    for a in one:
        before = row
        row = [0]
        for place, b in enumerate(other):
            row.append(before[place] + 1 if a == b else max(before[place + 1], row[place]))
    return row[-1]


words = st.text("abcé \U0001f600", max_size=40)


@settings(deadline=None, max_examples=200)
@given(words, words)
def test_likeness_is_that_of_the_longest_common_subsequence(one: str, other: str):
    wanted = 2 * subsequence(one, other) / (len(one) + len(other)) if one or other else 1.0
    assert likeness(one, other) == pytest.approx(wanted)
    assert likeness(one, other) == likeness(other, one)


def test_lines_and_blanks_do_not_count_and_case_does():
    stage = AgreementStage()
    assert stage.agreement(reading("GRAND OPENING"), reading("GRAND", "OPENING")) == 1
    assert stage.agreement(reading("OPEN"), reading("open")) == 0
    assert stage.agreement(reading("OPEN"), reading("OPAN")) == 0.75
    assert stage.agreement(reading(), reading()) == 1
    assert stage.agreement(reading("OPEN"), reading()) == 0


def test_what_an_engine_is_unsure_of_takes_no_part():
    stage = AgreementStage()
    noisy = reading("OPEN", engine="two")
    noise = reading("xq;", confidence=0.2).lines
    noisy = Reading(image="a", size=(100, 100), lines=(*noisy.lines, *noise), engine="two")
    assert stage.agreement(reading("OPEN"), noisy) == 1
    strict = AgreementStage(settings=AgreementSettings(min_confidence=0.1))
    assert strict.agreement(reading("OPEN"), noisy) < 1


def test_the_stage_measures_the_worst_partner_and_rejects_below_the_threshold():
    three = item(reading("OPEN"), reading("OPEN", engine="two"), reading("OPAN", engine="three"))
    measured = AgreementStage().compared(three)
    assert isinstance(measured, Item)
    assert measured.agreement == 0.75
    strict = AgreementStage(settings=AgreementSettings(min_agreement=0.8))
    rejected = strict.compared(three)
    assert isinstance(rejected, Reject)
    assert (rejected.stage, rejected.reason) == ("agree", "the OCR engines disagree")
    assert rejected.detail == "0.750 with three, at least 0.8 is wanted"
    alone = item(reading("OPEN"))
    assert strict.maker()()(alone) is alone


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_threshold_beyond_0_and_1_is_refused(value: float):
    with pytest.raises(ConfigError, match="must lie in 0 to 1"):
        AgreementSettings(min_agreement=value)


def test_both_readings_of_a_run_are_kept_with_their_agreement(
    engines: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(rapidocr, "factory", lambda models, languages: engines.FakeEngine)
    monkeypatch.setattr(tesseract, "factory", lambda models, languages: engines.OtherEngine)
    (tmp_path / "p").mkdir()
    Image.new("RGB", (60, 50), "white").save(tmp_path / "p" / "a.png")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "source: {folder: p}\nlayout: {min_height: 0}\nworkers: 1\n"
        "ocr: {engines: [rapidocr, {name: tesseract, languages: [eng]}], min_agreement: 0.9}\n"
    )
    assert main(["corpus", "run", str(recipe), "--out", str(tmp_path / "c")]) == 0
    capsys.readouterr()
    assert main(["corpus", "explain", str(tmp_path / "c"), "a.png"]) == 0
    life = json.loads(capsys.readouterr().out)
    assert [one["engine"] for one in life["item"]["readings"]] == ["fake 1", "fake 2"]
    assert life["item"]["agreement"] == 1.0
    assert life["item"]["scores"]["scorer"] == "ocr 1"
