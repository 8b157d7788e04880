"""A folder as a source: what is found in it, and what a change in it makes anew."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
from PIL import Image

from llavar.corpus.crew import Maker
from llavar.corpus.dedup import ExactStage
from llavar.corpus.item import Item
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.opening import OpenStage
from llavar.corpus.rows import OcrStage, PairsSettings, PairsStage
from llavar.corpus.shards import Corpus, RunSettings
from llavar.corpus.sources import Folder, ScanReason, scan_folder
from llavar.corpus.stage import Outcome, Stage
from llavar.errors import ConfigError, DataError, NotFoundError

Blank = Callable[..., Path]
WIDTHS = (60, 61, 62, 63, 64)


# ------------------------------------------------------------------------------------------ what is found


def test_scan_finds_pictures_by_extension_and_names_the_rest(blank: Blank, tmp_path: Path) -> None:
    blank(60, "b.PNG")
    blank(60, "sub/a.JPeg")
    blank(60, "sub/.hidden.png")
    blank(60, ".cache/x.png")
    folder = tmp_path / "pictures"
    (folder / "notes.txt").write_text("x", encoding="utf-8")
    (folder / "README").write_text("x", encoding="utf-8")
    (folder / "broken.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.jpg")
    found, rejects = scan_folder(folder)
    assert [path.relative_to(folder).as_posix() for path in found] == ["b.PNG", "sub/a.JPeg"]
    assert [(Path(reject.id).name, reject.reason) for reject in rejects] == [
        ("README", ScanReason.NOT_A_PICTURE),
        ("broken.png", ScanReason.NOT_A_FILE),
        ("notes.txt", ScanReason.NOT_A_PICTURE),
        ("pipe.jpg", ScanReason.NOT_A_FILE),
    ]


def test_scan_of_a_name_that_is_not_utf8(blank: Blank, tmp_path: Path) -> None:
    blank(60)
    (tmp_path / "pictures" / "a\udcff.png").write_bytes(b"x")
    found, rejects = scan_folder(tmp_path / "pictures")
    assert len(found) == 1
    assert rejects[0].reason == ScanReason.NAME
    assert rejects[0].id.endswith("a\\udcff.png")


def test_scan_of_nothing_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        scan_folder(tmp_path / "gone")
    with pytest.raises(DataError, match="holds 0 files"):
        scan_folder(tmp_path)
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="holds 1 files and no picture"):
        scan_folder(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        scan_folder(tmp_path / "a.txt")


# ------------------------------------------------------------------------------------------ done again


@dataclass(slots=True, kw_only=True)
class Place:
    """A folder, its corpus in shards of three, and the names of the pictures that each stage looks at."""

    folder: Path
    root: Path
    engines: ModuleType
    opened: list[str] = field(default_factory=list[str])
    read: list[str] = field(default_factory=list[str])

    def run(self, until: str | None = None, layout: LayoutSettings | None = None) -> None:
        """Compute what is missing."""
        self.opened.clear()
        self.read.clear()
        corpus, source = Corpus(self.root), Folder(path=self.folder)
        stages = self.stages(layout or LayoutSettings(min_height=0))
        corpus.run(source, stages, settings=RunSettings(shard_rows=3), until=until)

    def stages(self, layout: LayoutSettings) -> list[Stage]:
        place = self

        class Opening(OpenStage):
            def __call__(self) -> Callable[[Item], Outcome]:
                return noting(super().__call__(), place.opened)

            def maker(self) -> Maker[Callable[[Item], Outcome]]:
                return self

        class Reading(OcrStage):
            name: ClassVar[str] = "ocr"

            def __call__(self) -> Callable[[Item], Outcome]:
                return noting(super().__call__(), place.read)

        return [
            Opening(root=self.root, time_limit=None),
            ExactStage(),
            Reading(root=self.root, engines=(self.engines.FakeEngine,), time_limit=None),
            PairsStage(settings=PairsSettings(layout=layout)),
        ]

    def rows(self) -> dict[str, str]:
        found = (item for items in Corpus(self.root).items("pairs") for item in items)
        return {item.id: item.stage1.turns[1].text for item in found if item.stage1 is not None}

    def picture(self, name: str) -> Path:
        return self.folder / name


def noting(work: Callable[[Item], Outcome], seen: list[str]) -> Callable[[Item], Outcome]:
    def noted(item: Item) -> Outcome:
        seen.append(item.id)
        return work(item)

    return noted


@pytest.fixture
def place(tmp_path: Path, engines: ModuleType) -> Place:
    (tmp_path / "p").mkdir()
    place = Place(folder=tmp_path / "p", root=tmp_path / "c", engines=engines)
    for width in WIDTHS:
        save(place, f"{width}.png", width)
    place.run()
    assert (len(place.opened), len(place.read)) == (5, 5)
    return place


def save(place: Place, name: str, width: int, height: int = 50) -> None:
    Image.new("RGB", (width, height), "white").save(place.picture(name))


def later(path: Path, seconds: int = 10) -> None:
    """The file was changed later than it was."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + seconds * 10**9))


