from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from llavar.corpus import ocr
from llavar.corpus.engines import Engine
from llavar.corpus.engines.rapidocr import RapidOcr
from llavar.corpus.item import Item, Origin
from llavar.corpus.layout import LayoutSettings, arrange
from llavar.corpus.ocr import OcrReason, opened, read_opened, shrink
from llavar.corpus.rows import OcrSettings, OcrStage
from llavar.corpus.shards import Corpus, RunSettings
from llavar.corpus.sources import Folder
from llavar.errors import ConfigError, MissingExtraError, ModelError
from llavar.images import open_image
from llavar.records import Reading, Reject

Blank = Callable[..., Path]


def read_one(path: Path, engine: Engine, **options: Any) -> Reading | Reject:
    picture = opened(path, **options)
    return picture if isinstance(picture, Reject) else read_opened(picture, engine)


def poster(path: Path, *lines: str, scale: int = 1) -> Path:
    image = Image.new("RGB", (520 * scale, (30 + 70 * len(lines)) * scale), "white")
    draw = ImageDraw.Draw(image)
    for place, line in enumerate(lines):
        font = ImageFont.load_default(size=40 * scale)
        draw.text((20 * scale, (20 + 70 * place) * scale), line, fill="black", font=font)
    image.save(path)
    return path


def test_rapidocr_reads_rendered_text_exactly(tmp_path: Path) -> None:
    small = poster(tmp_path / "a.png", "GRAND OPENING", "Coffee for 350", "Sunday at noon")
    large = poster(tmp_path / "b.png", "Second poster", "with two lines", scale=3)
    blank = tmp_path / "c.png"
    Image.new("RGB", (400, 300), "white").save(blank)
    engine = RapidOcr()
    results = [read_one(path, engine) for path in (small, large, blank)]
    assert all(isinstance(result, Reading) for result in results), results
    readings = [result for result in results if isinstance(result, Reading)]
    texts = [arrange(reading, LayoutSettings()).reading.text for reading in readings]
    assert texts == ["GRAND OPENING\nCoffee for 350\nSunday at noon", "Second poster\nwith two lines", ""]
    assert readings[0].engine == RapidOcr.name
    assert readings[0].engine.startswith("rapidocr 3")
    # The large one was shrunk for reading; its boxes are in pixels of the file.
    assert readings[1].size == (1560, 510)
    first = min(readings[1].lines, key=lambda line: line.box.top).box
    assert 30 < first.left < 90
    assert 40 < first.top < 110
    assert 120 < first.bottom < 220


def test_rapidocr_reads_a_picture_of_one_pixel(tmp_path: Path) -> None:
    assert RapidOcr().read(Image.new("RGB", (1, 1))) == ()


def test_rapidocr_on_photographs(shared_data: Path) -> None:
    paths = [shared_data / "photos" / name for name in ("gatech.png", "waterview.jpg")]
    engine = RapidOcr()
    cover, water = (read_one(path, engine) for path in paths)
    assert isinstance(cover, Reading)
    assert "1885" in cover.text
    assert "PROGRESS" in cover.text
    assert isinstance(water, Reading)
    assert arrange(water, LayoutSettings()).reading.lines == ()


def test_rapidocr_absent_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"llavar\[ocr\]"):
        RapidOcr()


def test_rapidocr_without_its_models_downloads_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"PP-OCRv6_det_small\.onnx.*>= 3\.9\.2"):
        RapidOcr._params(tmp_path)


def read(folder: Path, out: Path, engine: type, time_limit: float = 2.0) -> dict[str, str]:
    """What the stage makes of each picture of a folder: its text, or why it has none."""
    corpus, stage = Corpus(out), OcrStage(root=out, engines=(engine,), time_limit=time_limit)
    corpus.run(Folder(path=folder), [stage], settings=RunSettings(workers=2))
    found = {item.id: item.readings[0].text for items in corpus.items("ocr") for item in items}
    ended = [one.reject for rejects in corpus.rejected("ocr") for one in rejects]
    assert {reject.stage for reject in ended} == {"ocr"}
    return found | {reject.id: reject.reason for reject in ended}


