"""Engines behind one protocol: the choice of them, and adapters against stand-ins of their packages."""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from llavar.corpus.engines import EngineChoice, factory, known
from llavar.corpus.engines._shared import hull, share
from llavar.corpus.engines.rapidocr import RapidOcr
from llavar.errors import ConfigError, MissingExtraError, ModelError, NotFoundError
from llavar.records import Box


def installed(monkeypatch: pytest.MonkeyPatch, name: str, **parts: object) -> ModuleType:
    """A package ``name`` that can be imported, with ``parts``."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    for key, value in parts.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_the_modules_of_the_package_are_the_engines():
    assert known() == ("easyocr", "paddleocr", "rapidocr", "tesseract")
    assert factory(EngineChoice(name="rapidocr")) is RapidOcr


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"name": "eyes"}, "'eyes'; known are easyocr, paddleocr, rapidocr, tesseract"),
        ({"name": "_shared"}, "'_shared'; known are"),
        ({"name": "tesseract", "languages": ("../eng",)}, "'../eng' is no code of a language"),
        ({"name": "rapidocr", "languages": ("en",)}, "give it by its name alone"),
    ],
)
def test_a_choice_that_cannot_work_is_refused(choice: dict[str, Any], sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        factory(EngineChoice(**choice))


@pytest.mark.parametrize("name", ["easyocr", "paddleocr", "tesseract"])
def test_an_engine_that_is_not_installed_names_the_remedy(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="not installed: run  pip install"):
        factory(EngineChoice(name=name))


@pytest.mark.parametrize("name", ["easyocr", "paddleocr"])
def test_engines_that_would_download_want_a_folder(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    installed(monkeypatch, name)
    with pytest.raises(ConfigError, match=f"would download its models.*name: {name}, models: DIR"):
        factory(EngineChoice(name=name))
    with pytest.raises(NotFoundError, match="does not exist"):
        factory(EngineChoice(name=name, models=tmp_path / "none"))
    with pytest.raises(ModelError, match=r"craft_mlt_25k\.pth|inference\.yml"):
        factory(EngineChoice(name=name, models=tmp_path))


def test_boxes_stay_within_the_picture_and_confidences_within_0_and_1():
    assert hull([(-3, 2), (50, 4), (40, 90)], (40, 80)) == Box(left=0, top=2, right=40, bottom=80)
    assert [share(value) for value in (-0.1, 0.5, 1.2, float("nan"))] == [0.0, 0.5, 1.0, 0.0]


# ------------------------------------------------------------------------------------------ EasyOCR


class Reader:
    """EasyOCR's, as far as it is used: (four corners, text, confidence) for each line."""

    seen: list[tuple[Any, dict[str, Any]]]

    def __init__(self, languages: list[str], **settings: Any) -> None:
        if languages == ["xx"]:
            raise ValueError({"xx"}, "is not supported")
        if not (Path(settings["model_storage_directory"]) / "craft_mlt_25k.pth").is_file():
            raise FileNotFoundError("Missing craft_mlt_25k.pth and downloads disabled")
        self.languages, self.settings = languages, settings

    def readtext(self, image: np.ndarray) -> list[tuple[Any, str, np.float64]]:
        _, width, channels = image.shape
        assert (image.dtype, channels, tuple(image[0, 0])) == (np.uint8, 3, (250, 0, 0))
        quad = [[np.int32(1), np.int32(2)], [width + 9, 3], [width, 20], [0, 19]]
        return [(quad, "Grand opening", np.float64(0.75)), ([[0, 0], [4, 0], [4, 4], [0, 4]], "", 0.0)]


@pytest.fixture
def easy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    installed(monkeypatch, "easyocr", Reader=Reader)
    (tmp_path / "craft_mlt_25k.pth").write_bytes(b"detector")
    (tmp_path / "english_g2.pth").write_bytes(b"recogniser")
    return tmp_path


def test_easyocr_reads_lines_from_its_format_and_downloads_nothing(easy: Path):
    made = pickle.loads(pickle.dumps(factory(EngineChoice(name="easyocr", models=easy))))
    engine = made()
    assert engine.name == made.name
    assert made.name.startswith("easyocr absent en ")
    assert engine._reader.settings["download_enabled"] is False
    assert engine._reader.settings["gpu"] is False
    first, second = engine.read(Image.new("RGB", (60, 30), (250, 0, 0)))
    assert (first.text, first.confidence) == ("Grand opening", 0.75)
    assert first.box == Box(left=0, top=2, right=60, bottom=20)
    assert second.text == ""


def test_other_models_are_another_engine(easy: Path):
    before = factory(EngineChoice(name="easyocr", models=easy)).name
    assert factory(EngineChoice(name="easyocr", models=easy)).name == before
    (easy / "english_g2.pth").write_bytes(b"another one")
    assert factory(EngineChoice(name="easyocr", models=easy)).name != before
    assert factory(EngineChoice(name="easyocr", models=easy, languages=("de",))).name != before


def test_easyocr_with_models_it_cannot_use_says_why(easy: Path):
    with pytest.raises(ModelError, match="is not supported"):
        factory(EngineChoice(name="easyocr", models=easy, languages=("xx",)))()
    (easy / "craft_mlt_25k.pth").unlink()
    with pytest.raises(ModelError, match=r"Missing craft_mlt_25k\.pth and downloads disabled"):
        factory(EngineChoice(name="easyocr", models=easy))()


