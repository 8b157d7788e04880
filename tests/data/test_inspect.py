from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llavar import chat, images
from llavar.data.encode import encode
from llavar.data.index import open_rows
from llavar.data.inspect import Inspection, inspect, summary, visible
from llavar.data.inspect_page import write_page
from llavar.data.rows import Encoder, measure
from llavar.data.source import parse_row
from llavar.errors import NotFoundError
from llavar.images import Transform
from llavar.models.tokenizer import nano_tokenizer

NANO = nano_tokenizer()
V1 = chat.get("llava_v1")


def turns(asked: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]


GOOD = {"id": "good", "image": "a.png", "conversations": turns("<image>\nWhat?", "STOP")}
BAD = {"id": "bad", "conversations": turns("<image>", "A")}
HOSTILE = {"id": "[red]x[/red]", "conversations": turns("[/bold] :smile: \x1b[2J\u202e", "[link=file:///]A")}


def run(
    tmp_path: Path, rows: list[object], *, as_json: bool = False, limit: int | None = None
) -> tuple[str, Inspection]:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(rows))
    out = io.StringIO()
    found = inspect(
        path,
        tokenizer=NANO,
        template=V1,
        image_tokens=4,
        max_length=None,
        as_json=as_json,
        limit=limit,
        out=out,
    )
    return out.getvalue(), found


def test_json_has_one_line_a_row(tmp_path: Path):
    text, found = run(tmp_path, [GOOD, BAD, {"id": "worse"}, 3], as_json=True)
    lines = [json.loads(line) for line in text.splitlines()]
    row = encode(parse_row(GOOD), NANO, V1, image_tokens=4)
    assert lines[0] == {"id": "good", "input_ids": list(row.ids), "labels": list(row.labels)}
    assert [set(line) for line in lines[1:]] == [{"id", "error"}] * 3
    assert [line["id"] for line in lines] == ["good", "bad", "worse", "number 4"]
    assert "1 <image> tags for 0 images" in lines[1]["error"]
    assert found == Inspection(rows=4, unusable=3)


def test_supervised_tokens_are_marked(tmp_path: Path):
    text, found = run(tmp_path, [GOOD])
    assert "<im_start><im_patch>×4<im_end>\nWhat? ASSISTANT:⟦ STOP</s>⟧" in text
    assert text.count("⟦") == text.count("⟧") == 1
    assert "6 supervised, 1 images" in text
    assert found == Inspection(rows=1, unusable=0)


def test_unusable_rows_are_shown_with_their_reason(tmp_path: Path):
    text, _ = run(tmp_path, [BAD, GOOD])
    assert "bad  unusable, image tags differ from images: 1 <image> tags for 0 images" in text
    assert "2 rows, 1 of them unusable" in text


def test_hostile_rows_are_neither_markup_nor_control(tmp_path: Path):
    text, _ = run(tmp_path, [HOSTILE, {"id": "\x1b]0;x\x07", "conversations": []}])
    for kept in ("[red]x[/red]", "[/bold] :smile: ", "[link=file:///]A", "\\x1b]0;x\\x07"):
        assert kept in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_escapes_reach_a_terminal_spelled_out():
    assert visible("a\nb\x1b[0m\x9b\u2066\u200b") == "a\nb\\x1b[0m\\x9b\\u2066\\u200b"
    assert visible("Größe 字") == "Größe 字"


def test_a_left_out_opening_is_pointed_out(tmp_path: Path):
    opened = {"id": "o", "conversations": [{"from": "gpt", "value": "Hello"}, *turns("Q", "A")]}
    text, _ = run(tmp_path, [opened])
    assert "opens with an answer" in text
    assert "Hello" not in text


@pytest.mark.parametrize("as_json", [True, False])
def test_the_limit_counts_rows(tmp_path: Path, as_json: bool):
    _, found = run(tmp_path, [GOOD] * 5, as_json=as_json, limit=2)
    assert found.rows == 2


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(NotFoundError):
        inspect(tmp_path / "no.json", tokenizer=NANO, template=V1, image_tokens=4, out=io.StringIO())


# --- all rows, and a page ---------------------------------------------------------------------------------


ENCODER = Encoder(
    tokenizer=NANO, template=V1, image_tokens=4, max_length=150, unknown=NANO.unk_id, key="inspect"
)


def many(tmp_path: Path) -> Path:
    rows: list[object] = [
        {**GOOD, "id": f"r{n}", "conversations": turns("<image>", "A" * n)} for n in range(30)
    ]
    path = tmp_path / "many.json"
    path.write_text(json.dumps([*rows, BAD, BAD, 7, {"id": "字", "conversations": turns("Q", "字")}]))
    return path


def test_lengths_and_reasons_of_all_rows_follow_those_that_are_shown(tmp_path: Path):
    out = io.StringIO()
    found = inspect(
        many(tmp_path), tokenizer=NANO, template=V1, image_tokens=4, limit=2, stats=ENCODER, out=out
    )
    text = out.getvalue()
    assert found.rows == 2
    assert "r1  " in text
    assert "r2  " not in text
    assert "2 rows, 0 of them unusable\nall 34 rows: 30 usable, 4 not\n" in text
    assert "unusable: 2 image tags differ from images\n" in text
    assert "unusable: 1 characters that the tokenizer lacks\n" in text
    counts = [int(line.split()[1]) for line in text.splitlines() if "█" in line]
    assert sum(counts) == 30


def test_a_file_of_unusable_rows_has_no_lengths(tmp_path: Path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps([BAD]))
    text = summary(measure(open_rows(path), ENCODER))
    assert text == "all 1 rows: 0 usable, 1 not\nunusable: 1 image tags differ from images"


def page(tmp_path: Path, rows: list[object], pictures: Path | None) -> str:
    path, out = tmp_path / "data.json", tmp_path / "page.html"
    path.write_text(json.dumps(rows))
    write_page(path, out, encoder=ENCODER, pictures=pictures, transform=Transform.PAD, size=16)
    return out.read_text()


def test_a_page_shows_labels_and_the_picture_as_the_model_sees_it(tmp_path: Path):
    Image.new("RGB", (40, 10), "red").save(tmp_path / "a.png")
    text = page(tmp_path, [GOOD, BAD], tmp_path)
    assert '<b class="good"> STOP&lt;/s&gt;</b>' in text
    assert "image tags differ from images" in text
    seen = base64.b64decode(text.partition("data:image/png;base64,")[2].partition('"')[0])
    expected = images.view(tmp_path / "a.png", transform=Transform.PAD, size=16)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(seen))), np.asarray(expected))


def test_a_page_survives_hostile_rows_and_missing_pictures(tmp_path: Path):
    script = {"id": "<script>", "conversations": turns("<script>alert(1)</script> \x1b", "<b>A</b>")}
    text = page(tmp_path, [script, HOSTILE, GOOD, 3], tmp_path)
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "unusable picture" in text
    assert "name its folder with --images" in page(tmp_path, [GOOD], None)
    assert "0 usable" not in page(tmp_path, [BAD], None)
