"""Products of a corpus: names, merged files, pictures, Parquet and tars, written once and equal."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from llavar.cli import main
from llavar.corpus import products
from llavar.corpus.formats import Format
from llavar.corpus.item import Item, Origin, PictureFile
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.naming import Names, Naming, Set, fakes_in
from llavar.corpus.opening import OpenStage
from llavar.corpus.products import ProductChoice, Products, life_of, write_products
from llavar.corpus.rows import OcrStage, PairsSettings, PairsStage, TemplateTeachStage
from llavar.corpus.shards import SCAN, Corpus, RunSettings
from llavar.corpus.sources import Folder
from llavar.corpus.stage import Stage
from llavar.data.mixture import Entry
from llavar.data.opened import open_data
from llavar.errors import ConfigError, DataError, LlavarError, NotFoundError, StorageError
from llavar.images import open_image
from llavar.records import Example

ALL = tuple(Format)
CHAINED = [SCAN, "open", "ocr", "pairs", "teach"]
ASKED = [{"from": "human", "value": 'Say "a"\n<image>'}, {"from": "gpt", "value": "A café"}]
CHAT = [
    {"id": "GCC_train_002582585", "image": "GCC_train_002582585.jpg", "conversations": ASKED, "model": "x"},
    {"id": "000000033471", "conversations": [{"from": "human", "value": "Hi"}, ASKED[1]]},
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures with their rows, OCR being done by the fake engine in this process."""
    base = tmp_path_factory.mktemp("built")
    folder = base / "pictures"
    (folder / "sub").mkdir(parents=True)
    for width in (60, 70, 80, 90):
        Image.new("RGB", (width, 50), "white").save(folder / f"{width}.png")
    Image.new("RGB", (100, 50), "red").save(folder / "sub" / "JPEG.JPG", "JPEG")
    shutil.copytree(folder, base / "pristine")
    made = Corpus(base / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        made.run(Folder(path=folder), stages(made.root), settings=RunSettings(shard_rows=3))
    return base


@pytest.fixture
def corpus(built: Path) -> Corpus:
    """The same for every test, without products."""
    shutil.rmtree(built / "corpus" / "products", ignore_errors=True)
    shutil.rmtree(built / "pictures")
    shutil.copytree(built / "pristine", built / "pictures")
    return Corpus(built / "corpus")


def stages(root: Path) -> list[Stage]:
    engine = importlib.import_module("fake_engines").FakeEngine
    layout = LayoutSettings(min_height=0)
    return [
        OpenStage(root=root, time_limit=None),
        OcrStage(root=root, engines=(engine,), time_limit=None),
        PairsStage(settings=PairsSettings(layout=layout)),
        TemplateTeachStage(),
    ]


@pytest.fixture
def made(corpus: Corpus) -> Callable[..., Products]:
    def make(**choice: object) -> Products:
        return write_products(corpus, CHAINED, ProductChoice(**choice))  # type: ignore[arg-type]

    return make


def document(path: Path) -> list[dict[str, object]]:
    return json.loads(path.read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


# ------------------------------------------------------------------------------------------------ names


def item(number: int) -> Item:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    file = PictureFile(path=f"a/{number}.PNG", sha256=digest, width=1, height=1, bytes=1)
    return Item(id=f"i{number}", origin=Origin(source="s"), file=file)


def test_fake_names_are_of_the_style_of_their_set_and_no_two_are_equal():
    names = Names(Naming.FAKE)
    ones = {names.of(item(n), Set.STAGE1).image for n in range(3000)}
    twos = {names.of(item(n), Set.STAGE2).row for n in range(3000)}
    assert len(ones) == len(twos) == 3000
    assert all(len(name) == 23 and name.startswith("GCC_train_9") and name.endswith(".png") for name in ones)
    assert all(len(name) == 12 and name.startswith("9") and name.isdecimal() for name in twos)


def test_a_name_that_is_taken_or_given_already_is_passed_over():
    first = Names(Naming.FAKE).of(item(1), Set.STAGE1).row
    other = Names(Naming.FAKE, taken={first}).of(item(1), Set.STAGE1).row
    names = Names(Naming.FAKE)
    assert [names.of(item(1), Set.STAGE1).row for _ in range(2)] == [first, other]
    assert first != other


def test_a_name_does_not_depend_on_other_pictures():
    names = Names(Naming.FAKE)
    names.of(item(1), Set.STAGE2)
    assert names.of(item(2), Set.STAGE2) == Names(Naming.FAKE).of(item(2), Set.STAGE2)


def test_only_names_that_could_be_given_count_as_taken():
    found = fakes_in(["GCC_train_912345678.jpg", "cc/GCC_train_900000000.png", "GCC_train_002582585.jpg",
                      "912345678901", "000000033471.jpg", "9123456789012"])  # fmt: skip
    assert list(found) == ["GCC_train_912345678", "GCC_train_900000000", "912345678901"]


# ------------------------------------------------------------------------------------------------ files


def test_rows_name_pictures_that_lie_in_the_images_folder_and_the_map_tells_what_they_are(
    made: Callable[..., Products], corpus: Corpus
):
    done = made()
    assert (done.stage1, done.stage2, done.written) == (5, 5, True)
    rows = document(done.folder / "stage1.json")
    names = [json.loads(line) for line in (done.folder / "names.jsonl").read_text().splitlines()]
    assert [name["row"] for name in names[:5]] == [row["id"] for row in rows]
    assert [name["id"] for name in names[:5]] == ["60.png", "70.png", "80.png", "90.png", "sub/JPEG.JPG"]
    for name in names:
        picture = done.folder / "images" / name["image"]
        assert hashlib.sha256(picture.read_bytes()).hexdigest() == name["sha256"]
        assert picture.samefile(name["path"]), "a link, which takes no room"
    assert {name["set"] for name in names} == {"stage1", "stage2"}
    assert len(list((done.folder / "images").iterdir())) == 10
    life = json.loads(life_of(corpus, names[1]["image"]))
    assert life["item"]["id"] == "70.png"


def test_own_names_are_the_hash_of_the_file_and_the_id_of_the_item(made: Callable[..., Products]):
    done = made(names=Naming.OWN)
    row = document(done.folder / "stage1.json")[0]
    digest = hashlib.sha256((done.folder / "images" / str(row["image"])).read_bytes()).hexdigest()
    assert (row["id"], row["image"]) == ("60.png", f"{digest[:32]}.png")
    assert len(list((done.folder / "images").iterdir())) == 5, "both sets share them"


def test_llavas_rows_come_first_byte_for_byte_and_ours_after_them(
    made: Callable[..., Products], tmp_path: Path
):
    (tmp_path / "chat.json").write_text(json.dumps(CHAT, indent=2, ensure_ascii=False), encoding="utf-8")
    done = made(merge_stage1=tmp_path / "chat.json")
    merged = document(done.folder / "chat_llavar.json")
    assert merged == CHAT + document(done.folder / "stage1.json")
    assert [p.rows for p in done.files if p.file in ("stage1.json", "chat_llavar.json")] == [5, 7]
    source = open_data(Entry(path=str(done.folder / "chat_llavar.json"))).rows
    assert len(source) == 7
    assert all(isinstance(source.get(n), Example) for n in range(7))


def test_a_name_of_the_merged_file_is_never_given_again(made: Callable[..., Products], tmp_path: Path):
    first = document(made().folder / "stage1.json")[0]
    stolen = {**CHAT[0], "id": "other", "image": f"cc3m/{first['image']}"}
    (tmp_path / "chat.json").write_text(json.dumps([stolen]))
    rows = document(made(merge_stage1=tmp_path / "chat.json").folder / "stage1.json")
    assert first["id"] not in {row["id"] for row in rows}
    assert rows[0]["conversations"] == first["conversations"]


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("[{]", DataError, "is not valid JSON"),
        ('[{"id": "a"}]', DataError, "cannot be merged, since row 'a'.*llavar corpus check"),
        (None, NotFoundError, "there is no data file"),
    ],
)
def test_a_file_that_cannot_be_merged_is_named(
    text: str | None, error: type[LlavarError], sentence: str, made: Callable[..., Products], tmp_path: Path
):
    if text is not None:
        (tmp_path / "chat.json").write_text(text)
    with pytest.raises(error, match=sentence):
        made(merge_stage1=tmp_path / "chat.json")


