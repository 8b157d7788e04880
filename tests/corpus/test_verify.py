"""What is wrong with anybody's data set: every kind of corruption that was seen in the wild."""

from __future__ import annotations

import importlib
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from llavar.cli import main
from llavar.corpus import verify as module
from llavar.corpus.verify import Expect, Fault, Remark, Verified, VerifySettings, verify
from llavar.errors import ConfigError, NotFoundError
from llavar.study.nano.weights import folder

Turns = tuple[tuple[str, str], ...]
GOOD: Turns = (("human", "What does it say?\n<image>"), ("gpt", "SALE"))


def row(id: str = "a", image: object = "a.png", turns: Turns = GOOD) -> dict[str, object]:
    said = [{"from": speaker, "value": text} for speaker, text in turns]
    return {"id": id, **({"image": image} if image is not None else {}), "conversations": said}


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Verified]:
    """Writes rows to a file and looks at them without opening pictures."""

    def run(*rows: object, name: str = "data.json", out: Path | None = None, **settings: object) -> Verified:
        path = tmp_path / name
        path.write_text(json.dumps(rows))
        return verify(path, VerifySettings(**{"open_images": False, **settings}), out=out)  # type: ignore[arg-type]

    return run


def image(target: Path, name: str = "a.png", **how: object) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(held, how.pop("format", "PNG"), **how)  # type: ignore[arg-type]
    target.mkdir(exist_ok=True)
    (target / name).write_bytes(held.getvalue())
    return held.getvalue()


# ------------------------------------------------------------------------------------------------ rows


def test_a_sound_file_has_no_faults_and_its_lengths(check: Callable[..., Verified]):
    text_only = row("b", None, (("human", "Hi"), ("gpt", "Hello"), ("human", "Bye"), ("gpt", "Bye!")))
    found = check(row(), text_only)
    assert found.ok
    assert (found.rows, found.with_pictures, found.pictures, found.opened) == (2, 1, 1, 0)
    instruction = found.lengths["instruction characters"]
    assert (instruction.n, instruction.longest, instruction.median, instruction.mean) == (3, 17, 3, 7.3)


@pytest.mark.parametrize(
    ("turns", "kinds"),
    [
        ((("gpt", "Hello"), ("human", "<image>\nWhat?"), ("gpt", "x")), {Fault.OPENED_BY_GPT}),
        ((("human", "<image>\nWhat?"), ("human", "Well?"), ("gpt", "x")), {Fault.SAME_ROLE}),
        ((("human", "<image>\nWhat?"),), {Fault.UNANSWERED}),
        ((("human", "<image>\nWhat?"), ("gpt", " ")), {Fault.EMPTY}),
        ((("human", "<image>\n"), ("gpt", "x")), {Fault.EMPTY}),
        ((("human", "What?"), ("gpt", "x")), {Fault.TAG_COUNT}),
        ((("human", "<image><image>What?"), ("gpt", "x")), {Fault.TAG_COUNT}),
        ((("human", "What?"), ("gpt", "x"), ("human", "<image>\nNow?"), ("gpt", "y")), {Fault.TAG_LATER}),
        ((("human", "<image>\nWhat?"), ("gpt", "An <image>")), {Fault.TAG_IN_ANSWER}),
        ((("human", "<image>\nWhat?"), ("gpt", "x</s>y")), {Fault.SEPARATOR}),
        ((("human", "<image>\nWhat? ASSISTANT: it"), ("gpt", "x")), {Fault.SEPARATOR}),
        ((("human", "<image>\nWhat?"), ("gpt", "### Human")), {Fault.SEPARATOR}),
        ((("human", "<image>\nWhat?"), ("gpt", "<im_patch>")), {Fault.SEPARATOR}),
        ((("human", "<image>\nWhat?"), ("gpt", "x" * 8000)), {Fault.LONG}),
        ((("bot", "<image>\nWhat?"), ("gpt", "x")), {"unknown role"}),
    ],
)
def test_each_fault_of_a_conversation_is_found_alone(
    turns: Turns, kinds: set[str], check: Callable[..., Verified]
):
    found = check(row("first"), row("bad", "b.png", turns))
    assert set(found.faults) == kinds
    assert not found.remarks
    assert [one.id for kind in kinds for one in found.examples[kind]] == ["bad"]


