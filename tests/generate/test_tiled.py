"""A checkpoint that sees pictures in tiles: asked here, and by the stock class with tiles cut by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llavar import chat, images
from llavar.errors import DataError, ModelError
from llavar.generate.base import Request
from llavar.generate.dialogue import Dialogue, Said
from llavar.generate.engine import Engine
from llavar.generate.local import LocalGenerator, setup_of
from llavar.generate.prompting import prepare
from llavar.images import WHOLE, Tiles, Transform
from llavar.models import _hf as hf
from llavar.models.card import pictures_in_tiles
from llavar.models.processor import TILES_KEY, read_tiles
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.models.tokenizer import load_tokenizer, nano_tokenizer
from llavar.records import Role

FOUR = Tiles(rows=2, columns=2)
QUESTIONS = ("What does it say?", "Read the second line of the sign.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that sees 2 x 2 tiles; its weights are large enough that pictures change its answers."""
    out, tokenizer = tmp_path_factory.mktemp("tiled") / "model", nano_tokenizer()
    shape = LlavaShape(
        vision=VisionShape(image_size=16, patch_size=8, hidden=16, layers=2, heads=2, mlp=24),
        text=TextShape(
            vocab=tokenizer.vocab_size, hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, max_positions=256
        ),
        image_token_id=tokenizer.image_patch_id,
        vision_feature_layer=-1,
    )
    model = hf.build_llava(shape, seed=5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(10)
    hf.save_llava(model, out, tiles=FOUR)
    tokenizer.save(out)
    return out


@pytest.fixture(scope="module")
def generator(folder: Path) -> LocalGenerator:
    return LocalGenerator.load(folder)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(7)
    return [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in ((40, 24), (24, 60))]


def ask(pictures: list[Image.Image]) -> list[Request]:
    return [
        Request(image=image, question=question, max_new_tokens=12, image_first=True)
        for image, question in zip(pictures, QUESTIONS, strict=True)
    ]


def test_the_folder_says_how_it_wants_to_be_asked(generator: LocalGenerator):
    assert generator.setup.tiles == FOUR
    assert (generator.setup.image_tokens, generator.setup.size) == (4, 16)
    assert generator.about["tiles"] == "2x2"


@pytest.mark.parametrize("lean", [True, False])
def test_answers_are_those_of_the_stock_class_with_tiles_cut_by_hand(
    folder: Path, pictures: list[Image.Image], lean: bool
):
    """The prompt is what the folder's own chat template writes for five pictures."""
    stock: Any = hf.load_stock(folder)
    tokenizer, loaded = load_tokenizer(folder), hf.load_llava(folder, lean=lean)
    ours = LocalGenerator(loaded, tokenizer, setup_of(folder, tokenizer), name="ours")
    for image, question, answer in zip(pictures, QUESTIONS, ours.answer(ask(pictures)), strict=True):
        large = images.view(image, transform="pad", size=32)
        corners = ((0, 0), (16, 0), (0, 16), (16, 16))
        shown = [images.view(image, transform="pad", size=16)]
        shown += [large.crop((x, y, x + 16, y + 16)) for x, y in corners]
        content = [{"type": "image"}] * 5 + [{"type": "text", "text": question}]
        text = hf.stock_tokenizer(folder).apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer.encode(text.replace(chat.IMAGE_PATCH, chat.IMAGE_PATCH * 4))
        made = stock.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            pixel_values=torch.as_tensor(np.stack([images.normalize(one) for one in shown])),
            max_new_tokens=12,
            do_sample=False,
        )[0, len(ids) :].tolist()
        end = made.index(tokenizer.eos_id) if tokenizer.eos_id in made else len(made)
        assert answer == chat.clean_answer(tokenizer.decode(made[:end]), ours.setup.template)


def test_a_batch_changes_no_answer_and_a_picture_is_encoded_once(
    generator: LocalGenerator, pictures: list[Image.Image]
):
    together = generator.answer(ask(pictures))
    generator.forget()
    assert together == [generator.answer([one])[0] for one in ask(pictures)]
    assert len(set(together)) == 2


