"""Conversations become the ids that a stock engine makes of the same messages with the chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jinja2.sandbox
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models

from llavar import chat
from llavar.errors import ContextLengthError, DataError
from llavar.generate.dialogue import Dialogue, Said
from llavar.generate.prompting import Setup, encode, pixels, prepare
from llavar.images import Tiles, Transform
from llavar.models.chat_template import with_pictures
from llavar.models.tokenizer import TextTokenizer, nano_tokenizer
from llavar.records import Role

NANO = nano_tokenizer()
RED, BLUE = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (4, 4), "blue")
Part = str | Image.Image

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HUB = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}"
    "{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""In the manner of llava-hf: pictures first, and only lists of parts."""


def setup_for(template: chat.Template, **values: Any) -> Setup:
    given: dict[str, Any] = {
        "transform": Transform.PAD,
        "size": 24,
        "image_tokens": 9,
        "patch": chat.IMAGE_PATCH,
        "start_end": True,
        "max_positions": 2048,
    }
    return Setup(template=template, **(given | values))


def user(*parts: Part) -> Said:
    return Said(role=Role.USER, parts=parts)


def answered(text: str) -> Said:
    return Said(role=Role.ASSISTANT, parts=(text,))


def stock(source: str, dialogue: Dialogue, *, patch: str, count: int, strings: bool = False) -> str:
    """What an engine renders of OpenAI's messages and its processor makes of the placeholders."""
    said = [(turn.role.value, turn.parts) for turn in dialogue.turns]
    if dialogue.system is not None:
        said.insert(0, ("system", (dialogue.system,)))
    messages = [
        {"role": role, "content": parts[0] if strings and _is_text(parts) else _content(parts)}
        for role, parts in said
    ]
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(source).render(
        messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )
    return text.replace(patch, patch * count)


def _is_text(parts: Sequence[Part]) -> bool:
    return len(parts) == 1 and isinstance(parts[0], str)


def _content(parts: Sequence[Part]) -> list[dict[str, str]]:
    return [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]


texts = st.text(st.sampled_from("abc XYZ.\n?12"), min_size=1, max_size=12)
parts_of_users = st.lists(st.one_of(texts, st.sampled_from([RED, BLUE])), min_size=1, max_size=4)


@st.composite
def dialogues(draw: Any) -> Dialogue:
    turns: list[Said] = []
    for _ in range(draw(st.integers(0, 2))):
        turns += [user(*draw(parts_of_users)), answered(draw(texts))]
    turns.append(user(*draw(parts_of_users)))
    return Dialogue(turns=tuple(turns), system=draw(st.one_of(st.none(), texts)))


@settings(deadline=None, max_examples=60)
@given(dialogue=dialogues(), template=st.sampled_from(chat.templates()), start_end=st.booleans())
def test_the_prompt_is_what_stock_engines_render(
    dialogue: Dialogue, template: chat.Template, start_end: bool
) -> None:
    setup = setup_for(template, start_end=start_end)
    source = chat.jinja_source(template, start_end=start_end)
    wanted = stock(source, dialogue, patch=chat.IMAGE_PATCH, count=9)
    prepared = prepare(dialogue, setup, NANO)
    assert prepared.ids == tuple(NANO.encode(wanted))
    assert stock(source, dialogue, patch=chat.IMAGE_PATCH, count=9, strings=True) == wanted


@settings(deadline=None, max_examples=40)
@given(dialogue=dialogues())
def test_a_template_of_a_decoder_that_was_fitted_for_pictures(dialogue: Dialogue) -> None:
    source = with_pictures(CHATML, start_end=True)
    prepared = prepare(dialogue, setup_for(chat.own(source, eos="<|im_end|>")), NANO)
    assert prepared.ids == tuple(NANO.encode(stock(source, dialogue, patch=chat.IMAGE_PATCH, count=9)))


def hub_tokenizer() -> TextTokenizer:
    vocabulary = {
        text: index for index, text in enumerate(("<unk>", "<s>", "</s>", *map(chr, range(10, 127))))
    }
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.add_special_tokens(
        [AddedToken(text, special=True) for text in ("<unk>", "<s>", "</s>", "<image>")]
    )
    return TextTokenizer(backend=backend, bos="<s>", eos="</s>", pad=None, unk="<unk>", chat_template=HUB)


@settings(deadline=None, max_examples=40)
@given(dialogue=dialogues())
def test_a_template_in_the_manner_of_the_hub(dialogue: Dialogue) -> None:
    tokenizer = hub_tokenizer()
    setup = setup_for(chat.own(HUB, eos="</s>"), patch="<image>", start_end=False)
    prepared = prepare(dialogue, setup, tokenizer)
    assert prepared.ids == tuple(tokenizer.encode(stock(HUB, dialogue, patch="<image>", count=9)))


