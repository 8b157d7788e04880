from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavar.data.mixture import Entry
from llavar.data.opened import open_data
from llavar.data.source import RowError
from llavar.errors import DataError, MissingExtraError, NotFoundError
from llavar.records import Example, Role

arrow: Any = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet: Any = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(out, "PNG")
    return out.getvalue()


def talk(asked: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    parquet.write_table(arrow.Table.from_pylist(rows), path, row_group_size=2)
    return path


def read(entry: Entry, folder: Path) -> list[Example]:
    rows = open_data(entry, folder=folder).rows
    found = [rows.get(number) for number in range(len(rows))]
    assert all(isinstance(row, Example) for row in found), found
    return [row for row in found if isinstance(row, Example)]


def test_parquet_in_llavas_columns(tmp_path: Path):
    rows = [{"id": f"r{n}", "image": f"{n}.png", "conversations": talk("<image>\nQ", "A")} for n in range(5)]
    rows.append({"id": "text", "image": None, "conversations": talk("Q", "B")})
    entry = Entry(path=str(table(tmp_path / "d.parquet", rows)))
    found = read(entry, tmp_path / "cache")
    assert [row.id for row in found] == ["r0", "r1", "r2", "r3", "r4", "text"]
    assert (found[1].images, found[5].images, found[0].source) == (("1.png",), (), "d.parquet")
    assert open_data(entry, folder=tmp_path / "cache").pictures is None
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert read(entry, tmp_path / "cache") == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == before


def test_columns_of_other_names_and_pictures_inside(tmp_path: Path):
    held = {"bytes": png(), "path": "x.png"}
    rows = [
        {"img": held, "q": "What?", "a": ["STOP", "stop"]},
        {"img": {"bytes": None, "path": "y.png"}, "q": "<image> Read.", "a": ["GO"]},
    ]
    entry = Entry(
        path=str(table(tmp_path / "d.parquet", rows)), image="img", question="q", answer="a", weight=0.5
    )
    first, second = read(entry, tmp_path / "cache")
    assert (first.id, first.conversation.turns[0].text) == ("0", "<image>\nWhat?")
    assert [turn.text for turn in second.conversation.turns] == ["<image> Read.", "GO"]
    assert second.images == ("y.png",)
    pictures = open_data(entry, folder=tmp_path / "cache").pictures
    assert pictures is not None
    assert pictures.source(first.images[0]) == png()


def test_several_pictures_and_chat_messages(tmp_path: Path):
    said = [{"role": "user", "content": "<image><image> Q"}, {"role": "assistant", "content": "A"}]
    rows = [{"images": [png(), png()], "messages": said}, {"images": [], "messages": said}]
    found = read(Entry(path=str(table(tmp_path / "d.parquet", rows))), tmp_path / "cache")
    assert found[0].images == ("0-0", "0-1")
    assert found[1].images == ()
    assert [turn.role for turn in found[0].conversation.turns] == [Role.USER, Role.ASSISTANT]


def test_rows_that_do_not_fit_are_errors_in_their_place(tmp_path: Path):
    path = table(tmp_path / "d.parquet", [{"id": "a", "conversations": talk("Q", "A")}, {"id": "b"}])
    rows = open_data(Entry(path=str(path)), folder=tmp_path / "cache").rows
    assert isinstance(rows.get(0), Example)
    assert isinstance(rows.get(1), RowError)


def test_tables_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "cache"
    good = table(tmp_path / "d.parquet", [{"id": "a", "conversations": talk("Q", "A")}])
    with pytest.raises(DataError, match="no column 'photo'; it has id, conversations"):
        open_data(Entry(path=str(good), image="photo"), folder=folder)
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(good.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        open_data(Entry(path=str(torn)), folder=folder)
    empty = arrow.Table.from_pylist([], schema=arrow.schema([("id", arrow.string())]))
    parquet.write_table(empty, tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="has no rows"):
        open_data(Entry(path=str(tmp_path / "empty.parquet")), folder=folder)
    with pytest.raises(NotFoundError, match="no data file at"):
        open_data(Entry(path=str(tmp_path / "none.parquet")), folder=folder)
    assert [path for path in folder.iterdir() if path.suffix == ".jsonl"] == []
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match="pip install 'llavar\\[data\\]'"):
        open_data(Entry(path=str(good)), folder=folder)


@pytest.mark.parametrize(
    "said",
    [
        {"from": ["human", "gpt"], "value": ["Q", "A"]},
        {"role": ["user", "assistant"], "content": ["Q", "A"]},
    ],
)
def test_turns_as_a_list_of_each_field(said: dict[str, list[str]], tmp_path: Path):
    (found,) = read(
        Entry(path=str(table(tmp_path / "d.parquet", [{"id": "a", "conversations": said}]))),
        tmp_path / "cache",
    )
    assert [turn.text for turn in found.conversation.turns] == ["Q", "A"]
    assert [turn.role for turn in found.conversation.turns] == [Role.USER, Role.ASSISTANT]


@pytest.mark.parametrize("said", [{"from": ["human"], "value": ["Q", "A"]}, {"from": "human", "value": "Q"}])
def test_fields_that_do_not_go_together_are_an_error_of_their_row(said: dict[str, Any], tmp_path: Path):
    path = table(tmp_path / "d.parquet", [{"id": "a", "conversations": said}])
    assert isinstance(open_data(Entry(path=str(path)), folder=tmp_path / "cache").rows.get(0), RowError)


# --- datasets of the hub ----------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The real library, offline and with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    library: Any = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    return library


def seen(library: Any, several: bool) -> Any:
    """Rows whose pictures are pictures to the library, one each or a list of them."""
    turn = {"from": library.Value("string"), "value": library.Value("string")}
    picture = library.Image()
    name, feature = ("images", [picture]) if several else ("image", picture)
    features = library.Features({"id": library.Value("string"), name: feature, "conversations": [turn]})
    shown = Image.open(io.BytesIO(png()))
    rows = [
        {
            "id": "a",
            name: [shown, shown] if several else shown,
            "conversations": talk("<image> " * (1 + several), "A"),
        },
        {"id": "b", name: [] if several else None, "conversations": talk("Q", "B")},
    ]
    return library.Dataset.from_list(rows, features=features)


def test_a_dataset_of_the_hub_from_its_folder(hub: Any, tmp_path: Path):
    rows = [{"id": "a", "image": "a.png", "conversations": talk("<image> Q", "A")}]
    hub.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    found = read(Entry(path=f"hub:{tmp_path / 'saved'}"), tmp_path / "cache")
    assert [(row.id, row.images) for row in found] == [("a", ("a.png",))]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("layout", ["saved", "parquet"])
def test_pictures_of_a_dataset_are_taken_as_they_are(hub: Any, tmp_path: Path, layout: str, several: bool):
    folder = tmp_path / layout
    made = seen(hub, several)
    if layout == "saved":
        made.save_to_disk(str(folder))
    else:  # as on the hub
        (folder / "data").mkdir(parents=True)
        made.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    entry = Entry(path=f"hub:{folder}")
    first, second = read(entry, tmp_path / "cache")
    assert first.images == (("0-0", "0-1") if several else ("0-0",))
    assert second.images == ()
    pictures = open_data(entry, folder=tmp_path / "cache").pictures
    assert pictures is not None
    for name in first.images:
        held = pictures.source(name)
        assert isinstance(held, bytes)
        assert Image.open(io.BytesIO(held)).getpixel((0, 0)) == (255, 0, 0)


def test_a_folder_of_pictures_of_the_hub_brings_its_files(hub: Any, tmp_path: Path):
    folder = tmp_path / "imgs" / "train"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png())
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "q": "What?", "a": "red"}\n')
    entry = Entry(path=f"hub:{tmp_path / 'imgs'}", question="q", answer="a")
    (found,) = read(entry, tmp_path / "cache")
    pictures = open_data(entry, folder=tmp_path / "cache").pictures
    assert pictures is not None
    assert pictures.source(found.images[0]) == png()


