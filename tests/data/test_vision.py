from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from llavar import images
from llavar.data.vision import FeatureStore, PixelFolder, unusable_pictures, vision_of
from llavar.errors import DataError, ImageError, NotFoundError
from llavar.images import Transform
from llavar.records import Encoded


class Counting:
    """Gives tensors that can be told apart, and remembers what it was asked for."""

    is_features = False

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def get(self, names: Sequence[str]) -> Tensor:
        self.asked.append(list(names))
        return torch.stack([torch.full((3, 2, 2), float(len(name))) for name in names])


def tower(pixels: Tensor) -> Tensor:
    assert not torch.is_grad_enabled()
    return pixels.flatten(1).unsqueeze(1).repeat(1, 4, 1) / 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (20, 10), colour).save(tmp_path / name)
    return tmp_path


def test_pictures_come_transformed_in_the_order_of_their_names(folder: Path):
    source = PixelFolder(folder, transform=Transform.PAD, size=16)
    given = source.get(["blue.png", "red.png", "blue.png"])
    assert (given.shape, given.dtype) == ((3, 3, 16, 16), torch.float32)
    expected = images.pixels(folder / "blue.png", transform=Transform.PAD, size=16)
    assert np.array_equal(given[0].numpy(), expected)
    assert torch.equal(given[0], given[2])
    assert not torch.equal(given[0], given[1])
    assert not source.is_features


def test_a_picture_that_is_missing_or_none_is_an_error(folder: Path):
    (folder / "text.png").write_text("no picture")
    source = PixelFolder(folder, transform=Transform.PAD, size=16)
    with pytest.raises(NotFoundError):
        source.get(["red.png", "none.png"])
    with pytest.raises(ImageError):
        source.get(["text.png"])


def test_features_are_computed_once_and_in_batches():
    source = Counting()
    store = FeatureStore(tower, source, batch=2)
    assert store.is_features
    assert store.add(["a", "bb", "a", "ccc"]) == 3
    assert source.asked == [["a", "bb"], ["ccc"]]
    assert store.add(["bb", "dddd"]) == 1
    assert source.asked[2:] == [["dddd"]]
    given = store.get(["ccc", "a", "ccc"])
    assert (given.shape, given.dtype) == ((3, 4, 12), torch.float32)
    assert given[:, 0, 0].tolist() == [1.0, pytest.approx(1 / 3, rel=0.004), 1.0]
    assert torch.equal(given, given.to(torch.bfloat16).float())


def test_features_that_were_never_added_are_an_error():
    store = FeatureStore(tower, Counting())
    store.add(["a"])
    with pytest.raises(NotFoundError, match="no features of 'b' are held; add the pictures"):
        store.get(["a", "b"])


def test_rows_without_pictures_ask_for_none():
    source = Counting()
    assert vision_of(source, []) is None
    assert source.asked == []


def test_a_source_that_loses_a_picture_is_found_out():
    class Losing(Counting):
        def get(self, names: Sequence[str]) -> Tensor:
            return super().get(names)[1:]

    assert vision_of(Counting(), ["a", "b"]) is not None
    with pytest.raises(DataError, match="2 pictures were asked for and 1 came back"):
        vision_of(Losing(), ["a", "b"])


@pytest.mark.parametrize("opened", [True, False])
def test_rows_with_unusable_pictures_are_named_by_their_place(folder: Path, opened: bool):
    (folder / "torn.png").write_bytes((folder / "red.png").read_bytes()[:40])
    listed = [("red.png",), (), ("blue.png", "none.png"), ("torn.png",), ("none.png",)]
    rows = [Encoded(id="same", ids=(1,), labels=(1,), images=images) for images in listed]
    found = unusable_pictures(rows, folder, opened=opened)
    reasons = {place: (reject.id, reject.reason) for place, reject in found.items()}
    gone = ("same", "no such picture")
    assert reasons == {2: gone, 4: gone} | ({3: ("same", "broken picture")} if opened else {})


def test_a_picture_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Path] = []
    monkeypatch.setattr(images, "open_image", seen.append)
    rows = [Encoded(id=str(n), ids=(1,), labels=(1,), images=("red.png",)) for n in range(3)]
    assert unusable_pictures(rows, folder, opened=True) == {}
    assert len(seen) == 1