# ------------------------------------------------------------------------------------------ PaddleOCR


class Paddle:
    """PaddleOCR 3's pipeline: a page for each picture, a mapping of lists in step."""

    def __init__(self, **settings: Any) -> None:
        if settings["text_detection_model_name"] == "broken":
            raise RuntimeError("no such model")
        self.settings = settings

    def predict(self, image: np.ndarray) -> list[dict[str, Any]]:
        assert tuple(image[0, 0]) == (0, 0, 250)  # blue first
        polys = [np.array([[2, 3], [30, 3], [30, 9], [2, 9]], dtype=np.int16)]
        return [{"rec_texts": ["OPEN"], "rec_polys": polys, "rec_scores": [0.97]}] if image.size > 3 else []


@pytest.fixture
def paddle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    installed(monkeypatch, "paddleocr", PaddleOCR=Paddle)
    for part, model in (("det", "PP-OCRv5_mobile_det"), ("rec", "en_PP-OCRv5_mobile_rec")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "inference.yml").write_text(f"Global:\n  model_name: {model}\n")
        (tmp_path / part / "inference.pdiparams").write_bytes(b"weights")
    return tmp_path


def test_paddleocr_reads_lines_from_its_format(paddle: Path):
    made = factory(EngineChoice(name="paddleocr", models=paddle))
    assert made.name.startswith("paddleocr absent PP-OCRv5_mobile_det+en_PP-OCRv5_mobile_rec ")
    engine: Any = pickle.loads(pickle.dumps(made))()
    asked = engine._engine.settings
    assert asked["text_detection_model_dir"] == str(paddle / "det")
    assert asked["text_recognition_model_name"] == "en_PP-OCRv5_mobile_rec"
    assert asked["text_rec_score_thresh"] == 0.0
    (line,) = engine.read(Image.new("RGB", (60, 30), (250, 0, 0)))
    assert (line.text, line.confidence) == ("OPEN", 0.97)
    assert line.box == Box(left=2, top=3, right=30, bottom=9)


@pytest.mark.parametrize("about", ["", "Global: 3", "[", "Global: {model_name: 7}", "\xff"])
def test_a_paddle_model_without_its_name_is_refused(about: str, paddle: Path):
    (paddle / "rec" / "inference.yml").write_bytes(about.encode("latin-1"))
    with pytest.raises(ModelError, match="does not say Global: model_name"):
        factory(EngineChoice(name="paddleocr", models=paddle))


def test_paddleocr_that_cannot_load_or_take_a_language_says_so(paddle: Path):
    (paddle / "det" / "inference.yml").write_text("Global: {model_name: broken}")
    with pytest.raises(ModelError, match="no such model"):
        factory(EngineChoice(name="paddleocr", models=paddle))()
    with pytest.raises(ConfigError, match="leave them out"):
        factory(EngineChoice(name="paddleocr", models=paddle, languages=("en",)))


def test_paddleocr_2_is_refused(paddle: Path, monkeypatch: pytest.MonkeyPatch):
    from llavar.corpus.engines import paddleocr

    monkeypatch.setattr(paddleocr, "version", lambda package: "2.10.0")
    with pytest.raises(ModelError, match="3 or later is needed"):
        factory(EngineChoice(name="paddleocr", models=paddle))


# ------------------------------------------------------------------------------------------ Tesseract


@pytest.fixture(scope="module")
def tesseract() -> Any:
    pytest.importorskip("tesserocr", reason="tesserocr is not installed")
    try:
        return factory(EngineChoice(name="tesseract"))
    except ModelError as error:
        pytest.skip(str(error))


def test_tesseract_reads_rendered_text_in_pixels_of_the_picture(tesseract: Any):
    image = Image.new("RGB", (400, 130), "white")
    draw = ImageDraw.Draw(image)
    for place, text in enumerate(("GRAND OPENING", "Coffee for 350")):
        draw.text((20, 20 + 50 * place), text, fill="black", font=ImageFont.load_default(size=28))
    engine = tesseract()
    lines = sorted(engine.read(image), key=lambda line: line.box.top)
    assert [line.text for line in lines] == ["GRAND OPENING", "Coffee for 350"]
    assert all(0.5 < line.confidence <= 1 for line in lines)
    first = lines[0].box
    assert (abs(first.left - 22) < 6, abs(first.top - 27) < 6, abs(first.bottom - 47) < 8) == (True,) * 3
    assert engine.read(Image.new("RGB", (200, 200), "white")) == ()
    assert engine.read(Image.new("RGB", (1, 1))) == ()
    assert os.environ["OMP_THREAD_LIMIT"] == "1"


def test_tesseract_without_a_language_says_what_to_install(tesseract: Any, tmp_path: Path):
    assert tesseract.name.startswith("tesseract 2")
    with pytest.raises(ModelError, match="in no usual place.*tesseract-ocr-eng"):
        factory(EngineChoice(name="tesseract", languages=("eng", "xyz")))
    with pytest.raises(ModelError, match=r"no eng\.traineddata in"):
        factory(EngineChoice(name="tesseract", models=tmp_path))
    (tmp_path / "eng.traineddata").write_bytes(b"nothing of use")
    with pytest.raises(ModelError, match="install it again"):
        factory(EngineChoice(name="tesseract", models=tmp_path))()
