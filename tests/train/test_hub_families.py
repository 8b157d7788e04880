"""Rows through the own processor of each family: ids as the processor makes them, answers alone learned."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from llavar.errors import ConfigError, DataError, ModelError
from llavar.models import _hub as hub
from llavar.models._hub_processor import OwnProcessor
from llavar.models._hub_spans import PICTURE, messages_of
from llavar.records import IGNORE, Conversation

NAMES = (
    *("llava", "llava_next", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3"),
    *("smolvlm", "gemma3"),
)
WITHOUT_VIDEOS = ("llava", "llava_next", "idefics3", "gemma3")
"""Processors that stock transformers loads without torchvision."""

TALK = Conversation.of(
    "<image>\nWhat does the sign say?", "Open from nine\nto five.", "And the price?", "It is 5 é €."
)


@pytest.fixture(scope="module")
def folders(hub_models: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of a family, made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("hub"), {}

    def folder(name: str) -> Path:
        if name == "smolvlm" and importlib.util.find_spec("num2words") is None:
            pytest.skip("the processor of SmolVLM needs num2words, which is not installed")
        if name not in made:
            made[name] = hub_models.make(root / name, name), OwnProcessor(root / name)
        return made[name]

    return folder


def picture(width: int = 60, height: int = 40) -> Image.Image:
    return Image.effect_noise((width, height), 60).convert("RGB")


def written(conversation: Conversation, *pictures: Image.Image) -> list[dict[str, Any]]:
    """As users of transformers write it."""
    left = iter(pictures)
    return [
        {
            "role": message.role.value,
            "content": [
                {"type": "image", "image": next(left)} if part is PICTURE else {"type": "text", "text": part}
                for part in message.parts
            ],
        }
        for message in messages_of(conversation)
    ]


def stock_ids(processor: Any, messages: list[dict[str, Any]], **how: Any) -> list[int]:
    ids = processor.apply_chat_template(messages, tokenize=True, return_dict=True, **how)["input_ids"]
    return [int(index) for index in (ids[0] if not isinstance(ids[0], int) else ids)]


def answered(processor: OwnProcessor, ids: list[int], labels: list[int]) -> str:
    assert all(label in (IGNORE, index) for index, label in zip(ids, labels, strict=True))
    return processor.spelt([label for label in labels if label != IGNORE])


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_what_the_processor_makes_of_it_and_its_answers_are_learned(
    folders: Any, hub_models: Any, name: str
) -> None:
    _, own = folders(name)
    ids, labels = own.encode(own.rendered(messages_of(TALK)), [(60, 40)])
    expected = stock_ids(own._held, written(TALK, picture()))
    end = hub_models.ENDS[name]
    if own.ending.written:
        assert ids == expected
        answers = f"Open from nine\nto five.{end}It is 5 é €.{end}"
    else:  # the blank after the last answer gives way to the end
        assert ids[:-1] == expected[: len(ids) - 1]
        assert own.spelt(expected[len(ids) - 1 :]).strip() == ""
        answers = f"Open from nine\nto five.It is 5 é €.{end}"
    assert answered(own, ids, labels).replace(" ", "") == answers.replace(" ", "")
    assert own.ending.token == end


@pytest.mark.parametrize("name", NAMES)
def test_a_question_is_what_the_processor_makes_of_it(folders: Any, name: str) -> None:
    _, own = folders(name)
    asked, shown = Conversation.of("<image>\nWhat does the sign say?"), picture()
    ids = own.prompt(messages_of(asked), [shown])["input_ids"][0].tolist()
    assert ids == stock_ids(own._held, written(asked, shown), add_generation_prompt=True)
    begins = own.rendered(messages_of(TALK)).text.startswith(own.render(messages_of(asked), open_turn=True))
    assert begins is not own.opens_otherwise
    assert own.opens_otherwise is (name == "llava_onevision")


@pytest.mark.parametrize("name", WITHOUT_VIDEOS)
def test_stock_transformers_agrees(folders: Any, name: str) -> None:
    from transformers import AutoProcessor

    folder, own = folders(name)
    stock: Any = AutoProcessor.from_pretrained(str(folder))
    asked, shown = Conversation.of("Which word is it?\n<image>"), picture(41, 77)
    ours = own.prompt(messages_of(asked), [shown])
    how: Any = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    theirs = stock.apply_chat_template(written(asked, shown), add_generation_prompt=True, **how)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["pixel_values"], theirs["pixel_values"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sizes", [[], [(60, 40)], [(28, 28), (90, 33)]], ids=["none", "one", "two"])
def test_any_number_of_pictures(folders: Any, name: str, sizes: list[tuple[int, int]]) -> None:
    _, own = folders(name)
    talk = Conversation.of("<image>\n" * len(sizes) + "Which?", "The left one.")
    text = own.rendered(messages_of(talk))
    ids, labels = own.encode(text, sizes)
    made = own.inputs([text.text], [[picture(*size) for size in sizes]])["input_ids"][0].tolist()
    assert made[: len(ids)] == ids
    assert set(made[len(ids) :]) <= {own.pad_id}
    assert answered(own, ids, labels).strip() == f"The left one.{own.ending.token}"


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_the_stock_model_and_padding_changes_nothing(folders: Any, name: str) -> None:
    folder, own = folders(name)
    model = hub.load(folder, dtype=torch.float32)
    talks = [
        Conversation.of("<image>\nWhat does the sign say?", "STOP"),
        Conversation.of("Say hello, then say it again.", "Hello. Hello."),
        Conversation.of("<image>\n<image>\nWhich of the two?", "The second."),
    ]
    sizes: list[list[tuple[int, int]]] = [[(60, 40)], [], [(30, 30), (44, 80)]]
    texts = [own.rendered(messages_of(talk)) for talk in talks]
    rows = [own.encode(text, shown) for text, shown in zip(texts, sizes, strict=True)]
    pictures = [[picture(*size) for size in shown] for shown in sizes]

    def loss(numbers: list[int]) -> torch.Tensor:
        inputs = own.inputs([texts[n].text for n in numbers], [pictures[n] for n in numbers])
        labels = torch.full_like(inputs["input_ids"], IGNORE)
        for place, number in enumerate(numbers):
            labels[place, : len(rows[number][1])] = torch.tensor(rows[number][1])
        if len(numbers) == 1:
            stock = model(**hub.accepted(model, inputs), labels=labels).loss
            count = int((labels[:, 1:] != IGNORE).sum())
            torch.testing.assert_close(hub.answer_loss(model, inputs, labels), stock * count)
        return hub.answer_loss(model, inputs, labels)

    with torch.no_grad():
        alone = sum((loss([number]) for number in range(3)), torch.zeros(()))
        torch.testing.assert_close(loss([0, 1, 2]), alone, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_next", "gemma3"])
def test_whatever_an_answer_says_it_alone_is_learned(folders: Any, name: str) -> None:
    _, own = folders(name)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(answer=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=12))
    def check(answer: str) -> None:
        talk = Conversation.of("<image>\nWhat?", answer)
        ids, labels = own.encode(own.rendered(messages_of(talk)), [(60, 40)])
        found = answered(own, ids, labels)
        assert found.endswith(own.ending.token)
        assert found.removesuffix(own.ending.token).strip() == answer.strip()

    check()


def test_processors_travel_to_other_processes(folders: Any) -> None:
    _, own = folders("qwen2_5_vl")
    again = pickle.loads(pickle.dumps(own))
    text = own.rendered(messages_of(TALK))
    assert again.encode(text, [(60, 40)]) == own.encode(text, [(60, 40)])
    assert again.digest == own.digest


def test_what_ends_an_answer_is_told_to_generation(folders: Any) -> None:
    _, own = folders("gemma3")
    assert [own.spelt([index]) for index in own.ends] == ["<end_of_turn>", "<eos>"]


# What cannot be used.


def test_a_placeholder_in_a_text_is_refused(folders: Any) -> None:
    _, own = folders("qwen2_5_vl")
    talk = Conversation.of("<image>\nWhat is <|image_pad|>?", "A token.")
    with pytest.raises(DataError, match="2 <|image_pad|> for 1 pictures"):
        own.encode(own.rendered(messages_of(talk)), [(60, 40)])
    talk = Conversation.of("What is it called?", "<|video_pad|>")
    text = own.rendered(messages_of(talk))
    with pytest.raises(DataError, match="holds <|video_pad|>, which stands for what is no picture"):
        own.encode(text, [])
    with pytest.raises(DataError, match="the model's processor refuses it"):
        own.inputs([text.text], [[]])


def test_a_model_without_a_chat_template_is_refused(hub_models: Any, tmp_path: Path) -> None:
    folder = hub_models.make(tmp_path / "mute", "qwen2_5_vl")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"has no chat template.*put the chat_template.jinja"):
        OwnProcessor(folder)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{% for message in messages %}{{ message['content'][-1]['text'] }}{% endfor %}",
            "shows 0 placeholders",
        ),
        ("{{ raise_exception('no chats') }}", "no chats"),
        ("{% for", "refuses it"),
        ("<|vision_start|><|image_pad|><|vision_end|>Hello.", "leaves an answer out"),
    ],
    ids=["no pictures", "refuses", "broken", "no answers"],
)
def test_templates_that_cannot_be_trained_with_are_refused(
    hub_models: Any, tmp_path: Path, template: str, reason: str
) -> None:
    folder = hub_models.make(tmp_path / "odd", "qwen2_5_vl", template=template)
    with pytest.raises(ModelError, match=reason):
        OwnProcessor(folder)


def test_missing_parts_of_a_processor_are_refused(hub_models: Any, tmp_path: Path) -> None:
    folder = hub_models.make(tmp_path / "blind", "gemma3")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="has no processor that can be used"):
        OwnProcessor(folder)


def test_other_kinds_of_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    with pytest.raises(ModelError, match="no image-text-to-text model.*'qwen2'"):
        hub.load_config(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "made_up", "auto_map": {"AutoConfig": "x.Y"}})
    )
    with pytest.raises(ModelError, match="made_up"):
        hub.load_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "florence2"}))
    with pytest.raises(ModelError, match="encoder-decoder"):
        hub.load_config(tmp_path)


def test_damaged_weights_are_refused(hub_models: Any, tmp_path: Path) -> None:
    folder = hub_models.make(tmp_path / "cut", "gemma3")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="model.safetensors"):
        hub.load(folder, dtype=torch.float32)


def test_weights_of_another_model_are_refused(folders: Any, hub_models: Any, tmp_path: Path) -> None:
    folder = hub_models.make(tmp_path / "mixed", "gemma3")
    other, _ = folders("qwen2_5_vl")
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="none that fits"):
        hub.load(folder, dtype=torch.float32)


def test_attention_for_packs_is_refused() -> None:
    assert hub.check_attention("auto", "gemma3") == "sdpa"
    with pytest.raises(ConfigError, match="varlen is for packed rows"):
        hub.check_attention("varlen", "gemma3")


def test_a_processor_that_belongs_to_another_model_is_noticed(folders: Any) -> None:
    folder, own = folders("llava_next")
    model = hub.load(folder, dtype=torch.float32)
    inputs = own.prompt(messages_of(Conversation.of("Hello.")), [])
    with pytest.raises(ModelError, match="'image_grid_thw', which a llava_next does not take"):
        hub.accepted(model, {**inputs, "image_grid_thw": torch.ones(1, 3)})


def test_templates_that_want_answers_as_strings_get_them(hub_models: Any, tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
        "{{ m['content'] }}{% else %}{% for c in m['content'] if m['content'] is not string %}"
        "{{ '<|image_pad|>' if c['type'] == 'image' else c['text'] }}{% endfor %}"
        "{{ m['content'] if m['content'] is string }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    own = OwnProcessor(hub_models.make(tmp_path / "strings", "qwen2_5_vl", template=template))
    ids, labels = own.encode(own.rendered(messages_of(TALK)), [(60, 40)])
    assert answered(own, ids, labels) == "Open from nine\nto five.<|im_end|>It is 5 é €.<|im_end|>"
    assert "[" not in own.spelt(ids)
