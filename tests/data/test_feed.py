from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from llavar import chat
from llavar.data.feed import Feed, FeedConfig, Loader
from llavar.data.index import HeldRows
from llavar.data.mixture import Entry, mix
from llavar.data.pack import order, plan
from llavar.data.rows import Encoder, LazyRows, measure
from llavar.data.vision import PixelFolder
from llavar.errors import ConfigError, ImageError
from llavar.images import Transform
from llavar.models.tokenizer import nano_tokenizer
from llavar.records import Conversation, Encoded, Example

ROWS = [
    Encoded(
        id=f"r{n}", ids=tuple(range(3, 9 + n)), labels=tuple(range(3, 9 + n)), images=("a.png",) * (n % 3)
    )
    for n in range(9)
]
CONFIG = FeedConfig(batch=4, parts=2, capacity=64)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called in a worker is found there by its module's name."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))


@pytest.fixture
def pictures(tmp_path: Path) -> PixelFolder:
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    return PixelFolder(tmp_path, transform=Transform.PAD, size=16)


@given(
    lengths=st.lists(st.integers(1, 30), max_size=80),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
    window=st.integers(1, 50),
)
@settings(deadline=None)
def test_the_order_is_that_of_packs_of_one_row(lengths: list[int], seed: int, epoch: int, window: int):
    packs = plan(lengths, 30, seed=seed, epoch=epoch, window=window, most=1).packs
    found = order(np.array(lengths, np.int32), 30, seed=seed, epoch=epoch, window=window)
    assert found.tolist() == [row for (row,) in packs]


def test_a_row_beyond_the_capacity_is_an_error():
    with pytest.raises(ConfigError, match="row 1 has 9 tokens and a pack holds 5"):
        order(np.array([3, 9], np.int32), 5)


def same(one: Sequence[object], other: Sequence[object]) -> bool:
    def flat(batches: Sequence[object]) -> list[Tensor]:
        names = ("ids", "labels", "positions", "vision")
        found = [getattr(batch, name) for batch in batches for name in names]
        return [torch.zeros(0) if tensor is None else tensor for tensor in found]

    return all(torch.equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


def test_workers_change_no_bit_and_steps_may_be_asked_for_in_any_order(pictures: PixelFolder):
    feed = Feed(ROWS, pictures, CONFIG, pad_id=0)
    loader = Loader(feed, workers=2)
    torch.manual_seed(3)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    with loader.until(9):
        for step in (0, 1, 2, 3, 7, 8):
            assert same(loader.batches(step), feed.batches(step))
    assert torch.equal(torch.rand(3), drawn)  # nothing is drawn from the run's generator
    assert loader._pool is None


def test_a_broken_picture_is_told_with_its_row_from_a_worker_too(pictures: PixelFolder, tmp_path: Path):
    (tmp_path / "a.png").write_text("no picture")
    loader = Loader(Feed(ROWS, pictures, CONFIG, pad_id=0), 1)
    with (
        loader.until(3),
        pytest.raises(ImageError, match="the picture of row 'r.' cannot be used: .*bad-images"),
    ):
        loader.batches(0)


def test_a_mixture_says_what_an_epoch_holds(pictures: PixelFolder):
    tokenizer = nano_tokenizer()
    source = HeldRows(
        [Example(id=f"r{n}", conversation=Conversation.of("Q", "A" * (n + 1))) for n in range(10)]
    )
    encoder = Encoder(tokenizer=tokenizer, template=chat.get("llava_v1"), image_tokens=4, max_length=300)
    lengths = measure(source, encoder).lengths
    rows = LazyRows(
        [source],
        encoder,
        numbers=np.arange(10),
        lengths=lengths,
        pictures=lengths * 0,
        marks=[""],
        mixture=mix([4, 6], [Entry(path="a", epochs=2), Entry(path="b", weight=0.5)]),
    )
    feed = Feed(rows, pictures, FeedConfig(batch=3, capacity=600), pad_id=0)
    assert (feed.rows_per_epoch, feed.steps_per_epoch, feed.epoch_plan().rows) == (11, 4, 11)
    for epoch in range(2):
        layouts = [feed.layout(step) for step in range(epoch * 4, epoch * 4 + 4)]
        seen = Counter(n for parts in layouts for part in parts for pack in part for n in pack)
        assert all(seen[n] == 2 for n in range(4))
        assert sum(seen[n] for n in range(4, 10)) == 3
    assert (
        feed.epoch_plan().tokens == sum(int(lengths[n]) for n in rows.mixture.epoch(0)) if rows.mixture else 0
    )


def test_settings_that_cannot_work(pictures: PixelFolder):
    with pytest.raises(ConfigError, match="no row to train on"):
        Feed([], pictures, CONFIG, pad_id=0)
    with pytest.raises(ConfigError, match="2 micro-batches and there are 3 processes"):
        Feed(ROWS, pictures, CONFIG, pad_id=0, size=3)
