"""From a recipe and a folder to rows: the command as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageDraw

from llavar.cli import main
from llavar.corpus.engines import rapidocr
from llavar.corpus.item import Item, Origin
from llavar.corpus.opening import OpenSettings, distance, fingerprint, measured
from llavar.corpus.recipe import read_recipe, source_of
from llavar.corpus.sources import Columns, Tables
from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.records import Reject

RECIPE = """
source: {folder: pictures}
shard_rows: 2
workers: 1
layout: {min_height: 0}
near: null
products: {names: own}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for width in (60, 70, 80):
        Image.new("RGB", (width, 50), "white").save(folder / f"{width}.png")
    Image.new("RGB", (400, 40), "white").save(folder / "long.png")
    Image.new("RGB", (20, 20), "white").save(folder / "tiny.png")
    (folder / "broken.png").write_bytes(b"\x89PNG and no more")
    Image.new("RGB", (60, 50), "white").save(folder / "sixty-again.bmp")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def fake_engine(engines: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rapidocr, "factory", lambda models, languages: engines.FakeEngine)


def test_a_folder_becomes_rows_and_every_file_is_accounted_for(
    pictures: Path, tmp_path: Path, fake_engine: None, capsys: pytest.CaptureFixture[str]
):
    path = written(tmp_path, RECIPE)
    out = tmp_path / "corpus"
    assert main(["corpus", "run", str(path), "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] == {"stage1": 3, "stage2": 3, "rejects": 5}
    rows = json.loads((out / "products" / "stage1.json").read_text())
    assert [row["id"] for row in rows] == ["60.png", "70.png", "80.png"]
    assert rows[0]["conversations"][1]["value"] == "wide 60\ntall 50"
    rejects = [json.loads(line) for line in (out / "products" / "rejects.jsonl").read_text().splitlines()]
    assert {
        (one["reject"]["id"].rsplit("/")[-1], one["reject"]["stage"], one["reject"]["reason"])
        for one in rejects
    } == {
        ("notes.txt", "scan", "not a picture by its extension"),
        ("broken.png", "open", "the picture cannot be opened"),
        ("tiny.png", "open", "too small"),
        ("long.png", "open", "too long and narrow"),
        ("sixty-again.bmp", "exact", "same pixels as another"),
    }
    assert main(["corpus", "status", str(out)]) == 0
    said = capsys.readouterr().out
    assert "1 left out: too small" in said
    assert "ocr  3 done, 3 kept" in said
    assert main(["corpus", "explain", str(out), "70.png"]) == 0
    life = json.loads(capsys.readouterr().out)
    assert (life["stage"], life["reject"], life["item"]["file"]["width"]) == ("teach", None, 70)
    assert life["item"]["readings"][0]["engine"] == "fake 1"
    assert main(["corpus", "explain", str(out), "tiny.png"]) == 0
    assert json.loads(capsys.readouterr().out)["reject"]["reason"] == "too small"


@pytest.mark.parametrize("arguments", [["status", "nowhere"], ["explain", "nowhere", "x"]])
def test_where_no_corpus_is_one_sentence_says_so(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["corpus", *arguments]) == 2
    assert "nowhere holds no corpus: there is no manifest.sqlite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("source: {folder: p}\nshard_row: 3", "shard_row: Unexpected keyword"),
        ("source: {folder: p, tables: [x.json]}", "name one of the three"),
        ("source: {}", "name one of the three"),
        (
            "source: {folder: p}\nocr: {engines: [eyes]}",
            "the OCR engine is 'eyes'; known are easyocr, paddleocr, rapidocr, tesseract",
        ),
        ("source: {folder: p}\nopen: {min_side: 0}", "min_side is 0"),
        ("{", "is no YAML"),
        ("", "the file: "),
        ("\xff", "is no YAML"),
    ],
)
def test_a_recipe_that_cannot_work_says_where(text: str, sentence: str, tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_recipe_that_is_not_there_says_what_to_write(tmp_path: Path):
    with pytest.raises(NotFoundError, match="there is no recipe .*source: "):
        read_recipe(tmp_path / "none.yaml")


# ------------------------------------------------------------------------------------------ tables of URLs


LAION = [
    {"URL": "http://a.example/1.jpg", "TEXT": "one", "pwatermark": 0.25, "LANGUAGE": "en"},
    {"URL": "http://a.example/2.jpg", "TEXT": None, "punsafe": float("nan")},
    {"URL": "http://a.example/1.jpg"},
    {"TEXT": "no address"},
]


def table(path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(LAION), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(LAION))
    else:
        path.write_text("\n".join(map(json.dumps, LAION)) + "\nno json\n[]\n")
    return path


@pytest.mark.parametrize("name", ["meta.parquet", "meta.json", "meta.jsonl"])
def test_entries_of_a_table_become_items_whose_ids_do_not_repeat(name: str, tmp_path: Path):
    source = Tables(paths=(table(tmp_path / name),), name="laion")
    found = list(source.items())
    items = [one for one in found if isinstance(one, Item)]
    assert [item.origin.url[-5:] for item in items] == ["1.jpg", "2.jpg", "1.jpg"]
    assert items[2].id == items[0].id + "-2"
    assert items[0].origin == Origin(
        source="laion", url="http://a.example/1.jpg", caption="one", language="en", watermark=0.25
    )
    assert (items[1].origin.caption, items[1].origin.unsafe) == ("", -1.0)
    rejects = [one for one in found if isinstance(one, Reject)]
    assert [(reject.id, reject.reason) for reject in rejects][:1] == [(f"{name}:3", "it has no URL")]
    assert len(rejects) == (3 if name.endswith("l") else 1)


def test_columns_of_other_names_are_named_in_the_recipe(tmp_path: Path):
    (tmp_path / "t.json").write_text('[{"image_url": "http://x.example/a.png"}]')
    path = written(tmp_path, "source: {tables: [t.json], columns: {url: image_url}}")
    (item,) = source_of(read_recipe(path), tmp_path).items()
    assert isinstance(item, Item)
    assert item.origin == Origin(source="t.json", url="http://x.example/a.png")


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("t.json", b"{}", DataError),
        ("t.json", b"[", DataError),
        ("t.csv", b"", ConfigError),
        ("t.parquet", b"PAR1", DataError),
    ],
)
def test_a_table_that_is_none_is_an_error_that_names_it(
    name: str, content: bytes, error: type[Exception], tmp_path: Path
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error, match=name):
        list(Tables(paths=(path,), columns=Columns()).items())


