"""What nano is asked beside the teacher's questions: it has the answers that the scene gives."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from llavar.records import Conversation, Role
from llavar.render.layouts import Style, scene
from llavar.render.scene import Scene
from llavar.render.words import vocabulary
from llavar.study.nano.decoder import lesson
from llavar.study.nano.lessons import NOTHING, enriched, plain, quiz, without_answer

STYLE = Style(random_text=0.3, wild=0.0)


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    return [scene(f"lesson:{i}", STYLE) for i in range(80)]


def test_nothing_that_is_there_is_denied(drawn: list[Scene]) -> None:
    kinds: set[str] = set()
    for one in drawn:
        shapes = {shape.kind.value for shape in one.shapes}
        for asked, answer in without_answer(one, random.Random(one.text)):
            assert answer == NOTHING
            words = asked.lower().strip("?.").split()
            if "number" in words:
                kinds.add("number")
                assert not any(char.isdigit() for char in one.text)
            elif "line" in words:
                kinds.add("line")
                assert len(one.lines) == 1
            else:
                kinds.add("shape")
                assert shapes.isdisjoint(words)
                assert {"circle", "square", "triangle"} & set(words)
    assert kinds == {"number", "line", "shape"}


def test_a_scene_without_text_is_asked_for_it() -> None:
    blank = scene("blank", replace(STYLE, max_lines=0))
    assert blank.text == ""
    asked = [question for question, _ in without_answer(blank, random.Random(0))]
    assert len(asked) == 3  # its number, its text, a shape that it has not


def test_words_are_there_or_not_as_the_answer_says(drawn: list[Scene]) -> None:
    answers: set[str] = set()
    for one in drawn:
        pairs = plain(one, random.Random(one.text))
        assert pairs[0][1] == one.ground.value
        for asked, answer in pairs[1:]:
            word = asked.split('"')[1]
            answers.add(answer)
            assert (word.lower() in one.text.lower()) == (answer == "yes")
            assert answer == "yes" or word.lower() in vocabulary(held_out=False)
    assert answers == {"yes", "no"}


def test_they_follow_what_was_asked_before(drawn: list[Scene]) -> None:
    talk = Conversation.of("<image>\nWhat?", "that")
    more = enriched(talk, drawn[0], random.Random(1))
    assert more.turns[:2] == talk.turns
    assert len(more.turns) in (4, 6)
    assert [turn.role for turn in more.turns[2:4]] == [Role.USER, Role.ASSISTANT]
    assert "<image>" not in "".join(turn.text for turn in more.turns[2:])


def test_a_quiz_asks_for_as_many_words_that_are_there_as_for_others(drawn: list[Scene]) -> None:
    for number, one in enumerate(drawn):
        pairs = plain(one, random.Random(number), words=3)[1:]
        words = [asked.split('"')[1] for asked, _ in pairs]
        assert len({word.lower() for word in words}) == len(words)
        answers = [answer for _, answer in pairs]
        assert answers.count("yes") == answers.count("no") <= 3
        talk = quiz(one, random.Random(number))
        assert 2 <= len(talk.turns) <= 16
        assert "<image>" in talk.turns[0].text
        assert "<image>" not in "".join(turn.text for turn in talk.turns[1:])
        assert one.text not in [turn.text for turn in talk.turns[1::2]] or len(one.text) < 8


def test_shares_of_lessons() -> None:
    def made(**shares: float) -> list[tuple[Scene, Conversation]]:
        lessons = (lesson(str(i), random.Random(i), STYLE, 0.0, 4.0, 2, **shares) for i in range(60))
        return [(one.scene, one.conversation) for one in lessons]

    nothing = [NOTHING in [turn.text for turn in talk.turns] for _, talk in made(more=0.5)]
    assert 10 < sum(nothing) < 50
    assert not any(NOTHING in [turn.text for turn in talk.turns] for _, talk in made())
    assert all(shown.text for shown, _ in made())
    assert 10 < sum(not shown.text for shown, _ in made(blank=0.5)) < 50
    spelled = [shown.text in [turn.text for turn in talk.turns] for shown, talk in made(quizzes=0.5)]
    assert sum(spelled) < sum(shown.text in [turn.text for turn in talk.turns] for shown, talk in made())
    assert sum(len(shown.lines) == 1 for shown, _ in made(quizzes=1.0)) > 30
