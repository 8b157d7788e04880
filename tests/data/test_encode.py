from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar import chat
from llavar.data.encode import encode, encode_all
from llavar.data.source import Reason, RowError, parse_row
from llavar.errors import ModelError
from llavar.models.tokenizer import nano_tokenizer
from llavar.records import IGNORE, Conversation, Encoded, Example, Role, Turn

NANO = nano_tokenizer()
V1 = chat.get("llava_v1")


def row(*texts: str, images: int = 1, name: str = "r") -> Example:
    files = tuple(f"{n}.png" for n in range(images))
    return Example(id=name, images=files, conversation=Conversation.of(*texts))


def encoded(
    example: Example, *, template: chat.Template = V1, start_end: bool = True, max_length: int | None = None
) -> Encoded:
    return encode(example, NANO, template, image_tokens=4, start_end=start_end, max_length=max_length)


def supervised(result: Encoded) -> str:
    return NANO.decode([label for label in result.labels if label != IGNORE], skip_special=False)


def test_answers_are_supervised_with_their_end():
    result = encoded(row("<image>\nQ", "STOP", "R", "GO"))
    assert supervised(result) == " STOP</s> GO</s>"
    assert len(result.ids) == len(result.labels) == len(result)
    assert result.images == ("0.png",)
    assert (result.ids[0], result.labels[0]) == (1, IGNORE)
    assert all(label in (IGNORE, token) for token, label in zip(result.ids, result.labels, strict=True))


@given(
    before=st.text("ab \n", max_size=4),
    between=st.text("ab \n", max_size=4),
    count=st.integers(1, 9),
    start_end=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_ids_are_those_of_the_text_with_every_image_token(
    before: str, between: str, count: int, start_end: bool
):
    example = row(f"{before}<image>{between}<image>", "A", images=2)
    found = encode(example, NANO, V1, image_tokens=count, start_end=start_end)
    spans = chat.render(example.conversation, V1)
    whole = "".join(chat.expand_images(span.text, count, start_end) for span in spans)
    assert list(found.ids) == NANO.encode(whole)
    assert supervised(found) == " A</s>"


def test_images_have_their_tokens_with_and_without_borders():
    patch, start, end = (NANO.token_id(token) for token in ("<im_patch>", "<im_start>", "<im_end>"))
    result = encoded(row("<image> and <image>", "A", images=2))
    assert [result.ids.count(token) for token in (patch, start, end)] == [8, 2, 2]
    bare = encoded(row("<image> and <image>", "A", images=2), start_end=False)
    assert [bare.ids.count(token) for token in (patch, start, end)] == [8, 0, 0]


marks = st.sampled_from(["</s>", " ASSISTANT: ", "USER:", "<s>", "<unk>", "é字", "\n", " "]) | st.text(
    max_size=8
)
texts = st.lists(marks, max_size=5).map("".join)


@pytest.mark.parametrize("template", chat.templates(), ids=lambda template: template.name)
@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=3))
@settings(deadline=None, max_examples=40)
def test_hostile_text_never_breaks_the_labels(template: chat.Template, pairs: list[tuple[str, str]]):
    # What the original masked whole ("tokenization mismatch") stays usable, and exactly answers are learned.
    flat = [text.replace("<image>", "").replace("<im_patch>", "") for pair in pairs for text in pair]
    result = encoded(row(*flat, images=0), template=template)
    if template.name != "v0_train":
        learned = "".join(template.gap + text + template.answer_end for text in flat[1::2])
        assert supervised(result) == NANO.decode(NANO.encode("U" + learned)[2:], skip_special=False)


def test_an_opening_answer_is_left_out_as_in_the_original():
    turns = (Turn(role=Role.ASSISTANT, text="Hello"), *Conversation.of("Q", "A").turns)
    example = Example(id="r", conversation=Conversation(turns=turns))
    assert encoded(example).ids == encoded(row("Q", "A", images=0)).ids
    assert "### Assistant: Hello\n" in supervised(encoded(example, template=chat.get("v0_train")))


def test_a_last_question_without_an_answer_is_not_learned():
    assert supervised(encoded(row("Q", "A", "R", images=0))) == " A</s>"


def test_truncation_keeps_the_first_tokens():
    whole = encoded(row("<image>\nQ", "ABCDEFGH"))
    cut = encoded(row("<image>\nQ", "ABCDEFGH"), max_length=len(whole) - 4)
    assert cut.ids == whole.ids[:-4]
    assert cut.labels == whole.labels[:-4]
    assert encoded(row("<image>\nQ", "ABCDEFGH"), max_length=10_000) == whole


def turns(*roles: Role) -> Example:
    return Example(
        id="r", conversation=Conversation(turns=tuple(Turn(role=role, text="x") for role in roles))
    )


