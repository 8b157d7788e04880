"""``llavar chat`` with nano and pipes, and with wrong arguments."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from llavar.cli import main


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    Image.effect_noise((96, 96), 90).convert("RGB").save(path)
    return path


def chat(monkeypatch: pytest.MonkeyPatch, text: str, *argv: object) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return main(["chat", *map(str, argv)])


def test_lines_of_a_pipe_are_questions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], picture: Path
) -> None:
    lines = "What does it say?\n/new\nHow many circles do you see?\n"
    assert chat(monkeypatch, lines, "nano", picture, "--max-new-tokens", 8) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") >= 2
    assert "\x1b" not in said.out + said.err


def test_drawn_answers_depend_on_the_seed_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], picture: Path
) -> None:
    answers: list[str] = []
    for seed in (1, 1, 2):
        options = ("--temperature", "5", "--top-p", "0.99", "--seed", seed, "--max-new-tokens", 8)
        chat(monkeypatch, "What does it say?\n", "nano", picture, *options)
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nanox",), "nanox"),
        (("nano", "nothing.png"), "nothing.png"),
        (("nano", "--temperature", "-1"), "temperature"),
        (("nano", "--conversation", "mine"), "mine"),
        (("http://127.0.0.1:1/v1",), "#NAME"),
        (("http://127.0.0.1:1/v1#m", "--quantize", "nf4"), "--quantize"),
        (("http://127.0.0.1:1/v1#m", "--timeout", "0"), "timeout"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: tuple[str, ...],
    words: str,
) -> None:
    assert chat(monkeypatch, "hello\n", *argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1
