"""The four command lines of the original's README, run on models as small as nano."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llavar.cli import main
from llavar.models import _hf
from llavar.models.projector_file import read_projector
from llavar.models.shape import TextShape, VisionShape
from llavar.models.tokenizer import nano_tokenizer

Line = Callable[..., list[str]]
NANO = "nano"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA alone, tiny, with nano's tokenizer."""
    folder = tmp_path_factory.mktemp("parts") / "llama"
    tokenizer = nano_tokenizer()
    shape = TextShape(
        vocab=tokenizer.vocab_size, hidden=64, layers=2, heads=2, kv_heads=2, mlp=96, max_positions=1024
    )
    torch.manual_seed(0)
    _hf.build_decoder(shape).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP tower alone, of four patches."""
    folder = tmp_path_factory.mktemp("parts") / "clip"
    torch.manual_seed(1)
    shape = VisionShape(image_size=28, patch_size=14, hidden=32, layers=2, heads=2, mlp=48)
    tower: torch.nn.Module = _hf.build_tower(shape)
    tower.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
    return folder


def test_pretraining_from_a_llama_and_a_tower(
    line: Line,
    llama: Path,
    tower: Path,
    rows: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "stage1"
    words = line("pretrain", model=llama, tower=tower, data=rows, images=pictures, out=out)
    assert main(["legacy", *words]) == 0
    said = capsys.readouterr().err
    assert "--learning_rate 0.002  ->" in said
    projector = read_projector(out / "mm_projector.bin")
    assert projector.weight.shape == (64, 32)
    start = _hf.load_llava(tmp_path / "stage1.start")
    trained = _hf.load_llava(out / "model")
    key = "model.language_model.embed_tokens.weight"
    assert torch.equal(start.state_dict()[key], trained.state_dict()[key])
    # A rate of 0 at the first step is the Trainer's way, and three rows make but one step.
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1


def test_finetuning_takes_the_pretrained_projector(
    line: Line, llama: Path, tower: Path, rows: Path, pictures: Path, tmp_path: Path
):
    first, second = tmp_path / "first", tmp_path / "second"
    places = {"tower": tower, "data": rows, "images": pictures}
    assert main(["legacy", *line("pretrain", model=llama, out=first, **places)]) == 0
    words = line("finetune", model=llama, out=second, projector=first / "mm_projector.bin", **places)
    assert main(["legacy", *words, "--dataloader_num_workers", "1"]) == 0
    log = [json.loads(entry) for entry in (second / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 3
    assert all(entry["loss"] > 0 for entry in log)
    key = "model.language_model.layers.0.mlp.up_proj.weight"
    start, trained = (_hf.load_llava(folder) for folder in (tmp_path / "second.start", second / "model"))
    assert not torch.equal(start.state_dict()[key], trained.state_dict()[key])


def test_the_same_line_goes_on_instead_of_beginning_again(
    line: Line, rows: Path, pictures: Path, tmp_path: Path
):
    words = line("pretrain", model=NANO, data=rows, images=pictures, out=tmp_path / "run", layer="-1")
    assert main(["legacy", *words]) == 0
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert main(["legacy", *words]) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == log


def test_pretraining_under_torchrun(
    line: Line, llama: Path, tower: Path, rows: Path, pictures: Path, tmp_path: Path
):
    out = tmp_path / "run"
    words = line("pretrain", model=llama, tower=tower, data=rows, images=pictures, out=out)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "llavar.legacy", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("what the flags are today") == 1
    assert (out / "model" / "config.json").is_file()
    assert (out / "mm_projector.bin").is_file()


def test_a_file_of_questions_becomes_a_file_of_answers(line: Line, pictures: Path, tmp_path: Path):
    questions = [
        {"question_id": 0, "image": "000000000001.jpg", "text": "What colour is it?", "category": "conv"},
        {"question_id": "q1", "image": "one.png", "text": "What does it say?"},
    ]
    file, out = tmp_path / "qa90_questions.jsonl", tmp_path / "answers" / "a.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in questions))
    words = line("questions", model=NANO, data=file, images=pictures, out=out)
    assert main(["legacy", *words]) == 0
    answers = [json.loads(text) for text in out.read_text().splitlines()]
    assert [answer["question_id"] for answer in answers] == [0, "q1"]
    assert [answer["prompt"] for answer in answers] == [question["text"] for question in questions]
    assert all(isinstance(answer["text"], str) and answer["model_id"] == NANO for answer in answers)
    assert len({answer["answer_id"] for answer in answers}) == 2
    again = tmp_path / "again.jsonl"
    part = [*line("questions", model=NANO, data=file, images=pictures, out=again), "--num-chunks", "2"]
    assert main(["legacy", *part, "--chunk-idx", "1"]) == 0
    (last,) = [json.loads(text) for text in again.read_text().splitlines()]
    # Each question draws from a stream of its own, so a part of the file gives the same answers.
    assert last["text"] == answers[1]["text"]


@pytest.mark.parametrize(
    ("content", "told"),
    [("{}\n", "line 1"), ("not json\n", "line 1"), ('{"question_id": 1, "text": 5}\n', "strings")],
)
def test_a_broken_question_file_is_named_by_its_line(
    line: Line, tmp_path: Path, content: str, told: str, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "q.jsonl"
    file.write_text(content)
    assert (
        main(["legacy", *line("questions", model=NANO, data=file, images=tmp_path, out=tmp_path / "a")]) == 2
    )
    assert told in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_one_question_prints_the_answer_alone(line: Line, pictures: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["legacy", *line("question", model=NANO, images=pictures / "one.png")]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1
    assert "Who starred in the movie?" in said.err
    assert main(["legacy", *line("question", model=NANO, images=pictures / "one.png")]) == 0
    assert capsys.readouterr().out == said.out


def test_a_missing_tower_is_asked_for(
    line: Line, llama: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["legacy", *line("question", model=llama, images=pictures / "one.png")]) == 2
    assert "--vision_tower" in capsys.readouterr().err
