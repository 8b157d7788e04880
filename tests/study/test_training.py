"""What a run is watched by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from llavar.errors import DataError, NotFoundError
from llavar.evals import metrics
from llavar.generate.base import Request
from llavar.generate.local import LocalGenerator
from llavar.records import Question, Task
from llavar.study import training
from llavar.study.nano import weights
from llavar.train.config import Precision
from llavar.train.look import undisturbed
from llavar.train.material import Model, load_model
from llavar.train.parallel import arithmetic


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(str(weights.folder("nano")))


def own(folder: Path, *rows: dict[str, object]) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Image.new("RGB", (30, 20), "white").save(folder / "a.png")
    return str(folder)


def silent(_text: str) -> None:
    pass


def test_a_model_in_training_answers_as_the_finished_one_would(model: Model, tmp_path: Path):
    watch = training.watcher(model, "", tmp_path, silent)
    with undisturbed(model.module):
        watched = watch()
    assert (watched.metric, len(watched.samples) > 8) == ("anls", True)
    finished = LocalGenerator.load(weights.folder("nano"))
    asked = [
        Request(image=tmp_path / "watch" / sample.image, question=sample.question, max_new_tokens=48)
        for sample in watched.samples
    ]
    assert [sample.answer for sample in watched.samples] == finished.answer(asked)
    values = [metrics.score("anls", sample.answer, sample.references) for sample in watched.samples]
    assert [sample.score for sample in watched.samples] == values
    assert watched.score == pytest.approx(sum(values) / len(values))
    assert watched.score > 0  # nano reads
    assert all(module.training for module in model.module.modules())


def test_what_the_model_learns_changes_its_answers(model: Model, tmp_path: Path):
    watch = training.watcher(model, "", tmp_path, silent)
    layer = model.module.model.multi_modal_projector.linear_1
    before = layer.weight.detach().clone()
    with undisturbed(model.module):
        first = watch()
        layer.weight.zero_()
        blind = watch()
        layer.weight.copy_(before)
        again = watch()
    assert first == again
    assert first != blind


def test_answers_in_reduced_precision(model: Model, tmp_path: Path):
    watch = training.watcher(model, "", tmp_path, silent)
    frozen = list(model.module.model.language_model.parameters())
    try:
        for parameter in frozen:
            parameter.data = parameter.data.to(torch.bfloat16)
        with undisturbed(model.module), arithmetic(Precision.BF16, "cpu"):
            assert watch().score > 0
    finally:
        for parameter in frozen:
            parameter.data = parameter.data.float()


def test_ones_own_questions(model: Model, tmp_path: Path):
    rows = [{"image": "a.png", "question": f"What is word {n}?", "answers": "word"} for n in range(40)]
    said: list[str] = []
    watch = training.watcher(model, own(tmp_path / "own", *rows), tmp_path, said.append)
    assert said == [f"Watching the first 32 of the 40 questions of {tmp_path / 'own'}."]
    with undisturbed(model.module):
        watched = watch()
    assert (len(watched.samples), watched.metric) == (32, "token-f1")
    assert watched.samples[1].question == "What is word 1?"
    assert not (tmp_path / "watch").exists()


def test_a_folder_that_cannot_be_watched_is_an_error(model: Model, tmp_path: Path):
    with pytest.raises(NotFoundError):
        training.watcher(model, str(tmp_path / "none"), tmp_path, silent)
    data = own(tmp_path / "own", {"image": "a.png", "question": "What?", "answers": []})
    with pytest.raises(DataError, match="the field 'answers' holds no answer"):
        training.watcher(model, data, tmp_path, silent)
    with pytest.raises(DataError):
        training.watcher(model, own(tmp_path / "empty"), tmp_path, silent)


def test_every_answer_has_its_score():
    asked = [
        Question(id=name, task=Task.VQA, image="a.png", text="?", references=("stop",)) for name in ("1", "2")
    ]
    watched = training.scored(asked, ["stop", "no"], "anls")
    assert ([sample.score for sample in watched.samples], watched.score) == ([1.0, 0.0], 0.5)
