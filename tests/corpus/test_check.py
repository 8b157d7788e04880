from __future__ import annotations

import pytest

from llavar.corpus.check import CheckReason, check_rows
from llavar.records import Conversation, Example, Role, Turn

GOOD = ("<image>\nWhat does it say?", "GRAND OPENING", 'Is "grand" written here?', "yes")


def row(*texts: str, id: str = "a", images: tuple[str, ...] = ("a.png",)) -> Example:
    return Example(id=id, conversation=Conversation.of(*texts), images=images)


def reasons(*rows: Example, texts: dict[str, str] | None = None) -> list[str]:
    return [reject.reason for reject in check_rows(rows, texts=texts)]


def test_a_good_row_passes() -> None:
    rows = [row(*GOOD), row("What is 1 + 1?", "2", id="text only", images=())]
    assert check_rows(rows, texts={"a": "GRAND OPENING"}) == []


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("What?", "x"), CheckReason.TAGS),
        (("<image>\n<image>\nWhat?", "x"), CheckReason.TAGS),
        (("<image>\nWhat?", "x", "And <image>?", "y"), CheckReason.TAGS),
        (("What?", "x", "<image> now?", "y"), CheckReason.TAGS),
        (("What is <image> here?", "x"), CheckReason.TAGS),
        (("<image>\nWhat?", "x</s>"), CheckReason.SPECIAL),
        (("<image>\nWhat?", "x USER: y"), CheckReason.SPECIAL),
        (("<image>\nWhat?", "  "), CheckReason.EMPTY),
        (("<image>", "x"), CheckReason.EMPTY),
        (("<image>\nWhat?",), CheckReason.ROLES),
        (("<image>\nWhat?", "x", "And?"), CheckReason.ROLES),
        (("<image>\nWhat does the OCR say?", "x"), CheckReason.NAMED),
        (("<image>\nIs the caption true?", "x"), CheckReason.NAMED),
        (("<image>\nWhat?", "x", "What?", "x"), CheckReason.DOUBLE_QUESTION),
    ],
)
def test_each_fault_is_found_alone(texts: tuple[str, ...], reason: CheckReason) -> None:
    assert reasons(row(*texts)) == [reason]


def test_the_number_of_turns_is_limited() -> None:
    def long(pairs: int) -> Example:
        asked = [text for n in range(pairs) for text in (f"What is {n}?", "x")]
        return row(f"<image>\n{asked[0]}", *asked[1:])

    assert reasons(long(8)) == []
    assert reasons(long(9)) == [CheckReason.LENGTH]
    assert CheckReason.LENGTH in reasons(row(images=()))


def test_roles_that_begin_with_the_assistant() -> None:
    turns = (Turn(role=Role.ASSISTANT, text="Hi"), Turn(role=Role.USER, text="<image>\nWhat?"))
    found = reasons(Example(id="a", conversation=Conversation(turns=turns), images=("a.png",)))
    assert CheckReason.ROLES in found


def test_a_tag_in_an_answer_is_a_control_string_and_a_wrong_tag() -> None:
    assert set(reasons(row("<image>\nWhat?", "an <image>"))) == {CheckReason.SPECIAL, CheckReason.TAGS}


def test_words_of_the_picture_may_be_named_in_quotes() -> None:
    assert reasons(row('<image>\nIs "caption" written here?', "no")) == []


def test_quotes_have_to_match_the_picture() -> None:
    texts = {"a": "GRAND OPENING\nSunday"}
    assert reasons(row('<image>\nIs "opening  sunday" there?', "yes"), texts=texts) == []
    assert reasons(row('<image>\nIs "monday" there?', "no"), texts=texts) == []
    assert reasons(row('<image>\nIs "monday" there?', "yes"), texts=texts) == [CheckReason.QUOTE]
    assert reasons(row('<image>\nIs "sunday" there?', "no"), texts=texts) == [CheckReason.QUOTE]
    assert reasons(row("<image>\nWhat day?", 'It says "Monday".'), texts=texts) == [CheckReason.QUOTE]
    assert reasons(row("<image>\nWhat day?", 'It says "Monday".'), texts={}) == []


def test_ids_are_used_once() -> None:
    assert reasons(row(*GOOD), row(*GOOD, id="b"), row(*GOOD)) == [CheckReason.DOUBLE_ID]
