from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from llavar.data import cache
from llavar.data.index import HeldRows, RowFile, open_rows
from llavar.data.source import RowError, read_rows
from llavar.errors import DataError, NotFoundError
from llavar.records import Example


def row(number: int) -> dict[str, object]:
    talk = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "[é]" * 10}]
    return {"id": f"r{number}", "image": f"{number}.png", "conversations": talk}


@pytest.fixture
def keep_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_SMALL", 0)


def written(path: Path, count: int = 20) -> Path:
    path.write_text(json.dumps([row(n) for n in range(count)]), encoding="utf-8")
    return path


def names(rows: RowFile) -> list[str]:
    found = [rows.get(number) for number in range(len(rows))]
    return [each.id if isinstance(each, Example) else each.row for each in found]


@pytest.mark.usefixtures("keep_all")
def test_the_pass_is_made_once_and_mapped_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(tmp_path / "d.json")
    first = open_rows(path, folder=tmp_path / "cache")
    assert first.seconds > 0
    monkeypatch.setattr("llavar.data.index.find_rows", lambda path: pytest.fail("a second pass"))
    again = open_rows(path, folder=tmp_path / "cache")
    assert again.seconds == 0
    assert [again.get(n) for n in range(20)] == list(read_rows(path, source="d.json"))
    assert names(pickle.loads(pickle.dumps(again))) == names(first)
    assert len(pickle.dumps(again)) < 1000  # the index does not travel


@pytest.mark.usefixtures("keep_all")
@pytest.mark.parametrize("change", ["content", "damage", "dtype", "outside", "gone"])
def test_an_index_that_does_not_fit_is_made_anew(tmp_path: Path, change: str):
    path, folder = written(tmp_path / "d.json"), tmp_path / "cache"
    open_rows(path, folder=folder)
    (array,) = folder.glob("*.npy")
    if change == "content":
        written(path, 21)
    elif change == "damage":
        array.write_bytes(array.read_bytes()[:100])
    elif change == "dtype":
        np.save(array, np.zeros(20))
    elif change == "outside":
        places = np.load(array)
        places["offset"] += 1 << 40
        np.save(array, places)
    else:
        array.unlink()
    rows = open_rows(path, folder=folder)
    assert rows.seconds > 0
    assert names(rows) == [f"r{n}" for n in range(21 if change == "content" else 20)]


@pytest.mark.usefixtures("keep_all")
def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path):
    (tmp_path / "file").write_text("")
    rows = open_rows(written(tmp_path / "d.json"), folder=tmp_path / "file")
    assert names(pickle.loads(pickle.dumps(rows))) == [f"r{n}" for n in range(20)]


def test_small_files_leave_nothing_in_the_cache(tmp_path: Path):
    assert len(open_rows(written(tmp_path / "d.json"), folder=tmp_path / "cache")) == 20
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / "llavar" / "index"


def test_a_row_that_is_none_is_an_error_in_its_place(tmp_path: Path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps([row(0), 3]).replace("3]", "{nonsense}, " + json.dumps(row(2)) + "]"))
    rows = open_rows(path)
    wrong = rows.get(1)
    assert isinstance(wrong, RowError)
    assert "number 2" in str(wrong)
    assert names(rows) == ["r0", "number 2", "r2"]


def test_a_file_that_shrinks_meanwhile_is_one_sentence(tmp_path: Path):
    path = written(tmp_path / "d.json")
    rows = open_rows(path)
    os.truncate(path, 100)
    with pytest.raises(DataError, match="was cut while it was in use"):
        rows.get(19)


def test_missing_files_and_rows_in_memory(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no data file"):
        open_rows(tmp_path / "none.json")
    example = read_rows(written(tmp_path / "d.json"))[0]
    assert HeldRows([example]).get(0) is example
