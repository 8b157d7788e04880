"""The command: an answer, or one sentence and status 2; never a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from llavar import __version__
from llavar.cli import main
from llavar.study import demo
from llavar.study.nano import build
from llavar.study.reader import Reader

COMMANDS = ("demo", "ask", "inspect", "nano")


@pytest.fixture
def sentence(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail, and gives the one line that it says."""

    def run(*argv: object) -> str:
        assert main([str(word) for word in argv]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("llavar: ")
        assert said.err.count("\n") == 1
        assert "Traceback" not in said.err
        return said.err

    return run


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs ``llavar ask`` on a picture that must be answered."""

    def run(picture: Path, *more: str) -> str:
        assert main(["ask", str(picture), "What does it say?", "--max-new-tokens", "3", *more]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        assert said.out.endswith("\n")
        return said.out

    return run


@pytest.fixture
def png(tmp_path: Path) -> Path:
    return save(Image.new("RGB", (40, 30), "white"), tmp_path / "white.png")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A data file of 300 rows, more than a pipe holds."""
    talk = [{"from": "human", "value": "Say something."}, {"from": "gpt", "value": "Something. " * 20}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": str(index), "conversations": talk} for index in range(300)]))
    return path


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def llavar(*argv: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llavar", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


# --- help -----------------------------------------------------------------------------------------------


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"    {command} " in shown for command in COMMANDS)


@pytest.mark.parametrize("command", [*COMMANDS, "nano build"])
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert f"usage: llavar {command}" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"llavar {__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nano"],
        ["dream"],
        ["ask"],
        ["ask", "a.png"],
        ["ask", "a.png", "q", "--max-new-tokens", "0"],
        ["ask", "a.png", "q", "--max-new-tokens", "three"],
        ["inspect", "a.json", "--limit", "-1"],
        ["inspect", "a.json", "--image-tokens", "0"],
        ["demo", "--stage1-steps", "1e3"],
        ["demo", "--seed", "x"],
        ["nano", "build"],
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], argv: list[str]):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    sentence, hint = capsys.readouterr().err.splitlines()
    assert sentence.startswith("llavar: ")
    assert re.fullmatch(r"usage: llavar( \w+)* --help tells what there is", hint)


def test_wrong_arguments_name_what_is_wrong_and_the_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["inspect", "a.json", "--limit", "-1"])
    sentence, hint = capsys.readouterr().err.splitlines()
    assert sentence == "llavar: argument --limit: '-1' is not a whole number of at least 1"
    assert hint == "usage: llavar inspect --help tells what there is"


# --- ask: pictures --------------------------------------------------------------------------------------


def test_one_pixel(ask: Callable[..., str], tmp_path: Path):
    assert ask(save(Image.new("RGB", (1, 1), "red"), tmp_path / "one.png"))


def test_a_picture_of_a_hundred_megapixels(ask: Callable[..., str], tmp_path: Path):
    assert ask(save(Image.new("1", (12_000, 9_000), 1), tmp_path / "large.png"))


@pytest.mark.parametrize(
    ("mode", "name"), [("CMYK", "a.jpg"), ("P", "a.png"), ("P", "a.gif"), ("LA", "a.png"), ("I;16", "a.png")]
)
def test_modes(ask: Callable[..., str], tmp_path: Path, mode: str, name: str):
    assert ask(save(Image.new(mode, (30, 20)), tmp_path / name))


