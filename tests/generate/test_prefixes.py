"""What is kept of earlier prompts: the longest common beginning is found, and memory is bounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.generate import prefixes as kept
from llavar.generate.prefixes import Keys, Prefixes, common
from llavar.models.past import Past


def keys(*values: int) -> Keys:
    return np.array(values, dtype=np.int64)


def past(length: int) -> Past:
    """One layer, one head of width 1, float32: 8 bytes to a token."""
    made = Past()
    made.extend(0, torch.zeros(1, 1, length, 1), torch.zeros(1, 1, length, 1))
    made.advance(length)
    assert made.bytes == 8 * length
    return made


tokens = st.lists(st.integers(-3, 3), max_size=8)


@settings(deadline=None)
@given(one=tokens, other=tokens)
def test_common_tokens(one: list[int], other: list[int]) -> None:
    shared = common(keys(*one), keys(*other))
    assert one[:shared] == other[:shared]
    assert shared == min(len(one), len(other)) or one[shared] != other[shared]


@settings(deadline=None)
@given(rows=st.lists(tokens.filter(bool), max_size=10), asked=tokens)
def test_the_longest_beginning_is_found(rows: list[list[int]], asked: list[int]) -> None:
    store = Prefixes(10**6)
    for row in rows:
        store.add(keys(*row), past(len(row)))
    longest = max((common(keys(*row), keys(*asked)) for row in rows), default=0)
    found = store.find(keys(*asked))
    assert (0 if found is None else found[1]) == longest
    assert found is None or found[0].length >= longest


def test_a_row_takes_the_place_of_those_it_continues() -> None:
    store = Prefixes(10**6)
    store.add(keys(1, 2), past(2))
    store.add(keys(5, 6, 7), past(3))
    store.add(keys(1, 2, 3), past(3))
    assert (len(store), store.bytes) == (2, 48)
    store.add(keys(5, 6), past(2))  # known already
    assert (len(store), store.bytes) == (2, 48)
    store.clear()
    assert (len(store), store.bytes) == (0, 0)
    assert store.find(keys(1)) is None


def test_what_was_used_longest_ago_goes_first() -> None:
    store = Prefixes(8 * 6)
    store.add(keys(1, 1), past(2))
    store.add(keys(2, 2), past(2))
    store.add(keys(3, 3), past(2))
    assert store.find(keys(1, 9)) is not None  # used now
    store.add(keys(4, 4), past(2))
    assert store.find(keys(2, 9)) is None
    assert store.find(keys(1, 9)) is not None
    store.add(keys(*range(9)), past(9))  # more than all of it
    assert (len(store), store.bytes) == (3, 48)


def test_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST", 3)
    store = Prefixes(10**6)
    for value in range(10):
        store.add(keys(value), past(1))
    assert len(store) == 3
    assert store.find(keys(9)) is not None
    assert store.find(keys(0)) is None
