from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageDraw, ImageFont

from llavar.corpus.build import (
    BuildSettings,
    Built,
    Picture,
    Progress,
    ScanReason,
    Step,
    as_pictures,
    build,
    scan_folder,
)
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.ocr import OcrReason
from llavar.corpus.pairs import PairReason
from llavar.corpus.teach import TeachReason
from llavar.corpus.wordings import SceneFacts
from llavar.data.source import read_rows
from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.records import Conversation, Line, Reading, Reject

Blank = Callable[..., Path]

# The boxes of the fake engines are half as high as the picture: nothing is too small.
SETTINGS = BuildSettings(workers=1, time_limit=2)
FILES = ("readings.jsonl", "rejects.jsonl", "stage1.json", "stage2.json")


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pictures(*paths: Path) -> list[Picture]:
    return [Picture(id=path.name, path=path) for path in paths]


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES[1:]}


class Watch:
    """A report that remembers, and may stop the build as Ctrl-C does."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[Progress] = []
        self.stop_after = stop_after

    def __call__(self, progress: Progress) -> None:
        self.seen.append(progress)
        if progress.step is Step.READ and progress.done == self.stop_after:
            raise KeyboardInterrupt

    @property
    def read(self) -> int:
        return max((one.done for one in self.seen if one.step is Step.READ), default=0)


def test_a_build_writes_rows_and_rejects(blank: Blank, engines: ModuleType, tmp_path: Path) -> None:
    page = blank(50, "page.png")
    page.write_bytes(b"<html>")
    found = pictures(blank(60), page, blank(engines.EMPTY), blank(61), tmp_path / "gone.png", tmp_path)
    earlier = Reject(id="notes.txt", stage="scan", reason="x")
    out = tmp_path / "out"
    built = build(
        found, out, settings=SETTINGS, image_root=tmp_path, engine=engines.FakeEngine, rejects=[earlier]
    )
    assert sorted(path.name for path in out.iterdir()) == list(FILES)
    assert [row.id for row in built.stage1] == [row.id for row in built.stage2] == ["60.png", "61.png"]
    assert built.stage1[0].images == ("pictures/60.png",)
    assert built.stage1[0].conversation.turns[1].text == "wide 60\ntall 30"
    assert [(reject.id, reject.reason) for reject in built.rejects] == [
        ("notes.txt", "x"),
        ("page.png", OcrReason.CANNOT_OPEN),
        ("44.png", PairReason.NO_TEXT),
        ("44.png", TeachReason.NOTHING_KNOWN),
        ("gone.png", OcrReason.CANNOT_OPEN),
        (tmp_path.name, OcrReason.CANNOT_OPEN),
    ]
    assert [one["id"] for one in lines_of(out / "rejects.jsonl")] == [one.id for one in built.rejects]
    written = [row.conversation for row in read_rows(out / "stage2.json")]
    assert written == [row.conversation for row in built.stage2]
    assert len(read_rows(out / "stage1.json")) == 2
    assert built.readings["61.png"].image == "pictures/61.png"
    assert built.readings["44.png"].lines == ()


def test_facts_make_conversations_without_any_text(blank: Blank, engines: ModuleType, tmp_path: Path) -> None:
    picture = Picture(id="a", path=blank(engines.EMPTY), facts=SceneFacts(ground="green"))
    built = build([picture], tmp_path / "out", settings=SETTINGS, engine=engines.FakeEngine)
    assert "green" in built.stage2[0].conversation.turns[1].text
    assert Path(built.stage2[0].images[0]).is_absolute()


def test_a_second_build_reads_nothing_and_gives_the_same(
    blank: Blank, engines: ModuleType, tmp_path: Path
) -> None:
    found = pictures(blank(60), blank(engines.FAILS), blank(engines.HANGS), blank(61))
    out = tmp_path / "out"
    first = build(found, out, settings=SETTINGS, engine=engines.FakeEngine)
    before, watch = outputs(out), Watch()
    journal = (out / "readings.jsonl").read_bytes()
    second = build(found, out, settings=SETTINGS, engine=engines.BrokenEngine, report=watch)
    assert (first.reused, second.reused, watch.read) == (0, 4, 0)
    assert outputs(out) == before
    assert (out / "readings.jsonl").read_bytes() == journal


def test_a_changed_setting_redoes_what_depends_on_it(
    blank: Blank, engines: ModuleType, tmp_path: Path
) -> None:
    found = pictures(blank(60), blank(engines.HANGS))
    out = tmp_path / "out"

    def again(settings: BuildSettings, engine: object = engines.FakeEngine) -> int:
        return build(found, out, settings=settings, engine=engine).reused  # type: ignore[arg-type]

    assert again(SETTINGS) == 0
    assert again(BuildSettings(workers=1, time_limit=2, layout=LayoutSettings(min_confidence=0.92))) == 2
    assert again(BuildSettings(workers=1, time_limit=1)) == 1, "only the one that ran out of time"
    assert again(BuildSettings(workers=1, time_limit=1, short_edge=32)) == 0
    assert again(BuildSettings(workers=1, time_limit=1), engines.OtherEngine) == 0
    assert again(BuildSettings(workers=1, time_limit=1)) == 2, "earlier readings are kept"


def test_the_layout_threshold_reaches_the_rows(blank: Blank, engines: ModuleType, tmp_path: Path) -> None:
    strict = BuildSettings(workers=1, layout=LayoutSettings(min_confidence=0.92))
    built = build(pictures(blank(60)), tmp_path / "out", settings=strict, engine=engines.FakeEngine)
    assert built.stage1[0].conversation.turns[1].text == "wide 60"
    assert [reject.detail for reject in built.rejects] == ["1 of 2 lines under 0.92"]


def test_equal_files_are_read_once(blank: Blank, engines: ModuleType, tmp_path: Path) -> None:
    watch = Watch()
    found = pictures(blank(60, "a.png"), blank(60, "b.png"))
    built = build(found, tmp_path / "out", settings=SETTINGS, engine=engines.FakeEngine, report=watch)
    assert watch.read == 1
    assert [row.images for row in built.stage1] == [(str(picture.path),) for picture in found]


def test_an_interrupted_build_goes_on(blank: Blank, engines: ModuleType, tmp_path: Path) -> None:
    found = pictures(*(blank(60 + n) for n in range(5)))
    whole = build(found, tmp_path / "whole", settings=SETTINGS, engine=engines.FakeEngine)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build(found, out, settings=SETTINGS, engine=engines.FakeEngine, report=Watch(stop_after=2))
    kept = lines_of(out / "readings.jsonl")
    assert len(kept) == 2
    watch = Watch()
    built = build(found, out, settings=SETTINGS, engine=engines.FakeEngine, report=watch)
    assert (built.reused, watch.read) == (2, 3)
    assert lines_of(out / "readings.jsonl")[:2] == kept
    assert (built.stage1, built.stage2, built.rejects) == (whole.stage1, whole.stage2, whole.rejects)
    assert outputs(out) == outputs(tmp_path / "whole")


@pytest.mark.parametrize("tail", [b'{"key": "to', b"\x00\xff\n", b'{"key":"a","time_limit":1}\n', b"[]"])
def test_a_damaged_journal_loses_only_what_is_damaged(
    tail: bytes, blank: Blank, engines: ModuleType, tmp_path: Path
) -> None:
    found = pictures(blank(60), blank(61), blank(62))
    out = tmp_path / "out"
    build(found, out, settings=SETTINGS, engine=engines.FakeEngine)
    journal = out / "readings.jsonl"
    good = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(good[0] + good[1] + tail)
    watch = Watch()
    built = build(found, out, settings=SETTINGS, engine=engines.FakeEngine, report=watch)
    assert built.reused == 2
    assert [one.note[:15] for one in watch.seen if "damaged" in one.note] == ["1 damaged lines"]
    assert journal.read_bytes().splitlines(keepends=True)[:2] == good[:2]
    assert len(lines_of(journal)) == 3


def test_a_line_torn_just_before_its_end_is_not_glued_to_the_next(
    blank: Blank, engines: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build(pictures(blank(60)), out, settings=SETTINGS, engine=engines.FakeEngine)
    journal = out / "readings.jsonl"
    journal.write_bytes(journal.read_bytes().rstrip(b"\n"))
    build(pictures(blank(60), blank(61)), out, settings=SETTINGS, engine=engines.FakeEngine)
    assert len(lines_of(journal)) == 2


def test_a_picture_whose_process_died_is_tried_again(
    blank: Blank, engines: ModuleType, tmp_path: Path
) -> None:
    found = pictures(blank(engines.DIES), blank(60))
    reused = [
        build(found, tmp_path / "out", settings=SETTINGS, engine=engines.FakeEngine).reused for _ in range(2)
    ]
    assert reused == [0, 1]


def test_rows_that_fail_the_check_are_rejected(blank: Blank, engines: ModuleType, tmp_path: Path) -> None:
    class Careless:
        def teach(
            self, reading: Reading, facts: SceneFacts | None = None, *, dropped: tuple[Line, ...] = ()
        ) -> Conversation | Reject:
            return Conversation.of("<image>\nWhat does the OCR say?", 'It says "nothing"</s>')

    built = build(
        pictures(blank(60)), tmp_path / "out", settings=SETTINGS, engine=engines.FakeEngine,
        teacher=Careless(),
    )  # fmt: skip
    assert built.stage2 == ()
    assert len(built.stage1) == 1
    assert {reject.stage for reject in built.rejects} == {"check"}
    assert len(built.rejects) == 3


def test_ids_and_pictures_are_required(blank: Blank, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 pictures"):
        build([], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"'60\.png' belongs to 2"):
        build(pictures(blank(60), blank(60)), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"a\\udcff.*rename"):
        build([Picture(id="a", path=tmp_path / "a\udcff.png")], tmp_path / "out")


def test_a_real_engine_reads_a_poster_into_rows(tmp_path: Path) -> None:
    image = Image.new("RGB", (560, 240), "white")
    draw = ImageDraw.Draw(image)
    for place, text in enumerate(("GRAND OPENING", "Fresh bread", "open from 9")):
        draw.text((20, 20 + 70 * place), text, fill="black", font=ImageFont.load_default(size=40))
    image.save(tmp_path / "poster.png")
    found, rejects = scan_folder(tmp_path)
    built: Built = build(
        as_pictures(found, tmp_path), tmp_path / "out",
        settings=BuildSettings(workers=1), image_root=tmp_path, rejects=rejects,
    )  # fmt: skip
    assert built.stage1[0].conversation.turns[1].text == "GRAND OPENING\nFresh bread\nopen from 9"
    assert built.stage1[0].images == ("poster.png",)
    assert len(built.stage2) == 1
    assert built.rejects == ()


def wait_for_the_end_of(process: int) -> None:
    """Returns once a process that is no child of ours has ended; fails if it has not within a minute."""
    for _ in range(1200):
        try:
            state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"the worker {process} outlives its parent")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_build_loses_and_doubles_nothing(blank: Blank, engines: ModuleType, tmp_path: Path) -> None:
    found = pictures(
        *(blank(60 + n) for n in range(3)), blank(engines.HANGS), *(blank(80 + n) for n in range(3))
    )
    out = tmp_path / "out"
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\n"
        f"sys.path[:0] = {[str(Path(engines.__file__).parent)]!r}\n"
        "import fake_engines\nfrom llavar.corpus.build import BuildSettings, Picture, build\n"
        "if __name__ == '__main__':\n"
        f"    paths = {[str(picture.path) for picture in found]!r}\n"
        "    pictures = [Picture(id=Path(path).name, path=Path(path)) for path in paths]\n"
        f"    build(pictures, Path({str(out)!r}), engine=fake_engines.FakeEngine,\n"
        "          settings=BuildSettings(workers=1, time_limit=600))\n",
        encoding="utf-8",
    )
    source = Path(__file__).resolve().parents[2] / "src"
    pid = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": str(source), "FAKE_ENGINE_PID": str(pid)}
    process = subprocess.Popen([sys.executable, str(program)], env=environment)
    journal = out / "readings.jsonl"
    try:
        while process.poll() is None and not pid.exists():
            time.sleep(0.05)
        assert len(lines_of(journal)) == 3
        assert process.poll() is None, "it should be waiting for the picture that hangs"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for_the_end_of(int(pid.read_text(encoding="utf-8")))
    built = build(found, out, settings=SETTINGS, engine=engines.FakeEngine)
    assert built.reused == 3
    assert len(lines_of(journal)) == len(found)
    assert [row.id for row in built.stage1] == [picture.id for picture in found if picture.id != "41.png"]


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
    assert [picture.id for picture in as_pictures(found, folder)] == ["b.PNG", "sub/a.JPeg"]


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