def test_tiles_change_what_is_seen(folder: Path, generator: LocalGenerator, pictures: list[Image.Image]):
    """Two pictures whose small versions are equal, and whose tiles are not."""
    fine = np.indices((32, 32)).sum(axis=0) % 2 * 255
    checked = Image.fromarray(np.repeat(fine[..., None], 3, axis=2).astype(np.uint8))
    grey = Image.new("RGB", (32, 32), tuple(np.asarray(checked.resize((1, 1), Image.Resampling.BOX))[0, 0]))
    views = [images.views(one, tiles=FOUR, transform="pad", size=16) for one in (checked, grey)]
    near = np.abs(np.asarray(views[0][0], int) - np.asarray(views[1][0], int))[2:-2, 2:-2]
    assert near.max() <= 1
    assert np.abs(np.asarray(views[0][1], int) - np.asarray(views[1][1], int)).min() > 100


def test_places_of_a_conversation_span_all_views(generator: LocalGenerator, pictures: list[Image.Image]):
    said = Said(role=Role.USER, parts=(pictures[0], "first?", pictures[1], "second?"))
    prepared = prepare(Dialogue(turns=(said,)), generator.setup, generator.tokenizer)
    patch = generator.tokenizer.image_patch_id
    assert len(prepared.places) == len(prepared.pictures) == 2
    inside = [prepared.ids[start:end] for start, end in prepared.places]
    assert [ids.count(patch) for ids in inside] == [20, 20]
    assert all(ids[0] == ids[-1] == patch for ids in inside)
    assert prepared.ids.count(patch) == 40


def test_too_many_views_for_the_context_are_a_sentence(
    generator: LocalGenerator, pictures: list[Image.Image]
):
    with pytest.raises(DataError, match="exceed the 256"):
        generator.answer([Request(image=pictures[0], question="a" * 180, max_new_tokens=40)])


def test_a_folder_without_tiles_sees_one_picture(tmp_path: Path, folder: Path):
    hf.save_llava(hf.load_llava(folder), tmp_path / "m")
    assert read_tiles(tmp_path / "m") == WHOLE
    assert TILES_KEY not in json.loads((tmp_path / "m" / "preprocessor_config.json").read_text())


@pytest.mark.parametrize("value", ["2", "0x0", [2, 2], 4, True, "2x2\n"])
def test_tiles_that_cannot_be_are_an_error_of_the_folder(tmp_path: Path, folder: Path, value: object):
    document = json.loads((folder / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(document | {TILES_KEY: value}))
    with pytest.raises(ModelError, match="llavar_tiles"):
        read_tiles(tmp_path)


def test_the_card_says_how_stock_engines_are_given_the_views():
    told = pictures_in_tiles(FOUR, 96, Transform.PAD)
    assert "in 5 views of 96 x 96 pixels" in told
    assert "192 x 192\npixels" in told
    assert 'Tiles.parse("2x2"), transform="pad", size=96' in told
    assert pictures_in_tiles(WHOLE, 96, Transform.PAD) == ""
    shared = pictures_in_tiles(Tiles.parse("2x2+17%"), 96, Transform.PAD)
    assert "2 tiles, of which neighbours share 16 pixels, which are cut from" in shared
    assert "176 x 176\npixels" in shared


def test_people_see_the_tiles_that_the_model_sees(
    generator: LocalGenerator, pictures: list[Image.Image]
) -> None:
    with Engine(generator) as engine:
        shown = engine.seen(pictures[0])
    assert shown.size == (48, 32)
    views = images.views(pictures[0], tiles=FOUR, transform=Transform.PAD, size=16)
    places = [(0, 0), (16, 0), (32, 0), (16, 16), (32, 16)]
    for (x, y), view in zip(places, views, strict=True):
        assert shown.crop((x, y, x + 16, y + 16)).tobytes() == view.tobytes()
