"""Pictures in several views, from files to batches."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from llavar import chat, images
from llavar.data.encode import encode
from llavar.data.inspect import inspect
from llavar.data.inspect_page import write_page
from llavar.data.rows import Encoder
from llavar.data.source import RowError
from llavar.data.vision import FeatureStore, PixelFolder, vision_of
from llavar.images import Tiles, Transform
from llavar.models.tokenizer import nano_tokenizer
from llavar.records import Conversation, Example

FOUR = Tiles(rows=2, columns=2)
TOKENIZER = nano_tokenizer()


def row(*pictures: str, text: str = "What does it say?") -> Example:
    asked = "".join("<image>\n" for _ in pictures) + text
    return Example(id="r", images=pictures, conversation=Conversation.of(asked, "STOP"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("start_end", [True, False])
def test_a_picture_in_views_is_written_as_so_many_pictures(start_end: bool):
    """The ids are those of a row that names each view as a picture of its own."""
    template = chat.get("llava_v1")
    tiled = encode(row("a.png"), TOKENIZER, template, image_tokens=4, views=5, start_end=start_end)
    by_hand = encode(row(*"abcde"), TOKENIZER, template, image_tokens=4, start_end=start_end)
    assert tiled.ids == by_hand.ids
    assert tiled.labels == by_hand.labels
    assert tiled.images == ("a.png",)


def test_one_view_is_a_picture_as_before():
    template = chat.get("llava_v1")
    one = encode(row("a.png"), TOKENIZER, template, image_tokens=4, views=1)
    assert one == encode(row("a.png"), TOKENIZER, template, image_tokens=4)


def test_views_that_are_cut_and_placeholders_in_texts_are_refused():
    template = chat.get("llava_v1")
    with pytest.raises(RowError, match="its images end at token"):
        encode(row("a.png"), TOKENIZER, template, image_tokens=4, views=5, max_length=30)
    with pytest.raises(RowError, match="it holds 21 <im_patch> where its images take 20"):
        encode(row("a.png", text="<im_patch>"), TOKENIZER, template, image_tokens=4, views=5)


def test_encoders_of_other_views_have_other_keys():
    def known(**more: int) -> Encoder:
        return Encoder.known(
            TOKENIZER,
            "content",
            chat.get("llava_v1"),
            image_tokens=4,
            start_end=True,
            max_length=None,
            unknown=None,
            **more,
        )

    assert known().key == known(views=1).key != known(views=5).key
    assert len(known(views=5)(row("a.png"))) > len(known()(row("a.png")))


def test_the_views_of_all_pictures_follow_each_other(folder: Path):
    source = PixelFolder(folder, transform=Transform.PAD, size=8, tiles=FOUR)
    assert source.get(["a.png", "b.png"]).shape == (2, 5, 3, 8, 8)
    seen = vision_of(source, ["b.png", "a.png"])
    assert seen is not None
    expected = [
        images.view_pixels(folder / name, tiles=FOUR, transform="pad", size=8) for name in ("b.png", "a.png")
    ]
    assert np.array_equal(seen.numpy(), np.concatenate(expected))


def test_features_of_all_views_of_a_picture_are_kept_together(folder: Path):
    asked: list[int] = []

    def tower(pixels: Tensor) -> Tensor:
        asked.append(len(pixels))
        return pixels.flatten(1).unflatten(1, (4, -1))

    source = PixelFolder(folder, transform=Transform.PAD, size=8, tiles=FOUR)
    store = FeatureStore(tower, source)
    assert store.add(["a.png", "b.png", "a.png"]) == 2
    assert asked == [10]
    held = vision_of(store, ["b.png"])
    assert held is not None
    assert held.shape == (1, 20, 48)
    wanted = source.get(["b.png"]).flatten(0, 1).flatten(1).reshape(1, 20, 48)
    assert torch.equal(held, wanted.to(torch.bfloat16).float())


def test_inspect_counts_and_shows_every_view(folder: Path):
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "STOP"}]
    rows = folder / "rows.json"
    rows.write_text(json.dumps([{"id": "r", "image": "a.png", "conversations": talk}]))
    out = io.StringIO()
    template = chat.get("llava_v1")
    inspect(rows, tokenizer=TOKENIZER, template=template, image_tokens=4, views=5, out=out)
    assert out.getvalue().count("<im_patch>×4") == 5
    encoder = Encoder(tokenizer=TOKENIZER, template=template, image_tokens=4, views=5)
    page = folder / "rows.html"
    write_page(rows, page, encoder=encoder, pictures=folder, transform=Transform.PAD, size=16, tiles=FOUR)
    told = page.read_text()
    assert told.count("data:image/png") == 2
    assert "an overview and 2x2 tiles" in told
    assert "a.png in 2x2 tiles" in told
