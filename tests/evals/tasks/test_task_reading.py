from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import DataError, LlavarError
from llavar.evals import tasks
from llavar.evals.tasks.reading import Row, image_name, json_lines, listed, read_json, rows

ROW = {"questionId": 1, "image": "documents/a.png", "question": "What?", "answers": ["x"]}


def _row(value: dict[str, object]) -> Row:
    return Row(file=Path("f.json"), where="row 3", value=value)


def _docvqa(data: Path, content: str) -> None:
    (data / "docVQA/val").mkdir(parents=True, exist_ok=True)
    (data / "docVQA/val/val_v1.0.json").write_text(content)
    tasks.get("docvqa").load(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": None}, "row 0: the field 'question' holds nothing where a string is due"),
        ({"question": 3}, "row 0: the field 'question' holds a int where a string is due"),
        ({"question": " "}, "row 0: the field 'question' is blank"),
        ({"question": "\ud800"}, "row 0: the field 'question' holds a lone surrogate at character 0"),
        ({"questionId": True}, "row 0: the field 'questionId' holds a bool"),
        ({"answers": []}, "row 0: the field 'answers' holds no answer"),
        ({"answers": ["", " "]}, "row 0: the field 'answers' holds no answer"),
        ({"answers": {"a": 1}}, "row 0: the field 'answers' holds a dict where a string is due"),
        ({"answers": ["x", 1]}, "row 0: the field 'answers' holds a int where a string is due"),
        ({"image": "../../etc/passwd"}, "no path inside the image folder"),
        ({"image": "a/../../b.png"}, "no path inside the image folder"),
        ({"image": "..\\b.png"}, "no path inside the image folder"),
        ({"image": "a\0.png"}, "no path inside the image folder"),
        ({"image": "/etc/passwd"}, "is an absolute path"),
        ({"image": "C:\\x.png"}, "is an absolute path"),
        ({"image": "\\\\host\\x.png"}, "is an absolute path"),
        ({"image": "~root/x.png"}, "is an absolute path"),
    ],
)
def test_hostile_rows_are_refused_with_file_and_row(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="val_v1.0.json, row 0: ") as caught:
        _docvqa(tmp_path, json.dumps({"data": [ROW | change]}))
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ROW)
def test_a_missing_field_is_named(key: str, tmp_path: Path) -> None:
    row = {name: value for name, value in ROW.items() if name != key}
    with pytest.raises(DataError, match=f"row 1: the field '{key}' is missing"):
        _docvqa(tmp_path, json.dumps({"data": [ROW, row]}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not valid JSON"),
        ("[1, 2]", "the file: it is a list where an object is due"),
        ('{"rows": []}', "the file: the field 'data' is missing (it has rows)"),
        ('{"data": {}}', "the field 'data' of"),
        ('{"data": [1]}', "row 0: it is a int where an object is due"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"data": ' + "9" * 5000 + "}", "is not valid JSON"),
    ],
)
def test_files_of_another_shape_are_refused(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _docvqa(tmp_path, content)
    assert message in str(caught.value)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes("[]".encode("utf-16"))
    with pytest.raises(DataError, match="is not UTF-8 at byte 0"):
        read_json(tmp_path / "x.json")


def test_a_byte_order_mark_and_line_ends_of_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert [row.value["a"] for row in json_lines(tmp_path / "x.jsonl")] == [1, 2]
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf[{"a": 1}]')
    assert [row.where for row in rows(tmp_path / "x.json")] == ["row 0"]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n\n{"a":\n')
    with pytest.raises(DataError, match="x.jsonl, line 3: it is not valid JSON"):
        list(json_lines(tmp_path / "x.jsonl"))


def test_separators_inside_of_texts_do_not_cut_lines(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"a": "b\u2028c"}, ensure_ascii=False), encoding="utf-8")
    assert [row.text("a") for row in json_lines(tmp_path / "x.jsonl")] == ["b\u2028c"]


def test_hidden_files_are_left_out_and_names_sorted(tmp_path: Path) -> None:
    for name in ("b.txt", "._a.txt", "a.txt", "c.json"):
        (tmp_path / name).touch()
    assert [path.name for path in listed(tmp_path, ".txt")] == ["a.txt", "b.txt"]


def test_numbers_become_text_only_where_the_format_has_them() -> None:
    row = _row({"answers": [5, 0.5, "x"]})
    assert row.references("answers", numbers=True) == ("5", "0.5", "x")
    with pytest.raises(DataError):
        _row({"answers": [True]}).references("answers", numbers=True)


def test_blank_answers_are_kept_where_the_original_counts_them() -> None:
    assert _row({"answers": ""}).references("answers", blank=True) == ("",)
    with pytest.raises(DataError, match="row 3: the field 'answers' holds no answer"):
        _row({"answers": ""}).references("answers")


@settings(deadline=None)
@given(st.text(alphabet="ab./\\:~\n C", max_size=12))
def test_an_accepted_image_stays_inside(name: str) -> None:
    try:
        accepted = image_name(name, _row({}))
    except DataError:
        return
    assert accepted == name
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        assert not path.is_absolute()
        assert not path.drive
        assert ".." not in path.parts


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(ROW)), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(value=_JSON)
def test_any_json_is_read_or_refused_with_a_sentence(
    value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "docVQA/val").mkdir(parents=True)
    (folder / "docVQA/val/val_v1.0.json").write_text(json.dumps({"data": [value]}))
    try:
        loaded = tasks.get("docvqa").load(folder)
    except LlavarError:
        return
    assert len(loaded.questions) == 1
