"""The exam holds nothing of what training shows, and can be answered by those who read alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from llavar.corpus.wordings import QuestionKind
from llavar.evals import run as evals
from llavar.records import Prediction, Status, Task
from llavar.render import fonts
from llavar.render.layouts import scene
from llavar.render.words import is_held_out, vocabulary
from llavar.study.demo import PLAIN, READ_BY_OCR
from llavar.study.nano.questions import Exam, exam, write_pictures


@pytest.fixture(scope="module")
def asked() -> Exam:
    return exam(60)


def words_in(text: str) -> set[str]:
    known = {*vocabulary(held_out=False), *vocabulary(held_out=True)}
    return {word for word in text.lower().split() if word in known}


def test_no_word_font_or_layout_of_training(asked: Exam):
    for shown in asked.scenes.values():
        assert all(is_held_out(word) for word in words_in(shown.text))
        assert {line.font for line in shown.lines} <= set(fonts.HELD_OUT)
        assert shown.layout.held_out
    assert any(words_in(shown.text) for shown in asked.scenes.values())
    assert len({shown.layout for shown in asked.scenes.values()}) == 3


@pytest.mark.parametrize("style", [READ_BY_OCR, PLAIN])
def test_no_word_font_or_layout_of_the_exam_in_training(style: object):
    trained = [scene(f"train:{index}", style) for index in range(60)]  # type: ignore[arg-type]
    assert not any(is_held_out(word) for shown in trained for word in words_in(shown.text))
    assert {line.font for shown in trained for line in shown.lines}.isdisjoint(fonts.HELD_OUT)
    assert not any(shown.layout.held_out for shown in trained)
    assert any(words_in(shown.text) for shown in trained)


def test_equal_seeds_give_equal_exams(asked: Exam):
    assert exam(60) == asked
    assert exam(20).questions == asked.questions[: len(exam(20).questions)]
    assert exam(60, seed="another").questions != asked.questions


def test_ids_are_unique_and_name_their_picture(asked: Exam):
    assert len({question.id for question in asked.questions}) == len(asked.questions)
    for question in asked.questions:
        assert question.image in asked.scenes
        assert question.group == question.image
        assert question.id.startswith(f"{question.image}/{question.task}/")


def test_every_task_is_asked_often(asked: Exam):
    counts = Counter(question.task for question in asked.questions)
    assert counts[Task.TRANSCRIPTION] == 60
    assert all(counts[task] >= 20 for task in Task if task is not Task.OPEN)


def test_yes_and_no_come_in_pairs(asked: Exam):
    by_picture: dict[str, list[str]] = {}
    for question in asked.questions:
        if question.task is Task.YES_NO:
            by_picture.setdefault(question.group, []).extend(question.references)
    assert by_picture
    assert all(sorted(answers) == ["no", "yes"] for answers in by_picture.values())


def test_transcriptions_are_the_whole_text(asked: Exam):
    for question in asked.questions:
        if question.task is Task.TRANSCRIPTION:
            assert question.references == (asked.scenes[question.image].text,)


def test_answers_about_text_are_in_the_picture_and_others_are_not_read(asked: Exam):
    for question in asked.questions:
        kind = QuestionKind(question.category)
        assert kind.about_text is (question.task is not Task.SCENE)
        if question.task is Task.VQA:
            assert question.references[0] in asked.scenes[question.image].text


def test_the_words_asked_for_are_there_or_not(asked: Exam):
    for question in asked.questions:
        if question.task is Task.YES_NO:
            word = question.text.split('"')[1].lower()
            there = word in asked.scenes[question.image].text.lower()
            assert there is (question.references == ("yes",))


def test_a_reader_of_everything_has_full_marks(asked: Exam):
    said = [Prediction(question=q.id, status=Status.OK, text=q.references[0]) for q in asked.questions]
    scores = evals.summarise(asked.questions, said, "oracle").scores
    assert {name: score.value for name, score in scores.items()} == {
        "transcription_cer": 0.0,
        "vqa_accuracy": 1.0,
        "yes_no_score": 200.0,
        "scene_accuracy": 1.0,
    }


def test_pictures_are_drawn_once(asked: Exam, tmp_path: Path):
    some = dict(list(asked.scenes.items())[:3])
    write_pictures(some, tmp_path / "exam", 96)
    assert sorted(path.name for path in (tmp_path / "exam").iterdir()) == sorted(some)
    first, second = sorted((tmp_path / "exam").iterdir())[:2]
    with Image.open(first) as picture:
        assert picture.size == (96, 96)
    first.write_bytes(b"mine")
    drawn = second.read_bytes()
    second.unlink()
    write_pictures(some, tmp_path / "exam", 96)
    assert first.read_bytes() == b"mine"
    assert second.read_bytes() == drawn
