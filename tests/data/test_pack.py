from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.data.pack import PackPlan, first_fit, plan
from llavar.errors import ConfigError

LENGTHS = st.lists(st.integers(1, 50), max_size=120)


@given(
    lengths=LENGTHS,
    capacity=st.integers(50, 120),
    window=st.integers(1, 60),
    most=st.integers(1, 8),
    epoch=st.integers(0, 3),
)
@settings(deadline=None)
def test_every_row_is_in_exactly_one_pack(
    lengths: list[int], capacity: int, window: int, most: int, epoch: int
):
    planned = plan(lengths, capacity, epoch=epoch, window=window, most=most)
    assert sorted(chain.from_iterable(planned.packs)) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in pack) <= capacity for pack in planned.packs)
    assert all(1 <= len(pack) <= most for pack in planned.packs)
    assert planned.tokens == sum(lengths)
    assert 0 <= planned.padding < 1
    assert planned == plan(list(lengths), capacity, epoch=epoch, window=window, most=most)


@given(lengths=LENGTHS, capacity=st.integers(50, 100))
@settings(deadline=None)
def test_no_two_packs_of_a_window_could_have_been_one(lengths: list[int], capacity: int):
    # First fit leaves at most one pack half empty; with one window that holds for the whole plan.
    filled = [sum(lengths[row] for row in pack) for pack in plan(lengths, capacity, window=200).packs]
    assert sum(total <= capacity / 2 for total in filled) <= 1


def test_a_plan_is_the_same_on_every_machine():
    assert plan([5, 9, 2, 7, 7, 1, 4], 10, seed=1, epoch=2).packs == ((0, 6), (3, 2), (4,), (1, 5))


def test_seed_and_epoch_change_the_order_and_nothing_else_does():
    lengths = [(37 * n) % 50 + 1 for n in range(300)]
    plans = [plan(lengths, 64, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({item.packs for item in plans}) == 4
    # Not even the lengths: rows with one length each come in the order of the seed.
    assert plan([3] * 50, 3).packs == plan([4] * 50, 4).packs


def test_little_is_left_empty_and_packs_stay_random():
    lengths = [(7919 * n) % 97 + 4 for n in range(2000)]
    planned = plan(lengths, 256, seed=3)
    assert planned.padding < 0.03
    places = {row: at for at, pack in enumerate(planned.packs) for row in pack}
    # The first rows of the data are spread over the whole epoch, and so are the longest ones.
    early = [places[row] for row in range(200)]
    long = [places[row] for row in range(2000) if lengths[row] > 90]
    for chosen in (early, long):
        middle = sum(chosen) / len(chosen) / len(planned.packs)
        assert 0.4 < middle < 0.6


def test_a_row_that_fits_nowhere_is_an_error():
    with pytest.raises(ConfigError, match="row 2 has 11 tokens and a pack holds 10; raise the capacity"):
        plan([3, 10, 11, 4], 10)
    assert plan([10], 10).packs == ((0,),)


def test_nothing_gives_an_empty_plan():
    assert plan([], 10) == PackPlan(packs=(), capacity=10, tokens=0)
    assert plan([], 10).padding == 0


def test_padding_is_the_share_of_the_capacity_that_stays_empty():
    assert PackPlan(packs=((0,), (1, 2)), capacity=10, tokens=15).padding == pytest.approx(0.25)


@given(lengths=LENGTHS)
@settings(deadline=None)
def test_one_row_a_pack_is_the_longest_first(lengths: list[int]):
    packs = first_fit(range(len(lengths)), lengths, 50, most=1)
    assert sorted(packs) == [(row,) for row in range(len(lengths))]
    assert [lengths[row] for (row,) in packs] == sorted(lengths, reverse=True)