def test_the_fingerprint_of_a_source_changes_with_its_files(tmp_path: Path):
    path = table(tmp_path / "meta.json")
    source = Tables(paths=(path,))
    before = source.fingerprint()
    assert source.fingerprint() == before
    path.write_text("[]")
    assert source.fingerprint() != before
    path.unlink()
    with pytest.raises(NotFoundError, match="there is no file"):
        source.fingerprint()


# ------------------------------------------------------------------------------------------ opening


def card(text: str, size: tuple[int, int] = (240, 160)) -> Image.Image:
    image = Image.new("RGB", size, "#e8e0d0")
    draw = ImageDraw.Draw(image)
    draw.rectangle((12, 12, size[0] - 12, size[1] - 12), outline="#203040", width=4)
    draw.text((40, 60), text, fill="#203040", font_size=32)
    return image


def test_edited_copies_are_near_and_other_pictures_are_not():
    one = card("OPEN")
    smaller = one.resize((180, 120))
    near = distance(fingerprint(one).perceptual, fingerprint(smaller).perceptual)
    photo = Image.effect_noise((240, 160), 90).convert("RGB")
    far = distance(fingerprint(one).perceptual, fingerprint(photo).perceptual)
    assert near <= 12
    assert far >= 80
    assert fingerprint(one).pixels == fingerprint(one.copy()).pixels != fingerprint(smaller).pixels
    assert len(fingerprint(one).perceptual) == 64


def test_the_file_of_an_item_is_measured(tmp_path: Path):
    card("OPEN").save(tmp_path / "a.png")
    item = measured(
        Item(id="a", origin=Origin(source="s", path="a.png")), root=tmp_path, settings=OpenSettings()
    )
    assert isinstance(item, Item)
    assert item.file is not None
    assert (item.file.width, item.file.height, item.file.path) == (240, 160, "a.png")
    assert item.file.bytes == (tmp_path / "a.png").stat().st_size
    gone = measured(
        Item(id="u", origin=Origin(source="s", url="http://x")), root=tmp_path, settings=OpenSettings()
    )
    assert isinstance(gone, Reject)
    assert gone.reason == "it has no file"