def test_parquet_and_tars_are_opened_by_our_own_readers_with_their_pictures(
    made: Callable[..., Products], tmp_path: Path
):
    done = made(formats=ALL, rows_per_file=3)
    wanted = document(done.folder / "stage2.json")
    for ending in ("parquet", "tar"):
        files = [f"stage2-00000.{ending}", f"stage2-00001.{ending}"]
        assert {p.file for p in done.files if p.file.startswith("stage2-")} >= set(files)
        seen: list[Example] = []
        for name in files:
            opened = open_data(Entry(path=str(done.folder / name)), folder=tmp_path / "cache")
            for number in range(len(opened.rows)):
                example = opened.rows.get(number)
                assert isinstance(example, Example)
                assert opened.pictures is not None
                assert open_image(opened.pictures.source(example.images[0])).height == 50
                seen.append(example)
        assert [example.id for example in seen] == [row["id"] for row in wanted]
        said = [turn["value"] for turn in wanted[0]["conversations"]]  # type: ignore[attr-defined]
        assert [turn.text for turn in seen[0].conversation.turns] == said


def test_equal_corpora_have_equal_bytes_and_nothing_is_written_twice(
    made: Callable[..., Products], corpus: Corpus
):
    done = made(formats=ALL)
    before = contents(done.folder)
    times = {path: path.stat().st_mtime_ns for path in done.folder.iterdir()}
    again = made(formats=ALL)
    assert not again.written
    assert (again.stage1, again.rejects, again.files) == (done.stage1, done.rejects, done.files)
    assert {path: path.stat().st_mtime_ns for path in done.folder.iterdir()} == times
    shutil.rmtree(done.folder)
    assert made(formats=ALL).written
    assert contents(done.folder) == before


