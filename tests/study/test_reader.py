"""The two lines of Python: whatever holds a picture goes in; what cannot be used is refused in a sentence."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import llavar
from llavar import net
from llavar.errors import ConfigError, FetchError, ImageError, ModelError, NotFoundError
from llavar.study.nano import weights
from llavar.study.reader import Reader, find, open_any


@pytest.fixture(scope="module")
def reader() -> Reader:
    return llavar.load()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (30, 50, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def url(png: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(png)))
            self.end_headers()
            self.wfile.write(png)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/sign.png"
        server.shutdown()
        thread.join()


@pytest.fixture
def allow_private(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = net.FetchPolicy(allow_private=True)
    monkeypatch.setattr(net, "fetch", functools.partial(net.fetch, policy=policy))


# --- pictures -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("allow_private")
def test_every_kind_of_source_gives_the_same_picture(
    picture: Image.Image, png: bytes, url: str, tmp_path: Path
):
    path = tmp_path / "sign.png"
    path.write_bytes(png)
    for source in (path, str(path), png, url, picture):
        opened = open_any(source)
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened), np.asarray(picture)), type(source)


@pytest.mark.usefixtures("allow_private")
def test_answers_to_every_kind_of_source_are_equal(
    reader: Reader, picture: Image.Image, png: bytes, url: str, tmp_path: Path
):
    path = tmp_path / "sign.png"
    path.write_bytes(png)
    said = [reader.ask(source, "What?", max_new_tokens=6) for source in (path, png, url, picture)]
    assert len(set(said)) == 1


def test_private_addresses_are_refused(reader: Reader, url: str):
    with pytest.raises(FetchError, match="127.0.0.1, a loopback address; only public addresses"):
        reader.ask(url, "What does it say?")


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "CMYK", "1", "I;16", "F"])
def test_open_pictures_of_any_mode(reader: Reader, picture: Image.Image, mode: str):
    shown = Image.new("F", (9, 9), 3.5) if mode in ("F", "I;16") else picture.convert(mode)
    assert isinstance(reader.ask(shown, "What?", max_new_tokens=2), str)


def test_what_cannot_be_opened(reader: Reader, tmp_path: Path, png: bytes):
    with pytest.raises(NotFoundError):
        reader.ask(tmp_path / "absent.png", "What?")
    with pytest.raises(ImageError, match="is a folder"):
        reader.ask(tmp_path, "What?")
    with pytest.raises(ImageError, match="damaged or cut short"):
        reader.ask(png[:-40], "What?")
    with pytest.raises(ImageError, match=r"is empty \(0 bytes\)"):
        reader.ask(b"", "What?")


def test_a_picture_that_was_opened_from_a_torn_file(reader: Reader, png: bytes):
    with pytest.raises(ImageError, match="the open picture cannot be decoded"):
        reader.ask(Image.open(io.BytesIO(png[:-400])), "What?")


# --- answers --------------------------------------------------------------------------------------------


def test_an_answer_says_who_gave_it_and_when(reader: Reader, picture: Image.Image):
    answer = reader.answer(picture, "What does it say?", max_new_tokens=3)
    assert answer.model == "nano"
    assert answer.seconds > 0
    assert len(answer.text) <= 3 * 20
    assert reader.ask(picture, "What does it say?", max_new_tokens=3) == answer.text


@pytest.mark.parametrize("question", ["", "  ", "\n\t"])
def test_an_empty_question(reader: Reader, picture: Image.Image, question: str):
    with pytest.raises(ConfigError, match="the question is empty; ask something"):
        reader.ask(picture, question)


@pytest.mark.parametrize("most", [0, -1])
def test_no_room_for_an_answer(reader: Reader, picture: Image.Image, most: int):
    with pytest.raises(ConfigError, match=f"max_new_tokens is {most}; an answer needs at least 1"):
        reader.ask(picture, "What?", max_new_tokens=most)


def test_nano_has_as_many_parameters_as_it_says(reader: Reader):
    assert 5_000_000 < reader.parameters < 6_000_000


# --- models ---------------------------------------------------------------------------------------------


def test_names_folders_and_hub_ids():
    assert find("nano") == weights.folder("nano")
    assert find("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"


def test_the_folder_of_a_demo_stands_for_its_model(tmp_path: Path, picture: Image.Image):
    (tmp_path / "demo.json").write_text("{}")
    weights.copy_model(weights.folder("nano"), tmp_path / "with" / "model")
    assert find(str(tmp_path)) == tmp_path / "with" / "model"
    assert Reader.load(str(tmp_path)).answer(picture, "What?", max_new_tokens=1).model == str(tmp_path)


def test_a_demo_without_its_model(tmp_path: Path):
    (tmp_path / "demo.json").write_text("{}")
    with pytest.raises(ModelError, match="has not trained its model yet; go on with llavar demo --out"):
        Reader.load(str(tmp_path))
    # Stopped while the model was written: the tokenizer comes last.
    weights.copy_model(weights.folder("nano"), tmp_path / "with" / "model")
    (tmp_path / "with" / "model" / weights.LAST_FILE).unlink()
    with pytest.raises(ModelError, match="has not trained its model yet"):
        find(str(tmp_path))


@pytest.mark.parametrize("name", ["", "nan", "no such/model/at all", "../nano", "x" * 300])
def test_no_such_model(name: str):
    with pytest.raises(NotFoundError, match="there is no model folder"):
        Reader.load(name)


def test_another_conversation(picture: Image.Image):
    with pytest.raises(ConfigError, match="conversation 'klingon' is not known; use one of"):
        Reader.load("nano", template="klingon")
    plain = Reader.load("nano", template="vicuna_v1_1")
    assert isinstance(plain.ask(picture, "What?", max_new_tokens=1), str)
