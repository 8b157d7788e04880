"""Keys and values of what a decoder has seen, for rows that come and go while others are continued.

All rows end in the same column. A row that is shorter than the longest one begins later, and what stands
before it is masked out. The stores have spare columns, so that a step writes one column instead of copying
all of them, and spare rows for those that join.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from llavar.errors import ModelError

_SPARE = 64
"""Columns at least that a store gets beyond those it needs; a quarter more where it is long."""


class Past:
    """What the decoder has seen: ``length`` columns of rows ``B``, per layer keys and values.

    ``mask`` (B, T) belongs to the first ``T`` tokens, which are about to come: zeros where there is only
    padding. None stands for no padding.
    """

    def __init__(self, *, mask: Tensor | None = None) -> None:
        self.length: int = 0
        self._start = 0  # column of the stores where the longest row begins
        self._rows: int = 0
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._mask = None if mask is None else mask.bool()  # (B, at least length); later columns are true
        self._next: Tensor | None = None  # (B, 1), the next position of each row; None where it is the length

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def unpadded(self) -> bool:
        """Whether all rows are as long as there are columns."""
        return self._mask is None

    # what a forward pass asks

    def places(self, new: int, device: torch.device) -> Tensor | None:
        """Positions (B, new) of the next tokens, or None where they are those of the columns."""
        if self._mask is None:
            return None
        if self._next is None:
            return (self._mask.long().cumsum(1) - 1).clamp(min=0)
        return self._next if new == 1 else self._next + torch.arange(new, device=device)

    def allowed(self, new: int, device: torch.device) -> Tensor | None:
        """Who may see whom (B or 1, 1, new, all), or None for everything so far."""
        total = self.length + new
        if self._mask is None:
            return None if new == 1 else _causal(self.length, new, device)
        if self._mask.shape[1] < total:
            self._mask = functional.pad(self._mask, (0, total + _SPARE - self._mask.shape[1]), value=True)
        mask = self._mask[:, None, None, :total]
        if new == 1 and self.length:
            return mask
        itself = torch.eye(total, dtype=torch.bool, device=device)[-new:]  # else padding sees nothing: NaN
        return _causal(self.length, new, device) & (mask | itself)

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, heads, T, width) of new tokens; gives all of them.

        Nothing counts as seen before :meth:`advance`, so that a pass that failed may be run again.
        """
        if not self.length:
            self._kept[layer], self._rows = (key, value), len(key)
            return key, value
        if self._kept[layer][0].shape[2] < self._start + self.length + key.shape[2]:
            self._more_columns(key.shape[2])  # of all layers, so that the first of them finds it first
        first, end = self._start, self._start + self.length + key.shape[2]
        keys, values = self._kept[layer]
        keys[: self._rows, :, first + self.length : end] = key
        values[: self._rows, :, first + self.length : end] = value
        return keys[: self._rows, :, first:end], values[: self._rows, :, first:end]

    def advance(self, new: int) -> None:
        """``new`` more tokens have been seen in every layer."""
        if self._mask is not None:
            if self._next is None:
                self._next = self._mask[:, : self.length + new].sum(1, keepdim=True)
            else:
                self._next += new
        self.length += new

    # rows that leave, come and are copied

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (indices) of the batch only; a row may be named more than once."""
        places = cast("list[int]", rows.tolist())  # pyright: ignore[reportUnknownMemberType]
        if _moves_down(places):
            for store in self._stores():
                for new, old in enumerate(places):
                    if new != old:
                        store[new] = store[old]
        else:
            self._kept = {layer: (key[rows], value[rows]) for layer, (key, value) in self._kept.items()}
        self._rows = len(places)
        if self._mask is not None:
            self._mask = self._mask[rows]
            self._next = None if self._next is None else self._next[rows]
            self._trim()

    def join(self, other: Past) -> None:
        """Take the rows of ``other`` in after these.

        Raises:
            ModelError: padding stands elsewhere than before a row.
        """
        length, rows = max(self.length, other.length), self._rows + other._rows
        mask = torch.cat([self._padded(length), other._padded(length)])
        self._make_room(rows, length - self.length)
        end = self._start + self.length
        start = end - length
        for layer, stores in self._kept.items():
            for store, come in zip(stores, other._kept[layer], strict=True):
                store[self._rows : rows, :, start : end - other.length] = 0
                seen = come[: other._rows, :, other._start : other._start + other.length]
                store[self._rows : rows, :, end - other.length : end] = seen
        self._rows, self._start, self.length = rows, start, length
        self._mask, self._next = mask, mask.sum(1, keepdim=True)
        self._trim()

    def row(self, row: int) -> Past:
        """A copy of one row, without its padding."""
        alone = Past()
        padding = 0 if self._mask is None else int(self._mask[row].int().argmax())
        first, end = self._start + padding, self._start + self.length
        alone._rows, alone.length = 1, end - first
        alone._kept = {
            layer: (key[row : row + 1, :, first:end].clone(), value[row : row + 1, :, first:end].clone())
            for layer, (key, value) in self._kept.items()
        }
        return alone

    def cut(self, length: int) -> Past:
        """The first ``length`` tokens of rows without padding, to be continued; this one stays as it is.

        No memory is copied before that: a store without spare columns is copied when it grows.
        """
        assert self._mask is None
        first, end = self._start, self._start + length
        before = Past()
        before._rows, before.length = self._rows, length
        before._kept = {
            layer: (key[: self._rows, :, first:end], value[: self._rows, :, first:end])
            for layer, (key, value) in self._kept.items()
        }
        return before

    @property
    def bytes(self) -> int:
        """Memory of the stores, spare places included."""
        return sum(store.numel() * store.element_size() for store in self._stores())

    # inside

    def _stores(self) -> Iterator[Tensor]:
        for key, value in self._kept.values():
            yield key
            yield value

    def _padded(self, length: int) -> Tensor:
        """The mask (B, length), padded on the left."""
        if self._mask is None:
            device = next(self._stores()).device
            mask = torch.ones(self._rows, self.length, dtype=torch.bool, device=device)
        else:
            mask = self._mask[:, : self.length]
            if bool((mask[:, 1:] < mask[:, :-1]).any()):
                raise ModelError("a batch that is joined by another has padding after its tokens, not before")
        return functional.pad(mask, (length - self.length, 0), value=False)

    def _make_room(self, rows: int, before: int) -> None:
        """Places for so many rows, and ``before`` columns of zeros before what is there."""
        first, end = self._start, self._start + self.length
        have = next(self._stores()).shape[0]
        if have >= rows and first >= before:
            for store in self._stores():
                store[: self._rows, :, first - before : first] = 0
            return
        held, spare = have if have >= rows else max(rows, 2 * have), _spare(before + self.length)
        self._kept = {
            layer: (
                _roomier(key[:, :, first:end], held, before, spare),
                _roomier(value[:, :, first:end], held, before, spare),
            )
            for layer, (key, value) in self._kept.items()
        }
        self._start = before

    def _more_columns(self, new: int) -> None:
        """Places for ``new`` columns after those that count. Those before are given up, or the stores would
        grow for as long as rows join and leave.
        """
        first, end, more = self._start, self._start + self.length, new + _spare(self.length + new)
        self._kept = {
            layer: (
                _roomier(key[:, :, first:end], len(key), 0, more),
                _roomier(value[:, :, first:end], len(value), 0, more),
            )
            for layer, (key, value) in self._kept.items()
        }
        self._start = 0

    def _trim(self) -> None:
        """Leave off columns in which no row has anything, and the mask where it masks nothing else."""
        assert self._mask is not None
        empty = int(self._mask[:, : self.length].any(0).int().argmax())
        if empty:
            self._start, self.length = self._start + empty, self.length - empty
            self._mask = self._mask[:, empty:]
        if bool(self._mask[:, : self.length].all()):
            self._mask = self._next = None


def _spare(columns: int) -> int:
    return max(_SPARE, columns // 4)


def _roomier(store: Tensor, rows: int, before: int, after: int) -> Tensor:
    """A copy with ``rows`` rows and so many more columns on either side, zeros in all that is new.

    Zeros, since what is masked out still takes part in products, where not-a-number would spread.
    """
    old, heads, columns, width = store.shape
    made = store.new_zeros(rows, heads, before + columns + after, width)
    made[:old, :, before : before + columns] = store
    return made


def _moves_down(places: Sequence[int]) -> bool:
    """Whether rows can be moved one after the other, none being overwritten before it has moved."""
    return len(set(places)) == len(places) and all(old >= new for new, old in enumerate(places))


def _causal(before: int, new: int, device: torch.device) -> Tensor:
    return torch.ones(new, before + new, dtype=torch.bool, device=device).tril(before)[None, None]