def test_pictures_that_a_dataset_only_names_keep_their_names(hub: Any, tmp_path: Path):
    rows = [{"id": "a", "image": {"bytes": None, "path": "gone.png"}, "conversations": talk("<image>", "A")}]
    made = hub.Dataset.from_list(rows).cast_column("image", hub.Image(decode=False))
    (tmp_path / "named").mkdir()
    parquet.write_table(made.with_format("arrow")[:], tmp_path / "named" / "train.parquet")
    (found,) = read(Entry(path=f"hub:{tmp_path / 'named'}"), tmp_path / "cache")
    assert found.images == ("gone.png",)


def test_splits_and_subsets_of_a_dataset(hub: Any, tmp_path: Path):
    rows = [{"id": "a", "conversations": talk("Q", "A")}, {"id": "b", "conversations": talk("Q", "B")}]
    train, held = (hub.Dataset.from_list([row]) for row in rows)
    hub.DatasetDict({"train": train, "held": held}).save_to_disk(str(tmp_path / "saved"))
    path = f"hub:{tmp_path / 'saved'}"
    assert [row.id for row in read(Entry(path=path), tmp_path / "cache")] == ["a"]
    assert [row.id for row in read(Entry(path=path, split="held"), tmp_path / "cache")] == ["b"]
    with pytest.raises(DataError, match=r"split 'none', cannot be had \(it has the splits train, held\)"):
        open_data(Entry(path=path, split="none"), folder=tmp_path / "cache")
    folder = tmp_path / "named"
    for number, part in enumerate((train, held)):
        (folder / str(number)).mkdir(parents=True)
        part.to_parquet(folder / str(number) / "train.parquet")
    configs = "".join(f"- config_name: c{n}\n  data_files: {n}/train.parquet\n" for n in (0, 1))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert [row.id for row in read(Entry(path=f"hub:{folder}", subset="c1"), tmp_path / "cache")] == ["b"]
    with pytest.raises(DataError, match="choose with hub:.*split=NAME,subset=NAME"):
        open_data(Entry(path=f"hub:{folder}"), folder=tmp_path / "cache")


