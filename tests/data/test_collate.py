from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.data.collate import Batch, collate
from llavar.errors import DataError
from llavar.records import IGNORE, Encoded, Pack

PAD = 99


def row(*ids: int, learn: int = 1) -> Encoded:
    """A row whose last ``learn`` tokens are supervised."""
    labels = (*(IGNORE for _ in ids[: len(ids) - learn]), *ids[len(ids) - learn :])
    return Encoded(id="r", ids=ids, labels=labels)


def batch(*packs: tuple[Encoded, ...], multiple: int = 1) -> Batch:
    return collate([Pack(rows=rows) for rows in packs], pad_id=PAD, vision=None, multiple=multiple)


def test_rows_stand_side_by_side_and_positions_start_again():
    made = batch((row(1, 2, 3), row(4, 5)), (row(6, 7, 8, 9),))
    assert made.ids.tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, PAD]]
    assert made.labels.tolist() == [[IGNORE, IGNORE, 3, IGNORE, 5], [IGNORE, IGNORE, IGNORE, 9, IGNORE]]
    assert made.positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]
    assert (made.rows, made.supervised) == (3, 3)
    assert {made.ids.dtype, made.labels.dtype, made.positions.dtype} == {torch.int64}


def test_what_is_empty_after_several_rows_is_a_row_of_its_own():
    made = batch((row(1, 2), row(3, 4)), (row(5, 6, 7, 8, 9, 10),))
    assert made.positions.tolist() == [[0, 1, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5]]


def test_the_first_token_of_a_row_is_never_a_target():
    made = batch((row(1, 2, learn=2), row(3, 4, 5, learn=3)))
    assert made.targets.tolist() == [[2, IGNORE, 4, 5]]
    assert made.supervised == 3
    assert batch((row(7, learn=1),)).supervised == 0


@given(
    lengths=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=4),
    multiple=st.integers(1, 8),
)
@settings(deadline=None)
def test_targets_are_the_following_labels_of_the_same_row(lengths: list[list[int]], multiple: int):
    count = iter(range(1, 1000))
    packs = [tuple(row(*(next(count) for _ in range(n)), learn=n) for n in sizes) for sizes in lengths]
    made = batch(*packs, multiple=multiple)
    assert made.ids.shape[1] % multiple == 0
    assert made.ids.shape[1] - max(sum(sizes) for sizes in lengths) < multiple
    for index, rows in enumerate(packs):
        expected = [label for item in rows for label in (*item.ids[1:], IGNORE)]
        given_targets = made.targets[index].tolist()
        assert given_targets[: len(expected)] == expected[: len(given_targets)]
        assert set(given_targets[len(expected) :]) <= {IGNORE}
        length = sum(len(item) for item in rows)
        assert made.ids[index, :length].tolist() == [token for item in rows for token in item.ids]
        assert set(made.ids[index, length:].tolist()) <= {PAD}
        assert made.positions[index, :length].tolist() == [p for item in rows for p in range(len(item))]


def test_lengths_are_rounded_up():
    assert batch((row(1, 2, 3),), multiple=8).ids.shape == (1, 8)
    assert batch((row(*range(8)),), multiple=8).ids.shape == (1, 8)


def test_an_empty_batch_or_pack_is_an_error():
    for packs in ((), ((),), ((row(1, 2),), ())):
        with pytest.raises(DataError, match="at least one pack, and every pack at least one row"):
            batch(*packs)


def test_pictures_and_their_kind_are_passed_on():
    vision = torch.zeros(2, 4, 8)
    made = collate([Pack(rows=(row(1, 2),))], pad_id=PAD, vision=vision, is_features=True)
    assert made.vision is vision
    assert made.is_features
    assert not batch((row(1, 2),)).is_features


def test_a_batch_moves_as_a_whole_and_stays_where_it_is():
    vision = torch.zeros(1, 3, 4, 4)
    made = collate([Pack(rows=(row(1, 2),))], pad_id=PAD, vision=vision)
    assert made.to(torch.device("cpu")) is made
    moved = made.to(torch.device("meta"))
    assert moved.vision is not None
    assert {t.device.type for t in (moved.ids, moved.labels, moved.positions, moved.vision)} == {"meta"}
    assert batch((row(1, 2),)).to(torch.device("meta")).vision is None
