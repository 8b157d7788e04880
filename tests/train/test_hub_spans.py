"""Where a chat template puts answers, with templates as plain functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llavar.errors import DataError, ModelError
from llavar.models._hub_spans import (
    PICTURE,
    Ending,
    Expanded,
    Message,
    Rendered,
    expanded,
    find_ending,
    labels,
    messages_of,
    rendered,
)
from llavar.records import IGNORE, Conversation, Role

END = Ending(token="<end>", written=True)
Write = Callable[[Message, bool], str]


def template(write: Write, *, opens: str = "<a>") -> Callable[..., str]:
    """``write`` gives the text of a message, and is told whether it is the last one."""

    def render(messages: Sequence[Message], *, open_turn: bool = False) -> str:
        last = len(messages) - 1
        said = "".join(write(message, place == last) for place, message in enumerate(messages))
        return said + (opens if open_turn else "")

    return render


def plain(message: Message, _last: bool) -> str:
    mark = "<u>" if message.role is Role.USER else "<a>"
    return mark + "".join("<p>" if part is PICTURE else part for part in message.parts) + "<end>\n"


def said(*texts: str) -> tuple[Message, ...]:
    return messages_of(Conversation.of(*texts))


def learned(found: Rendered) -> list[str]:
    return [found.text[start:end] for start, end in found.learned]


def test_tags_become_pictures_and_lose_their_line_break() -> None:
    assert said("<image>\nWhat?")[0].parts == (PICTURE, "What?")
    assert said("What?\n<image>")[0].parts == ("What?", PICTURE)
    assert said("<image>\n<image>\nWhich?")[0].parts == (PICTURE, PICTURE, "Which?")
    assert said("left <image> right")[0].parts == ("left ", PICTURE, " right")
    assert said("<image>\n\nWhat?")[0].parts == (PICTURE, "\nWhat?")
    assert said("no picture")[0].parts == ("no picture",)
    assert said("<image>")[0].parts == (PICTURE,)


def test_answers_are_learned_with_what_ends_them() -> None:
    found = rendered(template(plain), END, said("<image>\nQ", "A", "R", "B\nC"))
    assert found.text == "<u><p>Q<end>\n<a>A<end>\n<u>R<end>\n<a>B\nC<end>\n"
    assert learned(found) == ["A<end>", "B\nC<end>"]


@given(st.lists(st.text(max_size=6), min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0))
def test_whatever_is_said_its_answers_are_found(texts: list[str]) -> None:
    found = rendered(template(plain), END, said(*texts))
    assert learned(found) == [f"{answer}<end>" for answer in texts[1::2]]


def test_the_blank_after_a_generation_prompt_belongs_to_the_answer() -> None:
    def write(message: Message, _last: bool) -> str:
        mark = "USER: " if message.role is Role.USER else "ASSISTANT: "
        return mark + message.text + " "

    ending = find_ending(template(write, opens="ASSISTANT:"), ["<s>", "</s>"], "</s>")
    assert ending == Ending(token="</s>", written=False)
    found = rendered(template(write, opens="ASSISTANT:"), ending, said("Q", "A", "R", "B"))
    assert found.text == "USER: Q ASSISTANT: A USER: R ASSISTANT: B</s>"
    assert learned(found) == [" A", " B</s>"]


def test_where_the_generation_prompt_is_another_answers_begin_with_themselves() -> None:
    found = rendered(template(plain, opens="<a> \n"), END, said("Q", "A"))
    assert learned(found) == ["A<end>"]


def test_trimmed_answers_are_found_too() -> None:
    def write(message: Message, _last: bool) -> str:
        return f"<{message.role.value}>{message.text.strip()}<end>"

    found = rendered(template(write, opens="<assistant>"), END, said("Q", "  A \n"))
    assert learned(found) == ["A<end>"]


def test_blanks_before_the_end_token_are_learned() -> None:
    def write(message: Message, _last: bool) -> str:
        return ("<u>" if message.role is Role.USER else "<a>") + message.text + " \n<end>"

    assert learned(rendered(template(write), END, said("Q", "A"))) == ["A \n<end>"]


def test_the_longest_end_token_is_taken() -> None:
    ending = find_ending(template(plain), ["<e", "<end>", "<p>"], None)
    assert ending == END


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda message, _: str([message.text]), "leaves an answer out"),
        (lambda message, _: f"<a>{message.text}, and so on", "writes , and so on after an answer"),
        (lambda message, _: f"<{message.role.value[0]}><t>\n</t>{message.text}<end>", "'<t>\n</t>' between"),
    ],
    ids=["lists as they are", "more after it", "thoughts before it"],
)
def test_templates_that_write_more_than_the_answer_are_refused(write: Write, reason: str) -> None:
    with pytest.raises(ModelError, match=reason.replace("\n", r"\\n")):
        find_ending(template(write), ["<end>"], "</s>")


def test_a_template_without_any_end_is_refused() -> None:
    with pytest.raises(ModelError, match="what ends an answer"):
        find_ending(template(lambda message, _: message.text), [], None)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda message, _: "" if message.role is Role.ASSISTANT else message.text, "leaves an answer out"),
        (lambda message, _: message.text * 2 + "<end>", "repeats one"),
        (lambda message, _: message.text.upper() + "<end>", "otherwise than it is given"),
        (lambda message, last: message.text + ("<end>" if last else "\n"), "and another without"),
        (
            lambda message, _: (
                ("<a>hm:" if message.role is Role.ASSISTANT else "<u>") + message.text + "<end>"
            ),
            "between its generation prompt",
        ),
    ],
    ids=["left out", "doubled", "changed", "ended once", "thought before"],
)
def test_what_is_not_certain_is_refused(write: Write, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        rendered(template(write), END, said("Q", "one", "R", "two"))


def test_a_template_that_cuts_thoughts_out_is_refused_for_rows_that_hold_some() -> None:
    def write(message: Message, _last: bool) -> str:
        return ("<a>" if message.role is Role.ASSISTANT else "<u>") + message.text.split("</t>")[-1] + "<end>"

    assert learned(rendered(template(write), END, said("Q", "A"))) == ["A<end>"]
    with pytest.raises(DataError, match="not certain"):
        rendered(template(write), END, said("Q", "hm</t>A"))


def test_texts_that_hold_private_characters_do_not_confuse_the_marks() -> None:
    odd = "\ue0000\ue000"
    assert learned(rendered(template(plain), END, said(odd, odd, "\ue001", "B"))) == [f"{odd}<end>", "B<end>"]


# Placeholders and tokens.


def test_spans_move_with_what_replaces_placeholders() -> None:
    found = rendered(template(plain), END, said("<image>\nQ", "A", "<image>\nR", "B"))
    full = expanded(found, "<p>", ["[1111]", ""])
    assert full.text == "<u>[1111]Q<end>\n<a>A<end>\n<u>R<end>\n<a>B<end>\n"
    assert [full.text[start:end] for start, end in full.learned] == ["A<end>", "B<end>"]


def test_stray_placeholders_are_refused() -> None:
    with pytest.raises(DataError, match="2 <p> for 1 pictures; escape"):
        expanded(rendered(template(plain), END, said("<image>\nQ <p>", "A")), "<p>", ["[]"])
    with pytest.raises(DataError, match="an answer holds <p>"):
        expanded(rendered(template(plain), END, said("Q", "A <p>")), "<p>", ["[]"])


def tokens(*pieces: str) -> tuple[list[int], list[tuple[int, int]]]:
    offsets, at = [], 0
    for piece in pieces:
        offsets.append((at, at + len(piece)))
        at += len(piece)
    return list(range(10, 10 + len(pieces))), offsets


def test_a_token_is_learned_where_its_first_character_is() -> None:
    text = Expanded(text="<a>STOP<end>\n", learned=((3, 12),))
    ids, offsets = tokens("<a>", "ST", "OP", "<end>", "\n")
    assert labels(ids, offsets, text) == [IGNORE, 11, 12, 13, IGNORE]
    assert labels([1, *ids], [(0, 0), *offsets], text)[:2] == [IGNORE, IGNORE]


def test_a_token_between_template_and_answer_may_bring_blanks_along_and_no_more() -> None:
    text = Expanded(text="<a>\n\nSTOP<end>", learned=((4, 14),))
    ids, offsets = tokens("<a>", "\n\n", "STOP", "<end>")
    assert labels(ids, offsets, text) == [IGNORE, IGNORE, 12, 13]
    ids, offsets = tokens("<a>", "\n\nST", "OP", "<end>")
    with pytest.raises(DataError, match="'~11' begins in the chat template and ends within"):
        labels(ids, offsets, text, spelt="~{}".format)


def test_tokens_without_characters_within_an_answer_are_learned() -> None:
    text = Expanded(text="<a>A<end>", learned=((3, 9),))
    assert labels([1, 2, 3, 4], [(0, 3), (3, 3), (3, 4), (4, 9)], text) == [IGNORE, 2, 3, 4]