def test_hub_datasets_need_their_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match="datasets of the hub need datasets"):
        open_data(Entry(path="hub:owner/name"))


# --- WebDataset -------------------------------------------------------------------------------------------


def web(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_a_webdataset_has_rows_and_pictures(tmp_path: Path):
    turns = talk("<image> Q", "A")
    members = {
        "s/000.json": json.dumps({"conversations": turns}).encode(),
        "s/000.png": png(),
        "s/001.png": png(),
        "s/001.json": json.dumps({"id": "own", "image": "elsewhere.jpg", "conversations": turns}).encode(),
        "s/002.json": json.dumps({"conversations": talk("Q", "A")}).encode(),
        "s/003.json": b"{",
        "s/004.json": b"[]",
    }
    opened = open_data(Entry(path=str(web(tmp_path / "d.tar", members))), folder=tmp_path / "cache")
    rows = [opened.rows.get(number) for number in range(len(opened.rows))]
    first, second, third, *wrong = rows
    assert isinstance(first, Example)
    assert isinstance(second, Example)
    assert isinstance(third, Example)
    assert (first.id, first.images, second.id, second.images) == (
        "s/000",
        ("s/000.png",),
        "own",
        ("s/001.png",),
    )
    assert third.images == ()
    assert opened.pictures is not None
    assert opened.pictures.source("s/001.png") == png()
    assert [str(row)[:12] for row in wrong] == ["row 's/003':", "row 'number "]


def test_a_tar_without_rows_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="holds no .json member"):
        open_data(Entry(path=str(web(tmp_path / "d.tar", {"a.png": png()}))), folder=tmp_path)
    with pytest.raises(NotFoundError, match="no data file at"):
        open_data(Entry(path=str(tmp_path / "none.tar")), folder=tmp_path)


def test_an_entry_may_name_pictures_of_its_own(tmp_path: Path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_bytes(png())
    data = tmp_path / "d.json"
    data.write_text(json.dumps([{"id": "a", "image": "a.png", "conversations": talk("<image>", "A")}]))
    pictures = open_data(Entry(path=str(data), images=str(tmp_path / "p"))).pictures
    assert pictures is not None
    assert "a.png" in pictures
