from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageDraw, ImageFont

from llavar.corpus.layout import LayoutSettings, arrange
from llavar.corpus.ocr import OcrReason, RapidOcr, read_all, read_one, shrink
from llavar.errors import ConfigError, MissingExtraError, ModelError
from llavar.records import Reading, Reject

Blank = Callable[..., Path]


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
    results = list(read_all([small, large, blank], workers=1))
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
    cover, water = read_all(paths, workers=1)
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


def test_results_keep_the_order_and_bad_pictures_become_rejects(blank: Blank, engines: ModuleType) -> None:
    page = blank(50, "page.png")
    page.write_bytes(b"<html>not a picture</html>")
    paths = [
        blank(engines.HANGS), blank(60), blank(engines.DIES), page, blank(61), blank(engines.FAILS),
        page.with_name("gone.png"), page.parent, blank(62),
    ]  # fmt: skip
    heard: dict[int, Reading | Reject] = {}
    results = list(
        read_all(paths, engine=engines.FakeEngine, workers=2, time_limit=2, on_result=heard.__setitem__)
    )
    assert [heard[place] for place in range(len(paths))] == results
    reasons = [result.reason if isinstance(result, Reject) else result.text for result in results]
    assert reasons == [
        OcrReason.TIME_LIMIT,
        "tall 30\nwide 60",
        OcrReason.PROCESS_DIED,
        OcrReason.CANNOT_OPEN,
        "tall 30\nwide 61",
        OcrReason.ENGINE_FAILED,
        OcrReason.CANNOT_OPEN,
        OcrReason.CANNOT_OPEN,
        "tall 30\nwide 62",
    ]
    ids = [result.id if isinstance(result, Reject) else result.image for result in results]
    assert ids == [str(path) for path in paths]
    assert isinstance(results[2], Reject)
    assert results[2].detail == "exit code 7, 3 times"
    assert {result.stage for result in results if isinstance(result, Reject)} == {"ocr"}


def test_a_last_picture_that_hangs_leaves_no_process(blank: Blank, engines: ModuleType) -> None:
    (only,) = read_all([blank(engines.HANGS)], engine=engines.FakeEngine, workers=4, time_limit=1)
    assert isinstance(only, Reject)
    assert only.detail == "1 s"


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


@pytest.mark.parametrize(
    ("size", "edge", "wanted"),
    [((100, 50), 384, (100, 50)), ((800, 768), 384, (400, 384)), ((768, 9000), 384, (384, 4500)),
     ((1, 5000), 384, (1, 5000)), ((800, 600), None, (800, 600)), ((384, 400), 384, (384, 400))],
)  # fmt: skip
def test_shrink(size: tuple[int, int], edge: int | None, wanted: tuple[int, int]) -> None:
    assert shrink(Image.new("RGB", size), edge).size == wanted


def test_an_engine_that_cannot_load_ends_the_run(blank: Blank, engines: ModuleType) -> None:
    path = blank(60)
    with pytest.raises(MissingExtraError, match="pip install nothing"):
        list(read_all([path], engine=engines.AbsentEngine))
    with pytest.raises(ModelError, match="ZeroDivisionError: no models"):
        list(read_all([path], engine=engines.BrokenEngine))
    with pytest.raises(ModelError, match="exit code 3"):
        list(read_all([path], engine=engines.DyingEngine))


def test_settings_that_cannot_work_are_refused_at_once(engines: ModuleType) -> None:
    with pytest.raises(ConfigError, match="workers is 0"):
        read_all([], workers=0)
    with pytest.raises(ConfigError, match="time_limit is nan"):
        read_all([], time_limit=float("nan"))
    with pytest.raises(ConfigError, match="short_edge is 3"):
        read_all([], short_edge=3)
    assert list(read_all([], engine=engines.FakeEngine)) == []


def test_closing_early_ends_the_processes(blank: Blank, engines: ModuleType) -> None:
    import multiprocessing

    paths = [blank(60), blank(61), blank(engines.HANGS)]
    results = read_all(paths, engine=engines.FakeEngine, workers=1)
    assert isinstance(next(results), Reading)
    results.close()
    assert not multiprocessing.active_children()
