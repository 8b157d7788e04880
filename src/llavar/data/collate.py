"""Packs as tensors. ``Batch`` is the one torch type among the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llavar.errors import DataError
from llavar.records import IGNORE, Encoded, Pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some packs side by side.

    ``ids``, ``labels``, ``positions``: int64 (packs, length), filled up on the right with ``pad_id``,
    :data:`~llavar.records.IGNORE` and more positions. Positions start at 0 with every row, which is what
    keeps rows apart in attention; there is no attention mask.

    ``vision``: what the tower takes, fp32 (inputs, 3, size, size), or what it has already given
    (``is_features``), (images, tokens, width); in the order in which their placeholders stand in ``ids``. An
    image is one input, or several that follow each other where it is shown in tiles. None without images.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    vision: Tensor | None
    is_features: bool
    rows: int
    useful: int = 0
    """Tokens of all rows, without what the sequences were filled up with."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``; itself if it is there."""
        if self.ids.device == device and (self.vision is None or self.vision.device == device):
            return self
        return replace(
            self,
            ids=self.ids.to(device),
            labels=self.labels.to(device),
            positions=self.positions.to(device),
            vision=None if self.vision is None else self.vision.to(device),
        )

    @property
    def supervised(self) -> int:
        """Tokens that the loss is computed on. The first of a row is never one: nothing predicts it."""
        return int((self.targets != IGNORE).sum())

    @property
    def targets(self) -> Tensor:
        """(packs, length - 1): what each position has to predict; nothing across the border of two rows."""
        return self.labels[:, 1:].masked_fill(self.positions[:, 1:] == 0, IGNORE)


def collate(
    packs: Sequence[Pack], *, pad_id: int, vision: Tensor | None, is_features: bool = False, multiple: int = 1
) -> Batch:
    """Lay ``packs`` out as one batch, as long as the longest of them, rounded up to ``multiple``."""
    if not packs or not all(pack.rows for pack in packs):
        raise DataError("a batch needs at least one pack, and every pack at least one row")
    longest = max(len(pack) for pack in packs)
    longest += -longest % multiple
    ids = torch.full((len(packs), longest), pad_id)
    labels = torch.full((len(packs), longest), IGNORE)
    positions = torch.zeros((len(packs), longest), dtype=torch.long)
    for index, pack in enumerate(packs):
        length = len(pack)
        ids[index, :length] = torch.tensor([token for row in pack.rows for token in row.ids])
        labels[index, :length] = torch.tensor([label for row in pack.rows for label in row.labels])
        positions[index] = _positions(pack.rows, longest)
    rows = sum(len(pack.rows) for pack in packs)
    return Batch(
        ids=ids,
        labels=labels,
        positions=positions,
        vision=vision,
        is_features=is_features,
        rows=rows,
        useful=sum(len(pack) for pack in packs),
    )


def _positions(rows: Sequence[Encoded], length: int) -> Tensor:
    """Counts from 0 for every row; what is left empty counts on where it follows a single row.

    A single row then looks like plain padding, for which attention needs no mask at all: it is causal, and
    nothing that counts comes after.
    """
    if len(rows) == 1:
        return torch.arange(length)
    parts = [torch.arange(len(row)) for row in rows]
    empty = length - sum(len(row) for row in rows)
    return torch.cat([*parts, torch.arange(empty)])
