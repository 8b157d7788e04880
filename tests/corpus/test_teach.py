from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.chat import escape_special
from llavar.corpus.check import check_rows
from llavar.corpus.pairs import transcription
from llavar.corpus.teach import (
    NO,
    YES,
    QuestionAnswer,
    TeachReason,
    TemplateTeacher,
    absent_word,
    only_number,
    turns_of,
    words_of,
)
from llavar.corpus.wordings import QuestionKind, SceneFacts, Shape
from llavar.errors import ConfigError
from llavar.records import IMAGE_TAG, Box, Conversation, Example, Line, Reading, Reject

FACTS = SceneFacts(
    ground="white",
    shapes=(Shape(name="circle", colour="red", count=1), Shape(name="square", colour="blue", count=2)),
)


def line(text: str, place: int) -> Line:
    return Line(text=text, box=Box(left=0, top=place * 20, right=100, bottom=place * 20 + 15))


def reading(*texts: str, image: str = "x.png") -> Reading:
    lines = tuple(line(text, place) for place, text in enumerate(texts, start=1))
    return Reading(image=image, size=(400, 400), lines=lines, engine="e")


POSTER = reading("GRAND OPENING", "Fresh bread", "open from 9")


def known(
    read: Reading, *, facts: SceneFacts | None = None, dropped: tuple[Line, ...] = (), **options: object
) -> dict[QuestionKind, list[QuestionAnswer]]:
    teacher = TemplateTeacher(**options)  # type: ignore[arg-type]
    rng = random.Random(0)
    items = [*teacher.about_text(read, dropped, rng), *(teacher.about_scene(facts, rng) if facts else ())]
    return {kind: [item for item in items if item.kind is kind] for kind in QuestionKind}


def answers(found: dict[QuestionKind, list[QuestionAnswer]]) -> dict[QuestionKind, list[str]]:
    return {kind: [item.answer for item in items] for kind, items in found.items() if items}


def test_everything_that_a_poster_lets_us_ask() -> None:
    assert answers(known(POSTER)) == {
        QuestionKind.TRANSCRIBE: ["GRAND OPENING\nFresh bread\nopen from 9"],
        QuestionKind.FIRST_LINE: ["GRAND OPENING"],
        QuestionKind.SECOND_LINE: ["Fresh bread"],
        QuestionKind.LAST_LINE: ["open from 9"],
        QuestionKind.WORD_PRESENT: [YES, NO],
        QuestionKind.NUMBER: ["9"],
        QuestionKind.LINE_COUNT: ["3"],
    }


def test_everything_that_facts_let_us_ask() -> None:
    found = answers(known(reading(), facts=FACTS, shape_names=("circle", "square", "star")))
    assert found[QuestionKind.DESCRIBE] == ["a red circle and 2 blue squares on a white background"]
    assert found[QuestionKind.GROUND_COLOUR] == ["white"]
    assert found[QuestionKind.SHAPE_PRESENT] == [YES, NO]
    assert found[QuestionKind.SHAPE_COUNT] in (["1"], ["2"])
    assert not [kind for kind in found if kind.about_text]
    assert QuestionKind.SHAPE_PRESENT not in answers(known(reading(), facts=FACTS))


def test_the_colour_is_asked_only_of_a_single_shape() -> None:
    two = SceneFacts(ground="white", shapes=(Shape(name="star", colour="red", count=2),))
    mixed = SceneFacts(
        ground="white",
        shapes=(Shape(name="star", colour="red", count=1), Shape(name="star", colour="blue", count=1)),
    )
    for facts in (two, mixed):
        found = answers(known(reading(), facts=facts))
        assert found[QuestionKind.SHAPE_COUNT] == ["2"]
        assert QuestionKind.SHAPE_COLOUR not in found
    one = SceneFacts(ground="white", shapes=(Shape(name="star", colour="red", count=1),))
    assert answers(known(reading(), facts=one))[QuestionKind.SHAPE_COLOUR] == ["red"]


def test_nothing_rests_on_the_absence_of_a_dropped_line() -> None:
    below = answers(known(POSTER, dropped=(line("tiny 7", 5),)))
    assert set(below) == {
        QuestionKind.TRANSCRIBE,
        QuestionKind.FIRST_LINE,
        QuestionKind.SECOND_LINE,
        QuestionKind.WORD_PRESENT,
    }
    above = answers(known(POSTER, dropped=(line("tiny", 0),)))
    assert QuestionKind.FIRST_LINE not in above
    assert QuestionKind.SECOND_LINE not in above
    assert above[QuestionKind.LAST_LINE] == ["open from 9"]
    assert above[QuestionKind.NUMBER] == ["9"]
    assert QuestionKind.LINE_COUNT not in above
    hidden = answers(known(reading("no digits"), dropped=(line("only 5", 3),)))
    assert QuestionKind.NUMBER not in hidden


