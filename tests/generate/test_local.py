"""Answers of local checkpoints: independent of the batch, equal to the stock model's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models

from llavar import chat, images
from llavar.errors import DataError, ImageError, ModelError, NotFoundError
from llavar.generate.base import Decoding, Request
from llavar.generate.local import LocalGenerator, digest_of, setup_of
from llavar.images import Transform
from llavar.models import _hf as hf
from llavar.models import steps
from llavar.models.shape import FeatureSelect, LlavaShape, TextShape, VisionShape
from llavar.models.tokenizer import TextTokenizer, load_tokenizer, nano_tokenizer

QUESTIONS = ("What does it say?", "Why?", "Read the second line of the sign, and then tell me its colour.")

HUB_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}"
    "{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""In the manner of llava-hf: contents are lists of parts, the placeholder is ``<image>``."""


def shape(vocab: int, image_token: int) -> LlavaShape:
    return LlavaShape(
        vision=VisionShape(image_size=24, patch_size=8, hidden=16, layers=2, heads=2, mlp=24),
        text=TextShape(vocab=vocab, hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, max_positions=512),
        image_token_id=image_token,
        vision_feature_layer=-1,
    )


def lively(numbers: LlavaShape) -> Any:
    """A model whose weights are large enough that words and pictures change its answers."""
    model = hf.build_llava(numbers, seed=5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(10)
    return model


def hub_tokenizer() -> TextTokenizer:
    """A character to a token, and ``<image>``."""
    letters = map(chr, (*range(0x41, 0x5B), *range(0x61, 0x7B)))
    texts = ("<unk>", "<s>", "</s>", "<pad>", *"\n !,.:?", *letters)
    vocabulary = {text: index for index, text in enumerate(texts)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    special = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    return TextTokenizer(
        backend=backend, bos="<s>", eos="</s>", pad="<pad>", unk="<unk>", chat_template=HUB_TEMPLATE
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in nano's manner."""
    out, tokenizer = tmp_path_factory.mktemp("tiny") / "model", nano_tokenizer()
    hf.save_llava(lively(shape(tokenizer.vocab_size, tokenizer.image_patch_id)), out)
    tokenizer.save(out)
    return out


@pytest.fixture(scope="module")
def generator(folder: Path) -> LocalGenerator:
    return LocalGenerator.load(folder)


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in llava-hf's manner."""
    out, tokenizer = tmp_path_factory.mktemp("hub") / "model", hub_tokenizer()
    model = lively(shape(tokenizer.vocab_size, tokenizer.token_id("<image>")))
    hf.save_llava(model, out, transform=Transform.CROP, image_token="<image>")
    tokenizer.save(out)
    stated = json.loads((out / "preprocessor_config.json").read_text())
    del stated[hf.TRANSFORM_KEY]
    (out / "preprocessor_config.json").write_text(json.dumps(stated))
    return out


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(7)
    sizes = ((40, 24), (24, 60), (30, 30))
    return [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def requests(pictures: list[Image.Image], most: int = 12) -> list[Request]:
    return [
        Request(image=image, question=question, max_new_tokens=most)
        for image, question in zip(pictures, QUESTIONS, strict=True)
    ]


def edited(folder: Path, out: Path, **changes: object) -> Path:
    """A copy of a model folder with other settings in its ``config.json``; None removes one."""
    out.mkdir()
    for path in folder.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (out / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return out


# --- answers --------------------------------------------------------------------------------------------


def test_answers_do_not_depend_on_the_batch(generator: LocalGenerator, pictures: list[Image.Image]):
    asked = [*requests(pictures), Request(image=None, question="Who are you?", max_new_tokens=12)]
    together = generator.answer(asked)
    assert together == [generator.answer([request])[0] for request in asked]
    assert together[::-1] == generator.answer(asked[::-1])
    assert len(set(together)) == len(together)


def test_answers_depend_on_the_picture(generator: LocalGenerator, pictures: list[Image.Image]):
    said = {
        generator.answer([Request(image=image, question="Why?", max_new_tokens=16)])[0] for image in pictures
    }
    assert len(said) > 1


def test_no_requests_no_answers(generator: LocalGenerator):
    assert generator.answer([]) == []


def test_every_request_has_its_own_length(generator: LocalGenerator, pictures: list[Image.Image]):
    long = requests(pictures, most=12)
    short = [replace(request, max_new_tokens=n) for request, n in zip(long, (1, 12, 5), strict=True)]
    whole, cut = generator.answer(long), generator.answer(short)
    assert cut[1] == whole[1]
    assert cut != whole
    assert all(full.startswith(part) for full, part in zip(whole, cut, strict=True))


@pytest.mark.parametrize("first", [False, True])
def test_the_prompt_of_the_original(
    generator: LocalGenerator, pictures: list[Image.Image], folder: Path, first: bool
):
    """Greedy ids of the stock model, for ids and pixels put together here by hand."""
    tokenizer, stock = load_tokenizer(folder), hf.load_llava(folder)
    for request in requests(pictures):
        request = replace(request, image_first=first)
        tokens = f"<im_start>{'<im_patch>' * 9}<im_end>"
        asked = f"{tokens}\n{request.question}" if first else f"{request.question}\n{tokens}"
        text = f"{chat.LLAVA_SYSTEM} USER: {asked} ASSISTANT:"
        ids = torch.tensor([tokenizer.encode(text)])
        shown = images.pixels(request.image, transform=Transform.PAD, size=24)
        made = stock.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=torch.as_tensor(shown)[None],
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=tokenizer.eos_id,
            pad_token_id=tokenizer.pad_id,
        )
        new = made[0, ids.shape[1] :].tolist()
        assert generator.answer([request]) == [tokenizer.decode(new).split("</s>")[0].strip()]


def test_a_folder_in_the_manner_of_the_hub(hub_folder: Path, pictures: list[Image.Image]):
    """Its own chat template, the placeholder ``<image>`` and nothing around it, a centre crop."""
    generator = LocalGenerator.load(hub_folder)
    setup = generator.setup
    assert (setup.patch, setup.start_end, setup.transform) == ("<image>", False, Transform.CROP)
    tokenizer, stock = load_tokenizer(hub_folder), hf.load_llava(hub_folder)
    request = Request(image=pictures[0], question="What is it?", max_new_tokens=10)
    ids = torch.tensor([tokenizer.encode(f"USER: {'<image>' * 9}\nWhat is it? ASSISTANT:")])
    assert (ids == tokenizer.token_id("<image>")).sum() == 9
    made = stock.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=torch.as_tensor(images.pixels(pictures[0], transform=Transform.CROP, size=24))[None],
        max_new_tokens=10,
        do_sample=False,
    )
    wanted = tokenizer.decode(made[0, ids.shape[1] :].tolist())
    assert generator.answer([request]) == [chat.clean_answer(wanted, setup.template)]


def test_the_class_token_is_counted(tmp_path: Path, pictures: list[Image.Image]):
    tokenizer = nano_tokenizer()
    numbers = replace(shape(tokenizer.vocab_size, tokenizer.image_patch_id), select=FeatureSelect.FULL)
    hf.save_llava(hf.build_llava(numbers, seed=1), tmp_path / "m")
    tokenizer.save(tmp_path / "m")
    generator = LocalGenerator.load(tmp_path / "m")
    assert generator.setup.image_tokens == 10
    assert len(generator.answer(requests(pictures, most=2))) == 3


def test_another_conversation_may_be_named(folder: Path, generator: LocalGenerator):
    other = LocalGenerator.load(folder, template="vicuna_v1_1")
    assert other.setup.template.name == "vicuna_v1_1"
    assert generator.setup.template.name == "llava_v1"


def test_the_name_is_the_folder_unless_one_is_given(folder: Path):
    assert LocalGenerator.load(folder).name == str(folder)
    assert LocalGenerator.load(folder, name="mine").name == "mine"


def test_parameters_are_counted(generator: LocalGenerator, folder: Path):
    assert generator.parameters == sum(p.numel() for p in hf.load_llava(folder).parameters())


# --- one picture, many questions ------------------------------------------------------------------------


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each run of the tower saw."""
    runs: list[int] = []
    features = steps.features

    def counted(model: Any, pixels: torch.Tensor) -> torch.Tensor:
        runs.append(len(pixels))
        return features(model, pixels)

    monkeypatch.setattr(steps, "features", counted)
    return runs


def test_a_picture_is_encoded_once_for_all_its_questions(
    folder: Path, pictures: list[Image.Image], tmp_path: Path, encoded: list[int]
):
    for index, picture in enumerate(pictures):
        picture.save(tmp_path / f"{index}.png")
    asked = [
        Request(image=tmp_path / f"{index}.png", question=question, max_new_tokens=8)
        for index in (0, 1, 2, 0)
        for question in (*QUESTIONS, "Who?")
    ]
    generator = LocalGenerator.load(folder)
    said = [text for start in range(0, 16, 5) for text in generator.answer(asked[start : start + 5])]
    assert encoded == [2, 1]
    fresh = LocalGenerator.load(folder)
    alone: list[str] = []
    for request in asked:
        fresh.forget()
        alone += fresh.answer([request])
    assert said == alone
    assert len(encoded) == 2 + 16


def test_features_of_few_pictures_are_kept(folder: Path, pictures: list[Image.Image], encoded: list[int]):
    loaded = LocalGenerator.load(folder)
    small = LocalGenerator(loaded._model, loaded._tokenizer, loaded.setup, name="small", remember=1)
    whole = small.answer(requests(pictures))
    assert small.answer(requests(pictures)[2:]) == whole[2:]
    assert small.answer(requests(pictures)[:1]) == whole[:1]
    assert encoded == [3, 1]


def test_a_picture_that_changes_is_encoded_anew(
    generator: LocalGenerator, pictures: list[Image.Image], tmp_path: Path
):
    said: list[str] = []
    for picture in pictures[:2]:
        picture.save(tmp_path / "same.png")
        said += generator.answer([Request(image=tmp_path / "same.png", question="Why?", max_new_tokens=16)])
    assert said == [
        generator.answer([Request(image=picture, question="Why?", max_new_tokens=16)])[0]
        for picture in pictures[:2]
    ]
    assert said[0] != said[1]


# --- sampling -------------------------------------------------------------------------------------------


def drawn(asked: list[Request], temperature: float = 1.0, **values: float) -> list[Request]:
    decoding = Decoding(temperature=temperature, **values)
    return [replace(request, decoding=decoding) for request in asked]


@pytest.mark.parametrize("lean", [True, False])
def test_drawn_answers_do_not_depend_on_the_batch(
    folder: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch, lean: bool
):
    if not lean:
        monkeypatch.setattr(hf, "is_covered", lambda _: False)
    generator = LocalGenerator.load(folder)
    asked = drawn([*requests(pictures), Request(image=None, question="Who are you?", max_new_tokens=12)])
    together = generator.answer(asked)
    assert together == [generator.answer([request])[0] for request in asked]
    assert together[::-1] == generator.answer(asked[::-1])
    greedy = generator.answer(requests(pictures))
    assert together[:3] != greedy
    mixed = generator.answer([requests(pictures)[0], *asked[1:]])
    assert mixed == [greedy[0], *together[1:]]


def test_a_seed_repeats_and_another_one_does_not(generator: LocalGenerator, pictures: list[Image.Image]):
    one = generator.answer(drawn(requests(pictures), seed=1))
    assert one == generator.answer(drawn(requests(pictures), seed=1))
    assert one != generator.answer(drawn(requests(pictures), seed=2))


def test_hardly_any_probability_is_greedy(generator: LocalGenerator, pictures: list[Image.Image]):
    greedy = generator.answer(requests(pictures))
    assert generator.answer(drawn(requests(pictures), temperature=2.0, top_p=1e-9)) == greedy
    assert generator.answer(drawn(requests(pictures), temperature=1e-5)) == greedy


# --- how a model is asked -------------------------------------------------------------------------------


def test_the_picture_can_come_first(
    generator: LocalGenerator, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
):
    shown: list[str] = []
    encode = TextTokenizer.encode
    monkeypatch.setattr(TextTokenizer, "encode", lambda self, text: shown.append(text) or encode(self, text))
    for first in (True, False):
        generator.answer([Request(image=pictures[0], question="Why?", max_new_tokens=1, image_first=first)])
    tag = f"<im_start>{'<im_patch>' * 9}<im_end>"
    assert f"USER: {tag}\nWhy? ASSISTANT:" in shown[0]
    assert f"USER: Why?\n{tag} ASSISTANT:" in shown[1]


def test_another_transform_shares_the_model(folder: Path, pictures: list[Image.Image]):
    generator = LocalGenerator.load(folder)
    other = generator.with_transform(Transform.CROP)
    assert (generator.about["transform"], other.about["transform"]) == ("pad", "crop")
    assert {**other.about, "transform": "pad"} == generator.about
    asked = requests(pictures, most=16)
    assert other.answer(asked) != generator.answer(asked)
    assert LocalGenerator.load(folder, transform=Transform.CROP).answer(asked) == other.answer(asked)


def test_what_a_generator_says_about_itself(folder: Path):
    about = LocalGenerator.load(folder, dtype=torch.bfloat16).about
    assert about["conversation"] == "llava_v1"
    assert about["dtype"] == "bfloat16"
    assert about["weights"] == digest_of(folder)


def test_the_digest_is_of_the_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copy = edited(folder, tmp_path / "copy")
    (copy / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert digest_of(copy) == digest_of(folder)
    changed = edited(folder, tmp_path / "changed", vision_feature_layer=-2)
    assert digest_of(changed) != digest_of(folder)
    monkeypatch.setattr("llavar.generate.local._WHOLE", 4096)  # as if the weights were large
    weights = copy / "model.safetensors"
    before = digest_of(copy)
    content = bytearray(weights.read_bytes())
    content[3000] ^= 1
    weights.write_bytes(content)
    assert digest_of(copy) != before


def test_a_conversation_may_end_answers_with_text(
    folder: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
):
    """``###`` of v0 is no token of its own: an answer ends there as soon as it has come."""
    generator = LocalGenerator.load(folder, template="multimodal")
    decode, lengths = TextTokenizer.decode, list[int]()

    def told(self: TextTokenizer, ids: list[int], **options: Any) -> str:
        lengths.append(len(ids))
        return decode(self, ids, **options) if len(ids) < 3 else "Yes ### Human: more"

    monkeypatch.setattr(TextTokenizer, "decode", told)
    asked = Request(image=pictures[1], question="Who are you, really?", max_new_tokens=40)
    assert generator.answer([asked]) == ["Yes"]
    assert max(lengths) == 3


# --- refusals -------------------------------------------------------------------------------------------


def test_broken_characters_in_a_question(generator: LocalGenerator, pictures: list[Image.Image]):
    with pytest.raises(DataError, match="broken characters"):
        generator.answer([Request(image=pictures[0], question="what \udcff is")])


def test_characters_that_the_tokenizer_lacks(generator: LocalGenerator, pictures: list[Image.Image]):
    assert (
        len(generator.answer([Request(image=pictures[0], question="何が?\u202e\0", max_new_tokens=2)])) == 1
    )


@pytest.mark.parametrize("text", ["What is <image> here?", "Say <im_patch> twice", "<im_patch><im_patch>"])
@pytest.mark.parametrize("shown", [True, False])
def test_placeholders_in_a_question(
    generator: LocalGenerator, pictures: list[Image.Image], text: str, shown: bool
):
    with pytest.raises(DataError, match="stand for pictures; leave them out"):
        generator.answer([Request(image=pictures[0] if shown else None, question=text)])


def test_a_question_longer_than_the_model_takes(generator: LocalGenerator, pictures: list[Image.Image]):
    with pytest.raises(DataError, match="exceed the 512 that the model takes"):
        generator.answer([Request(image=pictures[0], question="why " * 200, max_new_tokens=8)])
    with pytest.raises(DataError, match="and with 600 for the answer"):
        generator.answer([Request(image=pictures[0], question="why", max_new_tokens=600)])


def test_a_picture_that_is_not_there(generator: LocalGenerator, tmp_path: Path):
    with pytest.raises(NotFoundError, match="There is no picture"):
        generator.answer([Request(image=tmp_path / "absent.png", question="What?")])
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match="is no picture of a supported kind"):
        generator.answer([Request(image=tmp_path / "text.png", question="What?")])


def test_a_batch_that_memory_does_not_hold(
    generator: LocalGenerator, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(steps, "begin", full)
    with pytest.raises(ModelError, match="not enough memory for 3 questions .* smaller batch size"):
        generator.answer(requests(pictures))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_seq_length": 16}, "says 16 image tokens, and its tower gives 9"),
        ({"image_token_index": 4000}, "the image token 4000 of .* is not in its tokenizer"),
        ({"image_token_index": None}, "the image token None of"),
        ({"image_token_index": "<image>"}, "the image token '<image>' of"),
        ({"vision_config": None}, "has no object 'vision_config'"),
        ({"vision_config": [1]}, "has no object 'vision_config'"),
        ({"vision_config": {"image_size": [24, 24]}}, r"has image_size = \[24, 24\] in vision_config"),
        ({"vision_config": {"image_size": 24, "patch_size": 0}}, "has patch_size = 0 in vision_config"),
        ({"vision_config": {"image_size": True}}, "has image_size = True"),
        ({"text_config": {"max_position_embeddings": "many"}}, "has max_position_embeddings = 'many'"),
    ],
)
def test_contradictions_of_a_folder(folder: Path, tmp_path: Path, changes: dict[str, object], sentence: str):
    odd = edited(folder, tmp_path / "odd", **changes)
    with pytest.raises(ModelError, match=sentence):
        setup_of(odd, load_tokenizer(odd))


def test_absent_numbers_of_a_tower_are_those_of_clip(folder: Path, tmp_path: Path):
    short = edited(
        folder, tmp_path / "short", vision_config={"model_type": "clip_vision_model"}, image_seq_length=None
    )
    setup = setup_of(short, load_tokenizer(short))
    assert (setup.size, setup.image_tokens) == (224, 49)


def test_a_tokenizer_without_a_chat_template(folder: Path, tmp_path: Path):
    bare = edited(folder, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    stated = json.loads((bare / "tokenizer_config.json").read_text())
    del stated["chat_template"]
    (bare / "tokenizer_config.json").write_text(json.dumps(stated))
    with pytest.raises(ModelError, match="no chat template; name one with --conversation"):
        LocalGenerator.load(bare)
    assert LocalGenerator.load(bare, template="llava_v1").setup.template.name == "llava_v1"