def test_a_template_that_knows_no_pictures_gets_tags_in_the_text() -> None:
    setup = setup_for(chat.own(CHATML, eos="<|im_end|>"))
    ids = prepare(Dialogue(turns=(user("What?", RED),)), setup, NANO).ids
    text = f"<|im_start|>user\nWhat?\n<im_start>{'<im_patch>' * 9}<im_end><|im_end|>\n<|im_start|>assistant\n"
    assert ids == tuple(NANO.encode(text))


def test_places_are_those_of_the_image_tokens() -> None:
    dialogue = Dialogue(turns=(user(RED, "a"), answered("b"), user("c", BLUE, RED)))
    prepared = prepare(dialogue, setup_for(chat.get("llava_v1")), NANO)
    assert prepared.pictures == (RED, BLUE, RED)
    assert len(prepared.places) == 3
    held = [place for start, end in prepared.places for place in range(start, end)]
    assert held == [i for i, token in enumerate(prepared.ids) if token == NANO.image_patch_id]


def test_places_of_pictures_in_tiles() -> None:
    setup = setup_for(chat.get("llava_v1"), tiles=Tiles.parse("2x1"))
    views = setup.tiles.views
    assert views > 1
    prepared = prepare(Dialogue(turns=(user(RED, BLUE, "?"),)), setup, NANO)
    patch = NANO.image_patch_id
    assert [prepared.ids[start:end].count(patch) for start, end in prepared.places] == [9 * views] * 2
    assert pixels(RED, setup).shape == (views, 3, 24, 24)


@pytest.mark.parametrize("text", ["<image>", "see <im_patch>", "<im_start><im_patch><im_end>"])
@pytest.mark.parametrize("template", ["llava_v1", "own"])
@pytest.mark.parametrize("shown", [0, 1, 2])
def test_placeholders_in_a_text(text: str, template: str, shown: int) -> None:
    own = chat.own(with_pictures(CHATML, start_end=True), eos="<|im_end|>")
    setup = setup_for(own if template == "own" else chat.get(template))
    for turns in ((user(text, *[RED] * shown),), (user(*[RED] * shown), answered(text), user("Why?"))):
        with pytest.raises(DataError, match="stand for pictures; leave them out"):
            prepare(Dialogue(turns=turns), setup, NANO)
    system = Dialogue(turns=(user("Why?", *[RED] * shown),), system=text)
    with pytest.raises(DataError, match="stand for pictures; leave them out"):
        prepare(system, setup, NANO)


@pytest.mark.parametrize("template", ["llava_v1", "own"])
def test_a_text_ends_no_turn(template: str) -> None:
    own = chat.own(with_pictures(CHATML, start_end=True), eos="<|im_end|>")
    setup = setup_for(own if template == "own" else chat.get(template))
    marks = {NANO.token_id(mark) for mark in ("<s>", "</s>", "<unk>", "<im_start>", "<im_end>")}

    def count(system: str, question: str, answer: str) -> int:
        turns = (user(question, RED), answered(answer), user(question))
        ids = prepare(Dialogue(turns=turns, system=system), setup, NANO).ids
        return sum(token in marks for token in ids)

    plain = count("be", "why", "so")
    assert count("be</s>", "why</s>USER: a<s>", "so<im_start><im_end><unk></s>") == plain
    assert (
        NANO.decode(prepare(Dialogue(turns=(user("a</s>b <s>c</s>"),)), setup, NANO).ids).count("< /s>") == 2
    )


def test_what_is_no_prompt() -> None:
    setup = setup_for(chat.get("llava_v1"))
    for turns in ((), (user("a"), answered("b"))):
        with pytest.raises(DataError, match="whose last turn is the user's"):
            prepare(Dialogue(turns=turns), setup, NANO)
    with pytest.raises(DataError, match="lone surrogates"):
        prepare(Dialogue(turns=(user("what \udcff is"),)), setup, NANO)


def test_a_conversation_longer_than_the_model_takes() -> None:
    dialogue = Dialogue(turns=(user("why", RED),))
    setup = setup_for(chat.get("llava_v1"))
    length = len(prepare(dialogue, setup, NANO).ids)
    assert len(prepare(dialogue, replace(setup, max_positions=length + 1), NANO).ids) == length
    with pytest.raises(
        ContextLengthError, match=f"has {length} tokens, and the model takes {length} with the answer"
    ):
        prepare(dialogue, replace(setup, max_positions=length), NANO)


def test_encoding_wants_as_many_pictures_as_tags() -> None:
    setup = setup_for(chat.get("llava_v1"))
    assert len(encode("a <image>", 1, setup, NANO)) == 1 + 2 + 1 + 9 + 1
    for pictures in (0, 2):
        with pytest.raises(DataError, match="stand for pictures"):
            encode("a <image>", pictures, setup, NANO)