@pytest.mark.parametrize("wrong", [{}, {"id": "a"}, [], "row", {"id": "a", "conversations": [1]}])
def test_a_row_that_is_none_is_a_fault_and_the_others_are_looked_at(
    wrong: object, check: Callable[..., Verified]
):
    found = check(row("x", "x.png"), wrong, row("y", "y.png", GOOD[:1]))
    assert found.faults == {"malformed row": 1, Fault.UNANSWERED: 1}


def test_an_id_may_stand_for_several_questions_about_one_picture_and_not_for_two_pictures(
    check: Callable[..., Verified],
):
    more: Turns = (("human", "<image>\nWhere?"), ("gpt", "Here"))
    found = check(row(), row(turns=more), row(), row(image="b.png"))
    assert found.remarks == {Remark.SAME_ID: 1}
    assert found.faults == {Fault.TWICE: 1, Fault.ID: 1}


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.png", "x/../../a.png"])
def test_a_name_that_leads_out_of_the_folder_is_a_fault_and_is_not_opened(name: str, tmp_path: Path):
    image(tmp_path, "a.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "d.json").write_text(json.dumps([row(image=name)]))
    found = verify(tmp_path / "d.json", VerifySettings(images=tmp_path / "images"))
    assert (found.faults, found.opened) == ({Fault.NAME: 1}, 0)


def test_tokens_are_counted_by_the_tokenizer_and_the_limit_is_held_against_them(
    check: Callable[..., Verified],
):
    def words(text: str) -> int:
        return len(text.split())

    found = check(row(), tokens=words, max_length=580)
    assert found.faults == {Fault.LONG: 1}, "576 of the picture, 4 and 1 of the turns"
    assert found.lengths["instruction tokens"].mean == 4
    assert check(row(), tokens=words, max_length=581).ok


def test_the_whole_list_is_written_and_the_summary_shows_the_first(
    check: Callable[..., Verified], tmp_path: Path
):
    found = check(*(row(f"r{n}", f"{n}.png", GOOD[:1]) for n in range(5)), out=tmp_path / "mend.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "mend.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[4] == {
        "row": 5,
        "id": "r4",
        "kind": Fault.UNANSWERED,
        "detail": "What does it say?\n<image>",
    }
    assert [one.id for one in found.examples[Fault.UNANSWERED]] == ["r0", "r1", "r2"]


# ------------------------------------------------------------------------------------------------ the paper


@pytest.mark.parametrize(
    ("name", "count", "ok"),
    [("chat", 3, True), ("chat", 2, False), ("chat_llavar", 6, True), ("chat_llavar", 3, False)],
)
def test_released_files_have_so_many_rows(
    name: str, count: int, ok: bool, check: Callable[..., Verified], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_PAPER", {"chat": (3, 3), "chat_llavar": (5, 7)})
    rows = [row(str(n), f"GCC_train_{n:09d}.jpg") for n in range(count)]
    found = check(*rows, name=f"{name}.json", expect=Expect.PAPER)
    assert found.ok is ok
    assert not found.remarks
    if not ok:
        assert "are expected" in found.examples[Fault.COUNT][0].detail


def test_the_papers_counts_are_those_of_the_released_files(check: Callable[..., Verified]):
    found = check(row("a", "000000033471.jpg"), name="llava_instruct_150k.json", expect=Expect.PAPER)
    assert found.examples[Fault.COUNT][0].detail == "1 rows, 157,712 are expected"
    found = check(row("a", "x.png"), name="chat_llavar.json", expect=Expect.PAPER)
    assert found.examples[Fault.COUNT][0].detail == "1 rows, 1,017,690 are expected"
    assert found.remarks == {Remark.STYLE: 1}
    with pytest.raises(ConfigError, match=r"no file mine\.json.*chat_llavar\.json.*--expect none"):
        check(row(), name="mine.json", expect=Expect.PAPER)


# ------------------------------------------------------------------------------------------------ pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def with_text(png: bytes, size: int) -> bytes:
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b" " * size))
    return png[:33] + text + png[33:]


def corrupted(target: Path) -> dict[str, tuple[bytes | None, str]]:
    """Files by name: their bytes (None: there is none), and what is found."""
    png = image(target)
    jpeg = image(target, "a.jpg", format="JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    palette = io.BytesIO()
    Image.new("P", (8, 6)).save(palette, "PNG", transparency=b"\0\x80")
    cmyk = io.BytesIO()
    Image.new("CMYK", (8, 6)).save(cmyk, "JPEG")
    return {
        "missing.png": (None, Fault.MISSING),
        "gif.jpg": (image(target, "g.gif", format="GIF"), Remark.FORMAT),
        "truncated.png": (png[: len(png) // 2], Fault.BROKEN),
        "exif.jpg": (jpeg, ""),
        "comment.png": (with_text(png, 80_000_000), ""),
        "bomb.png": (bomb(), Fault.BROKEN),
        "cmyk.jpg": (cmyk.getvalue(), ""),
        "palette.png": (palette.getvalue(), ""),
        "zero.png": (b"", Fault.BROKEN),
        "page.png": (b"<!DOCTYPE html><html>404</html>", Fault.BROKEN),
    }


def test_every_corruption_of_a_picture_is_told_from_what_only_looks_odd(tmp_path: Path):
    target = tmp_path / "images"
    files = corrupted(target)
    for name, (data, _) in files.items():
        if data is not None:
            (target / name).write_bytes(data)
    rows = [row(f"{name}-{n}", name) for name in files for n in range(2)]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    found = verify(tmp_path / "d.json", VerifySettings(images=target), out=tmp_path / "mend.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "mend.jsonl").read_text().splitlines()]
    expected = [(f"{name}-{n}", kind) for name, (_, kind) in files.items() for n in range(2) if kind]
    assert [(line["id"], line["kind"]) for line in lines] == expected, "each row that shows it, in order"
    assert (found.pictures, found.opened) == (10, 10)
    assert found.remarks == {Remark.FORMAT: 2}
    assert found.faults == {Fault.MISSING: 2, Fault.BROKEN: 8}


def test_without_opening_only_the_missing_ones_are_found(tmp_path: Path):
    image(tmp_path / "images", "there.png")
    (tmp_path / "images" / "zero.png").write_bytes(b"")
    rows = [row(name, name) for name in ("there.png", "zero.png", "gone.png")]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    found = verify(tmp_path / "d.json", VerifySettings(images=tmp_path / "images", open_images=False))
    assert found.faults == {Fault.MISSING: 1}


def test_a_picture_that_hangs_or_kills_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    store = importlib.import_module("endless_pictures").Endless
    monkeypatch.setattr(module, "open_pictures", store)
    (tmp_path / "d.json").write_text(json.dumps([row("h", "hangs.png"), row("d", "dies.png")]))
    found = verify(tmp_path / "d.json", VerifySettings(images=tmp_path, time_limit=0.5))
    assert found.faults == {Fault.HANGS: 2}


def test_pictures_that_nobody_says_where_they_are_cannot_be_looked_at(tmp_path: Path):
    (tmp_path / "d.json").write_text(json.dumps([row()]))
    with pytest.raises(ConfigError, match=r"'a\.png' is the first.*--images DIR.*--no-open"):
        verify(tmp_path / "d.json", VerifySettings())
    with pytest.raises(NotFoundError, match="check --images"):
        verify(tmp_path / "d.json", VerifySettings(images=tmp_path / "none"))


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_ends_with_1_where_something_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image(tmp_path / "images")
    path = tmp_path / "d.json"
    path.write_text(json.dumps([row()]))
    asked = ["corpus", "check", str(path), "--images", str(tmp_path / "images"), "--workers", "1"]
    assert main(asked) == 0
    assert "Nothing is wrong." in capsys.readouterr().out
    path.write_text(json.dumps([row(), row("b", "b.png")]))
    assert main([*asked, "--no-open", "--out", str(tmp_path / "mend.jsonl")]) == 1
    said = capsys.readouterr().out
    assert "to be mended: 1 x there is no such picture\n    b: b.png" in said
    assert "The whole list is in" in said
    assert main([*asked, "--no-open", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["faults"]) == (False, {Fault.MISSING: 1})
    assert main(["corpus", "check", str(path), "--expect", "paper"]) == 2
    assert "the paper has no file d.json" in capsys.readouterr().err


def test_the_command_measures_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "d.json"
    path.write_text(json.dumps([row()]))
    assert (
        main(["corpus", "check", str(path), "--no-open", "--json", "--tokenizer", str(folder("nano"))]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert document["lengths"]["response tokens"]["mean"] >= 4
