"""The corpora of a demo: rows of drawn scenes and of a user's folder, at two scales, read once."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from llavar.corpus.crews import LocalCrews
from llavar.corpus.engines import rapidocr
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.shards import existing
from llavar.corpus.teach import TemplateTeacher
from llavar.corpus.wordings import SceneFacts
from llavar.data.source import read_rows
from llavar.records import Reject
from llavar.study.demo_corpus import REJECTS, STAGE1, STAGE2, Built, Drawn, SceneTeacher, read_drawn, read_own
from llavar.study.progress import Watch

ALL = LayoutSettings(min_height=0)
NANO = LayoutSettings(target_size=96, min_height=40)
Run = Callable[[Path], Built]


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Fake engines for the real one, in this process."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "corpus"))
    engines = importlib.import_module("fake_engines")
    monkeypatch.setattr(rapidocr, "factory", lambda models, languages: engines.FakeEngine)
    monkeypatch.setattr(LocalCrews, "crew", importlib.import_module("inline_crew").crew)
    return engines


@pytest.fixture
def broken(engines: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, nothing can be read any more."""
    return lambda: monkeypatch.setattr(rapidocr, "factory", lambda models, languages: engines.BrokenEngine)


def picture(path: Path, width: int, height: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), "white").save(path)
    return path


def drawn(out: Path) -> Built:
    """Rows of two pictures of a run's folder, of which one shows no text."""
    for width in (44, 60):
        if not (out / "pictures" / f"text/{width}.png").exists():
            picture(out / "pictures" / "text" / f"{width}.png", width)
    facts = {"44.png": SceneFacts(ground="green"), "60.png": SceneFacts(ground="blue")}
    source = Drawn(root=out / "corpus", folder=Path("..", "pictures"), names=("text/44.png", "text/60.png"))
    teacher = SceneTeacher(template=TemplateTeacher(max_pairs=8), facts=facts)
    return read_drawn(source, teacher, ALL, Watch(out / "seconds.json", quiet=True))


def answers(built: Built, id: str) -> list[str]:
    (row,) = (row for row in built.stage2 if row.id == id)
    return [turn.text for turn in row.conversation.turns[1::2]]


# ------------------------------------------------------------------------------------------ drawn scenes


def test_rows_and_rejects_are_returned_and_written(tmp_path: Path) -> None:
    built = drawn(tmp_path)
    assert [(row.id, row.images) for row in built.stage1] == [("text/60.png", ("text/60.png",))]
    assert built.stage1[0].conversation.turns[1].text == "wide 60\ntall 30"
    assert [row.id for row in built.stage2] == ["text/44.png", "text/60.png"]
    assert {id: reading.text for id, reading in built.readings.items()} == {
        "text/44.png": "",
        "text/60.png": "tall 30\nwide 60",
    }
    assert [(one.id, one.reason) for one in built.rejects] == [("text/44.png", "no text")]
    for name, rows in ((STAGE1, built.stage1), (STAGE2, built.stage2)):
        written = read_rows(tmp_path / "corpus" / name)
        assert [(row.id, row.conversation, row.images) for row in written] == [
            (row.id, row.conversation, row.images) for row in rows
        ]
    assert [Reject(**one) for one in rejects(tmp_path / "corpus")] == list(built.rejects)


def rejects(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / REJECTS).read_text(encoding="utf-8").splitlines()]


def test_the_teacher_knows_what_was_drawn(tmp_path: Path) -> None:
    built = drawn(tmp_path)
    assert "green" in answers(built, "text/44.png")
    assert "blue" not in answers(built, "text/44.png")


def test_a_second_run_reads_nothing_and_gives_the_same(tmp_path: Path, broken: Callable[[], None]) -> None:
    first = drawn(tmp_path)
    broken()
    assert drawn(tmp_path) == first


def test_a_run_that_was_moved_reads_nothing_again(tmp_path: Path, broken: Callable[[], None]) -> None:
    first = drawn(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    broken()
    assert drawn(tmp_path / "b") == first


def test_another_picture_is_read_again(tmp_path: Path) -> None:
    drawn(tmp_path)
    picture(tmp_path / "pictures" / "text" / "60.png", 77, 40)
    assert drawn(tmp_path).readings["text/60.png"].text == "tall 40\nwide 77"


# ------------------------------------------------------------------------------------------ the user's


@pytest.fixture
def folder(tmp_path: Path, engines: ModuleType) -> Path:
    """Large and small text, no text, a copy, a file that is no picture, and something else."""
    own = tmp_path / "own pictures"
    picture(own / "a.png", 60, 50)
    picture(own / "holiday" / "small.png", 200, 30)
    picture(own / "c.bmp", 60, 50)
    picture(own / "d.png", engines.EMPTY)
    (own / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    (own / "notes.txt").write_text("x")
    return own


def both(folder: Path, out: Path) -> tuple[Built, Built]:
    return read_own(folder, out / "own", out / "own-nano", NANO, Watch(out / "seconds.json", quiet=True))


def test_every_file_of_the_users_is_accounted_for(folder: Path, tmp_path: Path) -> None:
    full, _ = both(folder, tmp_path)
    assert (
        [row.id for row in full.stage1] == [row.id for row in full.stage2] == ["a.png", "holiday/small.png"]
    )
    assert full.stage1[1].images == (str(folder / "holiday" / "small.png"),)
    assert [(Path(one.id).name, one.stage, one.reason) for one in full.rejects] == [
        ("notes.txt", "scan", "not a picture by its extension"),
        ("torn.jpg", "open", "the picture cannot be opened"),
        ("c.bmp", "exact", "same pixels as another"),
        ("d.png", "pairs", "no text"),
        ("d.png", "teach", "nothing to ask about"),
    ]


def test_nano_sees_less_in_the_same_readings(folder: Path, tmp_path: Path, engines: ModuleType) -> None:
    full, nano = both(folder, tmp_path)
    assert nano.readings == full.readings
    assert [row.id for row in nano.stage1] == ["a.png"]
    assert ("holiday/small.png", "too small for the vision tower") in [(r.id, r.reason) for r in nano.rejects]
    assert (tmp_path / "own-nano" / STAGE1).is_file()
    assert existing(tmp_path / "own").root == tmp_path / "own"
    assert [stage.stage for stage in existing(tmp_path / "own-nano").chain()] == ["scan", "pairs", "teach"]


def test_nothing_is_read_twice(folder: Path, tmp_path: Path, broken: Callable[[], None]) -> None:
    first = both(folder, tmp_path)
    broken()
    assert both(folder, tmp_path) == first


def test_the_users_personal_data_is_masked_in_rows(
    folder: Path, tmp_path: Path, engines: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Phone(engines.FakeEngine):
        def read(self, image: Image.Image) -> object:
            lines = super().read(image)
            return tuple(type(line)(text="Tel. +49 30 1234567", box=line.box) for line in lines[:1])

    monkeypatch.setattr(rapidocr, "factory", lambda models, languages: Phone)
    full, _ = both(folder, tmp_path)
    assert {row.conversation.turns[1].text for row in full.stage1} == {"Tel. [phone]"}
    assert full.stage2 == ()