def test_what_is_damaged_or_killed_half_way_is_made_anew(made: Callable[..., Products]):
    done = made(formats=ALL)
    before = contents(done.folder)
    (done.folder / "stage1.json").write_text("[")
    next((done.folder / "images").iterdir()).unlink()
    (done.folder / "products.json").unlink()
    (done.folder / "stage1-00007.tar.part").write_bytes(b"torn")
    (done.folder / "images" / "x.jpg.part").write_bytes(b"torn")
    assert made(formats=ALL).written
    assert contents(done.folder) == before


def test_formats_that_are_no_longer_wanted_go_and_files_of_the_user_stay(made: Callable[..., Products]):
    folder = made(formats=ALL).folder
    (folder / "notes.txt").write_text("mine")
    (folder / "card.md").write_text("# Card")
    made()
    assert not list(folder.glob("*.tar")) + list(folder.glob("*.parquet"))
    assert (folder / "notes.txt").exists()
    assert (folder / "card.md").exists()


def test_llavar_inspect_shows_every_format(
    made: Callable[..., Products], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    done = made(formats=ALL)
    monkeypatch.setenv("XDG_CACHE_HOME", str(done.folder.parent / "cache"))
    for name in ("stage1.json", "stage1-00000.parquet", "stage1-00000.tar"):
        assert main(["inspect", str(done.folder / name), "--json", "--limit", "2"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [len(line["input_ids"]) > 144 for line in lines] == [True, True]


@pytest.mark.parametrize("formats", [(Format.JSON,), ALL])
def test_a_picture_that_was_changed_since_is_an_error_and_no_wrong_row(
    formats: tuple[Format, ...], made: Callable[..., Products], built: Path
):
    path = built / "pictures" / "70.png"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(DataError, match=r"70\.png.* is not the one that was read"):
        made(formats=formats)
    path.unlink()
    with pytest.raises(NotFoundError, match="is gone"):
        made(formats=formats)


def test_where_links_are_impossible_pictures_are_copied(
    made: Callable[..., Products], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    done = made()
    names = [json.loads(line) for line in (done.folder / "names.jsonl").read_text().splitlines()]
    for name in names:
        picture = done.folder / "images" / name["image"]
        assert picture.read_bytes() == Path(name["path"]).read_bytes()
        assert not picture.samefile(name["path"])


def test_a_disk_without_room_is_told_before_anything_is_written(
    made: Callable[..., Products], monkeypatch: pytest.MonkeyPatch
):
    full = shutil.disk_usage("/")._replace(free=1000)

    def usage(_: object) -> object:
        return full

    monkeypatch.setattr(products.shutil, "disk_usage", usage)
    with pytest.raises(StorageError, match=r"need about 0\.1 GiB .* has 0\.0; free some space"):
        made()


@pytest.mark.parametrize(
    "wrong",
    [
        {"formats": ()},
        {"rows_per_file": 0},
        {"formats": (Format.PARQUET,), "merge_stage1": Path("chat.json")},
        {"merge_stage1": Path("a/x.json"), "merge_stage2": Path("b/x.json")},
    ],
)
def test_a_choice_that_cannot_work_is_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigError):
        ProductChoice(**wrong)  # type: ignore[arg-type]