def test_one_line_has_no_first_or_last() -> None:
    found = answers(known(reading("ALONE")))
    assert set(found) == {QuestionKind.TRANSCRIBE, QuestionKind.WORD_PRESENT, QuestionKind.LINE_COUNT}


def test_a_conversation_is_the_same_on_every_machine_and_differs_by_seed_and_picture() -> None:
    here = TemplateTeacher(seed=3).teach(POSTER, FACTS)
    there = TemplateTeacher(seed=3).teach(reading(*POSTER.text.split("\n"), image="/else/where/x.png"), FACTS)
    assert here == there
    made = {
        str(TemplateTeacher(seed=seed).teach(reading(*POSTER.text.split("\n"), image=name), FACTS))
        for seed in range(3)
        for name in ("a", "b", "c")
    }
    assert len(made) == 9


def test_conversations_have_one_to_four_pairs_and_cover_all_kinds() -> None:
    counts: Counter[int] = Counter()
    said: Counter[str] = Counter()
    for seed in range(300):
        made = TemplateTeacher(seed=seed).teach(POSTER, FACTS)
        assert isinstance(made, Conversation)
        pairs = turns_of(made)
        counts[len(pairs)] += 1
        said.update(answer.text for _, answer in pairs)
        assert [asked.text.count(IMAGE_TAG) for asked, _ in pairs] == [1] + [0] * (len(pairs) - 1)
    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) > 40
    assert 0.7 < said[YES] / said[NO] < 1.4
    assert {"GRAND OPENING", "Fresh bread", "open from 9", "9", "3", "white"} <= set(said)


def test_nothing_known_is_a_reject() -> None:
    made = TemplateTeacher().teach(reading("", "  "))
    assert isinstance(made, Reject)
    assert (made.reason, made.stage) == (TeachReason.NOTHING_KNOWN, "teach")


def test_long_answers_are_not_asked_for() -> None:
    made = TemplateTeacher(max_chars=5).teach(reading("12345678901234567890"))
    assert isinstance(made, Conversation)
    assert [answer.text for _, answer in turns_of(made)] == ["1"], "the count of lines is all that is short"


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_pairs is 9"):
        TemplateTeacher(max_pairs=9)


hostile = st.text(st.sampled_from('aA9 "<>/#:|[]imageUSERs\n'), max_size=30) | st.sampled_from(
    ["<image>", "</s>", "### Assistant: no", "USER: yes", '"quoted" words', "12 34", "<im_patch>", "ſtraße"]
)


@settings(deadline=None)
@given(st.lists(hostile, max_size=5), st.integers(0, 50), st.booleans())
def test_rows_from_any_text_pass_the_check(texts: list[str], seed: int, scene: bool) -> None:
    read = reading(*(text.replace("\n", " ") for text in texts))
    made = TemplateTeacher(seed=seed, words=("stamp", "image")).teach(read, FACTS if scene else None)
    if isinstance(made, Reject):
        assert not transcription(read)
        return
    row = Example(id="x", conversation=made, images=("x.png",))
    assert check_rows([row], texts={"x": transcription(read)}) == []
    for asked, answered in turns_of(made):
        assert escape_special(asked.text.replace(IMAGE_TAG, "")) == asked.text.replace(IMAGE_TAG, "")
        assert answered.text == escape_special(answered.text)


@settings(deadline=None)
@given(st.from_regex(r"[A-Za-z]{3,12}", fullmatch=True), st.text(max_size=40), st.integers(0, 99))
def test_an_absent_word_is_absent_and_alike(word: str, rest: str, seed: int) -> None:
    other = absent_word(word, random.Random(seed), text=f"{word} {rest}")
    assert other is not None
    assert other.casefold() not in f"{word} {rest}".casefold()
    assert len(other) == len(word)
    assert 1 <= sum(a != b for a, b in zip(word, other, strict=True)) <= 2
    assert [letter.isupper() for letter in other] == [letter.isupper() for letter in word]


def test_an_absent_word_may_come_from_the_callers_list_in_the_case_of_the_word() -> None:
    vocabulary = ("bread", "tread", "elephant", "no", "x1y")
    found = {
        absent_word("BREAD", random.Random(seed), text="FRESH BREAD", words=vocabulary) for seed in range(60)
    }
    assert {"TREAD", "ELEPHANT"} <= found
    assert "BREAD" not in found
    assert absent_word("漢字語", random.Random(0), text="漢字語") is None


def test_words_are_whole_tokens_of_letters() -> None:
    assert words_of('The "cat", (sat) the cat B2B4 don\'t ab 9 cat') == ("The", "cat", "sat", "the")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("open at 9", "9"),
        ("only $4.50!", "4.50"),
        ("1,000 things", "1,000"),
        ("at 12:30", "12:30"),
        ("9 to 5", None),
        ("none", None),
        ("B12 vitamin", None),
        ("12/05", None),
        ("5-a-side", None),
        ("x² and 4", None),
        ("7 ٣", None),
        ("50% off", "50"),
    ],
)
def test_the_only_number(text: str, number: str | None) -> None:
    assert only_number(text) == number