LONG = row("<image>\n" + "q" * 50, "A")


@pytest.mark.parametrize(
    ("example", "limit", "reason", "match"),
    [
        (
            turns(Role.USER, Role.USER, Role.ASSISTANT),
            None,
            Reason.SAME_ROLE_TWICE,
            "1 and 2 are both the user's",
        ),
        (turns(Role.USER, Role.ASSISTANT, Role.ASSISTANT), None, Reason.SAME_ROLE_TWICE, "the assistant's"),
        (row("<image>", "see <image>", images=2), None, Reason.TAG_IN_ANSWER, "turn 2 is an answer"),
        (row("<image><image>", "A"), None, Reason.IMAGE_COUNT, "2 <image> tags for 1 images"),
        (row("Q", "A"), None, Reason.IMAGE_COUNT, "0 <image> tags for 1 images"),
        (row("<image>", "A", images=0), None, Reason.IMAGE_COUNT, "1 <image> tags for 0 images"),
        (
            row("<image> <im_patch>", "A"),
            None,
            Reason.STRAY_IMAGE_TOKEN,
            "5 <im_patch> where its images take 4",
        ),
        (row("<im_patch>", "A", images=0), None, Reason.STRAY_IMAGE_TOKEN, "1 <im_patch>"),
        (row("Q", images=0), None, Reason.NOTHING_SUPERVISED, "there is no answer to learn from"),
        (turns(Role.ASSISTANT), None, Reason.NOTHING_SUPERVISED, "no answer"),
        (LONG, 30, Reason.NOTHING_SUPERVISED, "within 30 tokens there is no answer"),
        (LONG, 13, Reason.IMAGE_CUT, "images end at token 14, past the limit of 13"),
        (LONG, 5, Reason.IMAGE_CUT, "past the limit of 5"),
    ],
)
def test_unusable_rows_are_named_with_their_reason(
    example: Example, limit: int | None, reason: Reason, match: str
):
    with pytest.raises(RowError, match=match) as caught:
        encoded(example, max_length=limit)
    assert caught.value.reason is reason
    assert str(caught.value).startswith("row 'r': ")


def test_an_image_that_just_fits_is_kept():
    with pytest.raises(RowError) as caught:
        encoded(LONG, max_length=14)
    assert caught.value.reason is Reason.NOTHING_SUPERVISED


def test_v0_without_an_answer_has_nothing_to_learn_either():
    with pytest.raises(RowError, match="no answer"):
        encoded(row("Q", images=0), template=chat.get("v0_train"))


def test_a_template_that_refuses_makes_the_row_unusable():
    refusing = chat.own("{{ raise_exception('no') }}", eos="</s>")
    with pytest.raises(RowError, match="refuses the conversation") as caught:
        encoded(row("Q", "A", images=0), template=refusing)
    assert caught.value.reason is Reason.TEMPLATE


def test_own_template_gives_the_same_row():
    own = chat.own(chat.jinja_source(V1), bos="<s>", eos="</s>")
    example = row("<image>\nQ", "A", "R", "B")
    assert encoded(example, template=own) == encoded(example)


def test_a_tokenizer_without_image_tokens_serves_text_alone():
    class Bare:
        def encode_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
            return NANO.encode_offsets(text)

        def lookup(self, token: str) -> int | None:
            return None

        def piece(self, index: int) -> str:
            return NANO.piece(index)

    sentence = "no token <im_patch> for the pictures of row 'r'.*llavar train lora-hub --model"
    with pytest.raises(ModelError, match=sentence):
        encode(row("<image>", "A"), Bare(), V1, image_tokens=4)
    assert encode(row("Q", "A", images=0), Bare(), V1, image_tokens=4).labels[-1] == 2


def test_many_rows_come_apart_into_rows_and_rejects():
    rows = [row("<image>", "A", name="a"), row("Q", "A", name="b"), row("<image>", "B", name="c")]
    kept, rejects = encode_all(rows, NANO, V1, image_tokens=4)
    assert [one.id for one in kept] == ["a", "c"]
    assert [(one.id, one.stage, one.reason) for one in rejects] == [
        ("b", "encode", "image tags differ from images")
    ]
    assert "0 <image> tags for 1 images" in rejects[0].detail


def test_an_empty_answer_teaches_to_stop():
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": ""}]
    assert supervised(encoded(parse_row({"id": "a", "image": "x.jpg", "conversations": turns}))) == " </s>"


def test_importing_it_imports_no_torch():
    environment = {**os.environ, "PYTHONPATH": str(Path(chat.__file__).parents[2])}
    code = "import sys, llavar.data.encode; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert found.stdout.strip() == "[]"
