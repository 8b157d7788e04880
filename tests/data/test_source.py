from __future__ import annotations

import contextlib
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.data.source import Reason, RowError, parse_row, read_rows, scan_rows, write_rows
from llavar.errors import DataError, NotFoundError
from llavar.records import Conversation, Example, Reject, Role

ROW = {
    "id": "a",
    "image": "a.jpg",
    "conversations": [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A"}],
}

plain = st.text(st.characters(codec="utf-8"))
names = plain.filter(lambda text: text and "\0" not in text)
examples = st.builds(
    lambda name, images, turns: Example(
        id=name, images=tuple(images), conversation=Conversation.of(*turns), source="s"
    ),
    names,
    st.lists(names, max_size=3),
    st.lists(plain, min_size=1, max_size=4),
)


def test_a_row_becomes_an_example():
    example = parse_row(ROW, source="chat")
    assert example == Example(
        id="a", source="chat", images=("a.jpg",), conversation=Conversation.of("<image>\nQ", "A")
    )


def test_text_only_several_images_numbers_as_ids_and_keys_of_other_tools():
    turns = [{"from": "human", "value": "Q", "weight": 1}]
    assert parse_row({"id": "a", "conversations": turns}).images == ()
    assert parse_row({"id": "a", "image": ["x", "y"], "conversations": turns}).images == ("x", "y")
    assert parse_row({"id": 7, "conversations": turns, "model": "gpt-4"}).id == "7"
    assert parse_row({"id": "a", "conversations": turns}).conversation.turns[0].role is Role.USER


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"id": None}, "number 3': its id is nothing"),
        ({"id": ""}, "give a non-empty string"),
        ({"id": True}, "its id is a bool"),
        ({"id": ["a"]}, "its id is a list"),
        ({"image": 5}, "image 5 is no file name"),
        ({"image": ""}, "image '' is no file name"),
        ({"image": ["a", None]}, "image None is no file name"),
        ({"image": "a\0.jpg"}, "no file name"),
        ({"conversations": None}, "number 3 has nothing as conversations"),
        ({"conversations": []}, "an empty list as conversations"),
        ({"conversations": {"from": "human"}}, "a dict as conversations"),
        ({"conversations": ["hi"]}, "turn 1 is a str"),
        ({"conversations": [{"from": "human"}]}, "turn 1 has nothing as its value"),
        ({"conversations": [{"from": "human", "value": 4}]}, "turn 1 has a int as its value"),
        ({"conversations": [{"from": "human", "value": "\ud800"}]}, "lone surrogate at character 0"),
        ({"id": "\udfff"}, "lone surrogate"),
    ],
)
def test_malformed_rows_are_refused(change: dict[str, object], match: str):
    with pytest.raises(RowError, match=match) as caught:
        parse_row({**ROW, **change}, number=3)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("speaker", ["system", "GPT", None, 3, ["human"]])
def test_unknown_roles_have_a_reason_of_their_own(speaker: object):
    with pytest.raises(RowError, match="only 'human' and 'gpt' may speak") as caught:
        parse_row({"id": "a", "conversations": [{"from": speaker, "value": "x"}]})
    assert caught.value.reason is Reason.UNKNOWN_ROLE


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["id", "image", "conversations", "from", "value"]), inner, max_size=5
            )
        ),
        max_leaves=12,
    )
)
@settings(deadline=None)
def test_any_json_is_an_example_or_a_row_error(value: object):
    with contextlib.suppress(RowError):
        assert isinstance(parse_row(value), Example)


def test_errors_survive_pickling_and_become_rejects():
    error = RowError("a", Reason.UNKNOWN_ROLE, "turn 1 is from 'x'")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.reason) == ("row 'a': turn 1 is from 'x'", Reason.UNKNOWN_ROLE)
    assert copy.reject("encode") == Reject(
        id="a", stage="encode", reason="unknown role", detail="turn 1 is from 'x'"
    )


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
@given(rows=st.lists(examples, max_size=4))
@settings(deadline=None, max_examples=40)
def test_writing_then_reading_gives_the_rows_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, rows: list[Example]
):
    path = tmp_path_factory.mktemp("rows") / name
    if not rows and name.endswith("l"):
        rows = [parse_row(ROW, source="s")]
    write_rows(rows, path)
    assert list(read_rows(path, source="s")) == rows


def test_written_file_is_llavas_format(tmp_path: Path):
    rows = [parse_row(ROW), parse_row({**ROW, "id": "b", "image": ["x", "y"]})]
    write_rows(
        [*rows, parse_row({"id": "c", "conversations": ROW["conversations"]})], tmp_path / "new" / "d.json"
    )
    written = json.loads((tmp_path / "new" / "d.json").read_text())
    assert written[0] == ROW
    assert written[1]["image"] == ["x", "y"]
    assert list(written[2]) == ["id", "conversations"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "d.json"
    path.write_text("old")

    def rows():
        yield parse_row(ROW)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(rows(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_reading_stops_at_a_bad_row_and_scanning_goes_on(tmp_path: Path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps([ROW, {**ROW, "id": None}, {**ROW, "id": "c"}]))
    with pytest.raises(RowError, match="number 2"):
        read_rows(path)
    scanned = [row.id if isinstance(row, Example) else row.row for row in scan_rows(path)]
    assert scanned == ["a", "number 2", "c"]


def test_a_bad_line_of_jsonl_is_one_bad_row(tmp_path: Path):
    path = tmp_path / "d.jsonl"
    odd = {**ROW, "id": "\u2028"}
    path.write_text(
        json.dumps(ROW) + "\n{oops\n\n" + json.dumps(odd, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    first, second, third = scan_rows(path)
    assert isinstance(first, Example)
    assert isinstance(second, RowError)
    assert "line 2" in str(second)
    assert isinstance(third, Example)
    assert third.id == "\u2028"


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps([ROW]), encoding="utf-8-sig")
    assert len(read_rows(path)) == 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "give a JSON list"),
        (b"hello", "begins with 'hello'"),
        (b"[1, 2", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b"[" + b"1" * 5000 + b"]", "not valid JSON"),
        (b"[\xff]", "not UTF-8 at byte 0"),
    ],
)
def test_files_that_are_no_rows(tmp_path: Path, content: bytes, match: str):
    path = tmp_path / "d.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=match):
        read_rows(path)


def test_missing_files_and_folders(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no data file"):
        read_rows(tmp_path / "none.json")
    with pytest.raises(DataError, match="is a folder"):
        read_rows(tmp_path)