def digests(root: Path, stages: Sequence[str]) -> Iterator[bytes]:
    return (path.read_bytes() for stage in stages for path in sorted((root / "stages" / stage).glob("0*")))


def test_nothing_is_done_again_where_nothing_has_changed(place: Place) -> None:
    place.run()
    assert (place.opened, place.read) == ([], [])


def test_a_changed_picture_is_noticed_and_it_alone_is_read_again(place: Place) -> None:
    save(place, "61.png", 90)
    later(place.picture("61.png"))
    place.run()
    assert (place.opened, place.read) == (["61.png"], ["61.png"])
    assert place.rows()["61.png"] == "wide 90\ntall 50"
    assert place.rows()["60.png"] == "wide 60\ntall 50"
    assert not (place.root / "reuse").exists()


def test_a_picture_that_was_touched_is_opened_and_no_more(place: Place) -> None:
    behind = ("open", "exact", "ocr", "pairs")
    before = list(digests(place.root, behind))
    later(place.picture("61.png"))
    place.run()
    assert (place.opened, place.read) == (["61.png"], [])
    assert list(digests(place.root, behind)) == before


def test_a_change_of_content_under_size_and_time_of_the_old_one_is_not_seen(place: Place) -> None:
    """The limit of it: what looks the same from outside counts as the same."""
    path = place.picture("61.png")
    found, size = path.stat(), path.stat().st_size
    path.write_bytes(b"\x00" * size)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    place.run()
    assert place.opened == []


def test_a_new_picture_moves_others_between_shards_and_few_are_read_again(place: Place) -> None:
    save(place, "600.png", 70)  # the second by name: one item of each shard moves on
    place.run()
    assert Counter(place.read) == Counter(["600.png", "62.png"])
    assert len(place.rows()) == 6


def test_a_picture_that_is_gone_takes_its_rows_with_it(place: Place) -> None:
    place.picture("63.png").unlink()
    place.run()
    assert place.read == []
    assert list(place.rows()) == ["60.png", "61.png", "62.png", "64.png"]


def test_stopped_behind_the_change_what_was_read_is_still_of_use(place: Place) -> None:
    save(place, "61.png", 90)
    later(place.picture("61.png"))
    place.run(until="exact")
    assert (place.opened, place.read) == (["61.png"], [])
    place.run()
    assert (place.opened, place.read) == ([], ["61.png"])
    assert place.rows()["61.png"] == "wide 90\ntall 50"


def test_a_change_that_was_stopped_ends_as_if_made_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of all stages are those of a corpus that never knew the old picture."""
    save(place, "61.png", 90)
    later(place.picture("61.png"))
    save(place, "600.png", 70)

    def stopping(engine: object, image: Image.Image) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place.engines.FakeEngine, "read", stopping)
        with pytest.raises(KeyboardInterrupt):
            place.run()
    place.run()
    assert Counter(place.read) == Counter(["600.png", "61.png", "62.png"])
    new = Place(folder=place.folder, root=place.root.with_name("new"), engines=place.engines)
    new.run()
    stages = ("scan", "open", "exact", "ocr", "pairs")
    assert list(digests(place.root, stages)) == list(digests(new.root, stages))


def test_outcomes_of_other_settings_are_not_taken_up(place: Place) -> None:
    save(place, "61.png", 90)
    later(place.picture("61.png"))
    place.run(layout=LayoutSettings(min_height=0, min_confidence=0.92))
    assert place.read == ["61.png"]
    assert set(place.rows().values()) == {"wide 60", "wide 62", "wide 63", "wide 64", "wide 90"}


def test_a_file_that_is_no_picture_any_more_is_a_reject(place: Place) -> None:
    place.picture("61.png").write_bytes(b"<html>")
    later(place.picture("61.png"))
    place.run()
    (ended,) = [one.reject for rejects in Corpus(place.root).rejected("open") for one in rejects]
    assert (ended.id, ended.reason) == ("61.png", "the picture cannot be opened")
    assert len(place.rows()) == 4


def test_what_is_left_out_is_called_by_its_place_in_the_folder(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "notes.txt").write_text("no picture")
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    assert [one.id for one in Folder(path=tmp_path).items()] == ["sub/notes.txt", "a.png"]