def test_an_animation_is_its_first_picture(ask: Callable[..., str], tmp_path: Path):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    moving = save(frames[0], tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert ask(moving) == ask(save(frames[0], tmp_path / "still.gif"))


def test_a_turned_photograph_is_upright(ask: Callable[..., str], tmp_path: Path):
    image = Image.new("RGB", (60, 40), "white")
    ImageDraw.Draw(image).rectangle((5, 5, 20, 30), fill="black")
    upright = save(image, tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(image.transpose(Image.Transpose.ROTATE_90), tmp_path / "turned.png", exif=exif)
    assert ask(turned) == ask(upright)


# --- ask: output ----------------------------------------------------------------------------------------


def test_json(ask: Callable[..., str], png: Path):
    document = json.loads(ask(png, "--json"))
    assert document.keys() == {"image", "question", "answer", "model", "seconds", "quantization"}
    assert document["image"] == str(png)
    assert document["question"] == "What does it say?"
    assert document["model"] == "nano"
    assert document["answer"] == ask(png).removesuffix("\n")
    assert document["seconds"] > 0


def test_a_terminal_that_lacks_a_character(png: Path):
    done = llavar(
        "ask", png, "é 漢字?", "--json", "--max-new-tokens", 1, PYTHONIOENCODING="ascii", PYTHONUTF8="0"
    )
    assert done.returncode == 0, done.stderr
    assert "\\u6f22" in done.stdout


def test_the_module_is_the_command(png: Path, ask: Callable[..., str]):
    done = llavar("ask", png, "What does it say?", "--max-new-tokens", 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ask(png)


# --- ask: refusals --------------------------------------------------------------------------------------


def test_no_such_picture(sentence: Callable[..., str], tmp_path: Path):
    assert "There is no picture at" in sentence("ask", tmp_path / "absent.png", "What?")
    assert "name one picture" in sentence("ask", "", "What?")


def test_a_folder_for_a_picture(sentence: Callable[..., str], tmp_path: Path):
    assert "is a folder; name one picture in it" in sentence("ask", tmp_path, "What?")


def test_not_a_picture(sentence: Callable[..., str], tmp_path: Path):
    path = tmp_path / "page.png"
    path.write_text("<!doctype html><title>404</title>")
    assert "is an HTML page and no picture" in sentence("ask", path, "What?")
    path.write_bytes(b"")
    assert "is empty (0 bytes)" in sentence("ask", path, "What?")


def test_a_torn_picture(sentence: Callable[..., str], png: Path):
    png.write_bytes(png.read_bytes()[:-30])
    assert "is damaged or cut short" in sentence("ask", png, "What?")


def test_names_that_no_file_can_have(sentence: Callable[..., str]):
    assert "cannot be read (File name too long)" in sentence("ask", "x" * 300, "What?")
    assert "no picture" in sentence("ask", "\udcff.png", "What?")


def test_a_url_that_leads_to_this_machine(sentence: Callable[..., str]):
    assert "a loopback address" in sentence("ask", "http://127.0.0.1:9/a.png", "What?")
    assert "ftp" in sentence("ask", "ftp://example.org/a.png", "What?")


def test_an_empty_question(sentence: Callable[..., str], png: Path):
    assert "the question is empty" in sentence("ask", png, "")
    assert "the question is empty" in sentence("ask", png, " \n")


def test_questions_that_no_model_takes(sentence: Callable[..., str], png: Path):
    assert "stand for pictures" in sentence("ask", png, "what is <image>?")
    assert "broken characters" in sentence("ask", png, "\udcff")
    assert "exceed the 2048" in sentence("ask", png, "why " * 2000)


def test_no_such_model(sentence: Callable[..., str], png: Path, tmp_path: Path):
    assert "there is no model folder 'giant'" in sentence("ask", png, "What?", "--model", "giant")
    assert "is not a complete model folder" in sentence("ask", png, "What?", "--model", tmp_path)
    assert "is a file; name the folder" in sentence("ask", png, "What?", "--model", png)
    assert "there is no model folder" in sentence("ask", png, "What?", "--model", "x" * 300)


def test_a_demo_that_is_not_finished(sentence: Callable[..., str], png: Path, tmp_path: Path):
    (tmp_path / "demo.json").write_text("{}")
    assert "go on with llavar demo --out" in sentence("ask", png, "What?", "--model", tmp_path)


def test_no_such_conversation(sentence: Callable[..., str], png: Path):
    assert "conversation 'x' is not known" in sentence("ask", png, "What?", "--conversation", "x")


def test_a_hub_that_cannot_be_reached(png: Path, tmp_path: Path):
    done = llavar(
        "ask", png, "What?", "--model", "no/model", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path)
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no folder 'no/model' is here, and the hub did not give a model of that name" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_picture_is_opened_before_the_model(
    sentence: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Reader, "load", None)  # a call would be a TypeError
    assert "There is no picture" in sentence("ask", "absent.png", "What?", "--model", "some/model")


# --- the other commands ---------------------------------------------------------------------------------


def test_inspect_shows_what_is_learned(capsys: pytest.CaptureFixture[str], rows: Path):
    assert main(["inspect", str(rows), "--limit", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("supervised, 0 images") == 2
    assert "⟦" in shown
    assert "2 rows, 0 of them unusable" in shown


def test_inspect_in_json(capsys: pytest.CaptureFixture[str], rows: Path):
    assert main(["inspect", str(rows), "--limit", "3", "--json", "--max-length", "60"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in lines] == ["0", "1", "2"]
    assert all(len(line["input_ids"]) == len(line["labels"]) == 60 for line in lines)


def test_inspect_refuses(sentence: Callable[..., str], rows: Path, tmp_path: Path):
    assert "no data file at" in sentence("inspect", tmp_path / "absent.json")
    assert "no tokenizer folder at" in sentence("inspect", rows, "--tokenizer", tmp_path / "absent")
    assert "holds neither tokenizer.json nor" in sentence("inspect", rows, "--tokenizer", tmp_path)
    assert "conversation 'x' is not known" in sentence("inspect", rows, "--conversation", "x")
    rows.write_text('[{"id": "1"')
    assert "rows.json" in sentence("inspect", rows)


def test_a_reader_that_has_seen_enough(rows: Path):
    """``llavar inspect rows.json | head -1``."""
    command = [sys.executable, "-m", "llavar", "inspect", str(rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.readline()
        run.stdout.close()
        assert run.stderr.read() == b""


def test_a_reader_that_was_gone_before_the_end(png: Path):
    """What is still in Python's buffer when the command ends must not end in a complaint either."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "llavar", "ask", str(png), "What?", "--max-new-tokens", "1"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_demo_refuses(sentence: Callable[..., str], png: Path, tmp_path: Path):
    out = tmp_path / "run"
    assert "does not exist" in sentence("demo", "--images", tmp_path / "absent", "--out", out)
    assert "is a file but a folder" in sentence("demo", "--images", png, "--out", out)
    assert "lies inside the folder of pictures" in sentence("demo", "--images", tmp_path, "--out", out)
    assert "stage1_steps is 1; at least 2" in sentence("demo", "--stage1-steps", 1, "--out", out)
    assert "more than control_pictures" in sentence("demo", "--text-pictures", 10_000, "--out", out)
    assert "is a file and a folder is needed" in sentence("demo", "--out", png)
    assert not out.exists()


def test_demo_passes_its_arguments_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(demo, "run", lambda out, settings, own=None: calls.append((out, settings, own)))
    argv = ["--out", "o", "--images", "p", "--seed", "3", "--exam-pictures", "9", "--stage2-steps", "5"]
    assert main(["demo", *argv]) == 0
    assert main(["demo"]) == 0
    assert calls == [
        (Path("o"), demo.DemoSettings(seed=3, exam_pictures=9, stage2_steps=5), Path("p")),
        (Path("runs/demo"), demo.DemoSettings(), None),
    ]


def test_nano_build_passes_its_arguments_on(monkeypatch: pytest.MonkeyPatch):
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(build, "run", lambda *given: calls.append(given))
    monkeypatch.setattr(build, "ship", lambda *given: calls.append(given))
    assert main(["nano", "build", "--out", "o", "--tower-steps", "7", "--ship", "s"]) == 0
    assert calls == [(Path("o"), build.BuildSettings(tower_steps=7)), (Path("o"), Path("s"))]


# --- how a command ends ---------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[..., object]:
    def run(*given: object, **named: object) -> object:
        raise error

    return run


def test_an_interrupt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "run", raising(KeyboardInterrupt()))
    assert main(["demo"]) == 130
    said = capsys.readouterr().err
    assert "interrupted; the same command goes on" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied", "runs/demo"), OSError(28, "No space left on device")]
)
def test_errors_of_the_system(sentence: Callable[..., str], monkeypatch: pytest.MonkeyPatch, error: OSError):
    monkeypatch.setattr(demo, "run", raising(error))
    said = sentence("demo")
    assert str(error.strerror) in said
    assert not error.filename or "runs/demo" in said


def test_defects_are_not_hidden(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "run", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["demo"])
