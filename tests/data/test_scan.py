from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.data import scan
from llavar.data.scan import Kind, find_rows
from llavar.errors import DataError

values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a"\\[]{},\n é😀'), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\a,', max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


def rows_of(path: Path) -> list[Any]:
    data = path.read_bytes()
    places = find_rows(path).places
    return [json.loads(data[p["offset"] : int(p["offset"]) + int(p["length"])].decode()) for p in places]


@given(
    rows=st.lists(values, max_size=6),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    before=st.sampled_from(["", " \n", "\ufeff"]),
    chunk=st.sampled_from([1, 2, 3, 7, 4 << 20]),
)
@settings(deadline=None, max_examples=150)
def test_a_list_is_found_as_json_reads_it_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Any],
    indent: int | None,
    ascii_only: bool,
    before: str,
    chunk: int,
):
    path = tmp_path_factory.getbasetemp() / "list.json"
    path.write_text(
        before + json.dumps(rows, indent=indent, ensure_ascii=ascii_only) + " \n", encoding="utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "_CHUNK", chunk)
        assert rows_of(path) == rows
        assert find_rows(path).places["number"].tolist() == list(range(1, len(rows) + 1))


@given(
    rows=st.lists(st.dictionaries(st.text('"\\a', max_size=3), values, max_size=2), min_size=1, max_size=6),
    blank=st.lists(st.sampled_from(["", " ", "\t\r", " " * 30]), min_size=6, max_size=6),
    ends=st.booleans(),
    chunk=st.sampled_from([1, 3, 8, 4 << 20]),
)
@settings(deadline=None, max_examples=100)
def test_lines_are_found_and_numbered_blank_ones_included(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], blank: list[str], ends: bool, chunk: int
):
    lines: list[str] = []
    for row, space in zip(rows, blank, strict=False):
        lines += [json.dumps(row), *([space] if space else [])]
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_text("\n".join(lines) + ("\n" if ends else ""), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "_CHUNK", chunk)
        found = find_rows(path)
        assert rows_of(path) == rows
    assert found.kind is Kind.LINES
    assert found.places["number"].tolist() == [n for n, line in enumerate(lines, 1) if line.strip()]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[{"a": 1}, {"b": "', "it ends inside a string, after 1 whole rows"),
        ('[{"a": 1}, {"b": 2}', "it ends 1 brackets deep, after 1 whole rows"),
        ("[1] 2", "something follows the list at byte 4"),
        ("[1]]", "something follows the list at byte 3"),
        ("  7", "begins with '7'"),
    ],
)
def test_what_is_no_whole_list_is_one_sentence(tmp_path: Path, content: str, sentence: str):
    path = tmp_path / "d.json"
    path.write_text(content)
    with pytest.raises(DataError, match=sentence):
        find_rows(path)


def test_a_trailing_comma_is_a_row_that_says_nothing_and_an_empty_list_has_none(tmp_path: Path):
    path = tmp_path / "d.json"
    path.write_text("[1,]")
    assert len(find_rows(path).places) == 2
    for empty in ("[]", " [ \n ] "):
        path.write_text(empty)
        assert not len(find_rows(path).places)


def test_a_long_run_of_backslashes_is_no_trap(tmp_path: Path):
    path = tmp_path / "d.json"
    rows = ["\\" * 200_001 + '"', "\\" * 3, "x"]
    path.write_text(json.dumps(rows))
    assert rows_of(path) == rows