def test_bad_pictures_are_rejects_and_the_others_are_read(
    blank: Blank, engines: ModuleType, tmp_path: Path
) -> None:
    page = blank(50, "page.png")
    page.write_bytes(b"<html>not a picture</html>")
    for width in (engines.HANGS, 60, engines.DIES, 61, engines.FAILS):
        blank(width)
    assert read(page.parent, tmp_path / "c", engines.FakeEngine) == {
        "41.png": "it took longer than the time limit",
        "42.png": "the process died on it",
        "43.png": OcrReason.ENGINE_FAILED,
        "60.png": "tall 30\nwide 60",
        "61.png": "tall 30\nwide 61",
        "page.png": OcrReason.CANNOT_OPEN,
    }


@pytest.mark.parametrize("what", ["gone.png", "."])
def test_what_is_no_file_is_a_reject(what: str, engines: ModuleType, tmp_path: Path) -> None:
    work = OcrStage(root=tmp_path, engines=(engines.FakeEngine,))()
    found = work(Item(id="a", origin=Origin(source="s", path=what)))
    assert isinstance(found, Reject)
    assert (found.id, found.reason) == ("a", OcrReason.CANNOT_OPEN)


def test_boxes_come_back_in_pixels_of_the_original(blank: Blank, engines: ModuleType) -> None:
    path = blank(1536, height=768)
    reading = read_one(path, engines.FakeEngine())
    assert isinstance(reading, Reading)
    assert reading.size == (1536, 768)
    assert reading.text == "tall 384\nwide 768"
    lower = reading.lines[0].box
    assert (lower.left, lower.top, lower.right, lower.bottom) == (0, 384, 1536, 768)
    full = read_one(path, engines.FakeEngine(), short_edge=None)
    assert isinstance(full, Reading)
    assert full.text == "tall 768\nwide 1536"


def test_a_large_jpeg_of_known_size_is_read_from_a_part_of_its_pixels(
    engines: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int | None] = []

    def noting(path: Path, reduced_to: int | None = None, called: str | None = None) -> Image.Image:
        assert called is None
        seen.append(reduced_to)
        return open_image(path, reduced_to=reduced_to)

    monkeypatch.setattr(ocr, "open_image", noting)
    path = poster(tmp_path / "a.jpg", "GRAND OPENING", "Fresh bread", scale=8)
    full, part = read_one(path, RapidOcr()), read_one(path, RapidOcr(), size=(4160, 1360))
    assert isinstance(full, Reading)
    assert isinstance(part, Reading)
    assert seen == [None, 768]
    assert full.size == part.size == (4160, 1360)
    assert arrange(part, LayoutSettings()).reading.text == "GRAND OPENING\nFresh bread"
    for one, other in zip(full.lines, part.lines, strict=True):
        assert one.text == other.text
        assert abs(one.box.left - other.box.left) < 40
        assert abs(one.box.bottom - other.box.bottom) < 40


@pytest.mark.parametrize(
    ("size", "edge", "wanted"),
    [((100, 50), 384, (100, 50)), ((800, 768), 384, (400, 384)), ((768, 9000), 384, (384, 4500)),
     ((1, 5000), 384, (1, 5000)), ((800, 600), None, (800, 600)), ((384, 400), 384, (384, 400))],
)  # fmt: skip
def test_shrink(size: tuple[int, int], edge: int | None, wanted: tuple[int, int]) -> None:
    assert shrink(Image.new("RGB", size), edge).size == wanted


@pytest.mark.parametrize(
    ("engine", "error", "sentence"),
    [
        ("AbsentEngine", MissingExtraError, "pip install nothing"),
        ("BrokenEngine", ModelError, "ZeroDivisionError: no models"),
        ("DyingEngine", ModelError, "exit code 3"),
    ],
)
def test_an_engine_that_cannot_load_ends_the_run(
    engine: str, error: type[Exception], sentence: str, blank: Blank, engines: ModuleType, tmp_path: Path
) -> None:
    folder = blank(60).parent
    with pytest.raises(error, match=sentence):
        read(folder, tmp_path / "c", getattr(engines, engine))


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="there are 0 OCR engines"):
        OcrSettings(engines=())
    with pytest.raises(ConfigError, match="short_edge is 3"):
        OcrSettings(engines=("a",), short_edge=3)
