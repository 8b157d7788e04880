"""The fast shuffle is ``random.shuffle``: orders of runs that were begun stay what they are."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.data import shuffle
from llavar.data.pack import order
from llavar.data.shuffle import Draws, shuffled


def plain(count: int, seed: str, times: int = 1) -> list[int]:
    rng, numbers = random.Random(seed), list(range(count))
    for _ in range(times):
        rng.shuffle(numbers)
    return numbers


def fast(count: int, seed: str, times: int = 1) -> list[int]:
    draws, numbers = Draws(seed), np.arange(count)
    for _ in range(times):
        numbers = shuffled(numbers, draws)
    return numbers.tolist()


@given(st.integers(0, 300), st.text(max_size=8), st.integers(1, 3))
@settings(deadline=None)
def test_the_order_is_that_of_random(count: int, seed: str, times: int):
    assert fast(count, seed, times) == plain(count, seed, times)


@pytest.mark.parametrize("count", [8191, 8192, 8193, 16_384, 30_000, 65_537, 140_000])
def test_long_orders_too_where_words_are_drawn_in_pieces(count: int):
    assert fast(count, f"pack:0:{count}", 2) == plain(count, f"pack:0:{count}", 2)


@pytest.mark.parametrize("words", [1, 2, 7, 64])
def test_how_many_words_are_drawn_at_once_changes_nothing(words: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shuffle, "_WORDS", words)
    assert fast(700, "s", 2) == plain(700, "s", 2)


def test_what_was_given_is_left_alone():
    numbers = np.arange(5)[::-1]
    assert sorted(shuffled(numbers, Draws("s")).tolist()) == [0, 1, 2, 3, 4]
    assert numbers.tolist() == [4, 3, 2, 1, 0]
    assert shuffled(numbers, Draws("s")).flags.writeable


def test_the_order_of_an_epoch_is_pinned():
    lengths = (np.arange(3000) * 7919 % 501 + 20).astype(np.int32)
    found = order(lengths, 1024, seed=3, epoch=2)
    assert sorted(found.tolist()) == list(range(3000))
    assert hashlib.sha256(found.astype("<i8").tobytes()).hexdigest()[:16] == "f5d2631f77b9ad31"
