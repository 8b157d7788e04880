"""The exam of benchmarks/nano.py: its pictures and its scoring are what they are said to be."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from llavar.render import fonts
from llavar.render.scene import TONES
from llavar.render.words import vocabulary

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def scenes() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("nano_scenes")


@pytest.fixture(scope="module")
def exam(scenes: ModuleType) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("nano_exam")


@pytest.fixture(scope="module")
def drawn(scenes: ModuleType) -> list:
    return [scenes.draw(f"test:{place}") for place in range(60)]


# --- pictures -------------------------------------------------------------------------------------------


def test_nothing_is_shared_with_training(scenes: ModuleType) -> None:
    known = {*vocabulary(held_out=False), *vocabulary(held_out=True)}
    assert known.isdisjoint(scenes.WORDS)
    trained = {font.path for font in fonts.TRAIN}
    assert all(face.path is None or face.path not in trained for face in scenes.FACES)
    for name, tones in scenes.GROUNDS.items():
        if name not in ("white", "black"):  # there is only one of each
            for tone in tones:
                assert max(abs(a - b) for a, b in zip(tone, TONES[name], strict=True)) > 30


def test_pictures_are_what_the_exam_promises(scenes: ModuleType, drawn: list) -> None:
    for one in drawn:
        assert 1 <= len(one.lines) <= 3
        assert 1 <= sum(map(len, one.lines)) <= scenes.MOST
        assert one.text.replace("\n", "").replace(" ", "").isalnum()
        assert one.text.isascii()
        assert scenes.LOW <= one.height <= scenes.HIGH
        assert sum(word.isdigit() for word in one.text.split()) == bool(one.number)
    assert {len(one.lines) for one in drawn} == {1, 2, 3}
    assert {one.face for one in drawn} == {face.name for face in scenes.FACES}
    assert {one.arrangement for one in drawn} == set(scenes.ARRANGEMENTS)
    texts = "".join(one.text for one in drawn)
    assert any(map(str.isupper, texts))
    assert any(map(str.islower, texts))
    assert any(map(str.isdigit, texts))


def test_text_stands_out_and_lies_inside(scenes: ModuleType, drawn: list) -> None:
    """Ink differs from the ground somewhere, on light and on dark, and never touches the edge."""
    darker: set[bool] = set()
    for one in drawn:
        grey = np.asarray(one.image.convert("L")).astype(int)
        edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        ground = np.median(edge)
        ink = grey.ravel()[np.abs(grey - ground).argmax()]
        assert abs(ink - ground) > 60
        darker.add(bool(ink < ground))
        assert np.abs(edge - ground).max() < 50
    assert darker == {True, False}


def test_equal_names_give_equal_pictures(scenes: ModuleType) -> None:
    one, other, third = (scenes.draw(name) for name in ("a", "a", "b"))
    assert one.image.tobytes() == other.image.tobytes()
    assert one.lines == other.lines
    assert one.image.tobytes() != third.image.tobytes()


def test_kinds_outside_the_exam(scenes: ModuleType) -> None:
    low = scenes.draw("low", scenes.Kind(low=1 / 14, high=1 / 10))
    assert 1 / 14 <= low.height <= 1 / 10
    meaningless = [scenes.draw(f"m{i}", scenes.Kind(text=scenes.meaningless)) for i in range(9)]
    words = {word.lower() for one in meaningless for word in one.text.split()}
    assert words.isdisjoint(scenes.WORDS)
    marks = "".join(scenes.draw(f"p{i}", scenes.Kind(text=scenes.marked)).text for i in range(9))
    assert any(not char.isalnum() and not char.isspace() for char in marks)
    assert scenes.draw("x", blank=True).lines == ()


def test_changes_keep_the_picture_and_its_size(scenes: ModuleType) -> None:
    one = scenes.draw("changed")
    before = np.asarray(one.image).astype(int)
    for change in (scenes.turned(5), scenes.noisy(25, 1), scenes.noisy(12, 5), scenes.jpeg(40)):
        after = change(one)
        assert after.size == one.image.size
        moved = np.abs(np.asarray(after).astype(int) - before)
        assert 0 < moved.mean() < 40
        assert change(one).tobytes() == after.tobytes()


# --- questions and answers ------------------------------------------------------------------------------


def test_every_question_has_the_answer_that_the_picture_gives(exam: ModuleType, drawn: list) -> None:
    kinds = set()
    for one in drawn:
        for item in exam.items(one):
            kinds.add(item.about)
            words = one.text.split()
            match item.about:
                case exam.About.TEXT:
                    assert item.answer == one.text
                case exam.About.FIRST_LINE:
                    assert item.answer == one.lines[0]
                    assert len(one.lines) > 1
                case exam.About.WORD:
                    word = item.question.split('"')[1]
                    assert (word in words) == (item.answer == "yes")
                    assert (word.lower() in one.text.lower()) == (item.answer == "yes")
                case exam.About.NUMBER:
                    assert item.answer in words
                case exam.About.NO_NUMBER:
                    assert not any(map(str.isdigit, one.text))
                case exam.About.NO_SECOND_LINE:
                    assert len(one.lines) == 1
            assert bool(item.answer) != item.about.unanswerable
    assert kinds == set(exam.About) - {exam.About.NO_TEXT}


def test_pictures_without_text_are_asked_for_it(exam: ModuleType, scenes: ModuleType) -> None:
    (item,) = exam.items(scenes.draw("nothing", blank=True))
    assert item.about is exam.About.NO_TEXT
    assert exam.is_right(item, "There is no text.")
    assert not exam.is_right(item, "SALE")
    assert not exam.is_right(item, "")


def test_other_words_ask_the_same(exam: ModuleType, drawn: list) -> None:
    given = exam.items(drawn[0])
    again = exam.reworded(given)
    assert [item.answer for item in again] == [item.answer for item in given if item.answer]
    assert {item.question for item in again}.isdisjoint(item.question for item in given)


@pytest.mark.parametrize(
    ("said", "declines"),
    [
        ("There is no number.", True),
        ("none", True),
        ("It cannot be seen", True),
        ("No", False),
        ("no.", False),
        ("", False),
        ("NOTEBOOK 7", False),
        ("42", False),
    ],
)
def test_declining(exam: ModuleType, said: str, declines: bool) -> None:
    assert exam.declines(said) is declines


def right_to_all(exam: ModuleType, given: list) -> list[str]:
    return [item.answer or "there is none" for item in given]


def test_a_perfect_model(exam: ModuleType, drawn: list) -> None:
    given = [item for one in drawn for item in exam.items(one)]
    said = right_to_all(exam, given)
    assert exam.answers(given, said, exam.SHORT)["all"]["value"] == 1
    assert exam.answers(given, said, [a for a in exam.About if a.unanswerable])["all"]["value"] == 1
    assert exam.declined(given, said)["value"] == 0
    found = exam.instructions(given, said)
    assert found["recited"]["value"] == 0
    assert found["different"]["value"] == 1
    read = exam.transcriptions([(i.answer, i.answer) for i in given if i.about is exam.About.TEXT])
    assert (read["cer"]["value"], read["exact"]["value"]) == (0, 1)


def test_a_model_that_recites(exam: ModuleType, drawn: list) -> None:
    by_name = {one.name: one.text for one in drawn}
    given = [item for one in drawn for item in exam.items(one)]
    said = [by_name[item.picture] for item in given]
    found = exam.instructions(given, said)
    assert found["recited"]["value"] == 1
    assert found["different"]["value"] < 0.1
    assert exam.answers(given, said, exam.SHORT)["all"]["value"] < 0.3


def test_the_mean_is_over_kinds_not_over_questions(exam: ModuleType) -> None:
    sums = np.array([9.0, 10.0, 0.0, 1.0, 0.0, 0.0])
    assert exam.mean_of_kinds(sums) == pytest.approx(0.45)


def test_goals_are_judged_by_direction(exam: ModuleType) -> None:
    verdict = exam.GOALS["cer"].verdict
    assert [verdict(v) for v in (0.02, 0.03, 0.06)] == ["met", "missed, floor kept", "missed, floor too"]
    assert exam.GOALS["questions"].verdict(0.86) == "missed, floor kept"
    assert exam.GOALS["unanswerable"].verdict(0.7) == "missed"
    assert exam.GOALS["cold"].verdict(2.9) == "met"
    (row,) = exam.judged({"exact": 0.5})
    assert (row["verdict"], row["floor"]) == ("missed, floor too", 0.75)
