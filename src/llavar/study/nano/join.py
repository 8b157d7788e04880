"""Bring the tower's features into a linear reach of what the decoder knows: its symbols.

The decoder learned on grids whose cells are sums of embeddings, the tower to tell letters apart by any
features that do. A linear projector can carry one into the other only as far as the features allow it, so the
tower goes on under a second demand: through a linear layer its patches are to equal the decoder's embedding
of what they show. It plays the part of CLIP's training against texts, whose features speak of words too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from llavar.render import grid as grids
from llavar.study.nano.decoder import SymbolTables
from llavar.study.nano.tower import (
    DenseHead,
    DenseObjective,
    Seen,
    TowerData,
    characters_loss,
    features,
    show,
)

_EMPTY = 0.3
"""How much a patch without characters counts."""


class JoinObjective(DenseObjective):
    """Tower, head and a linear layer that is to reach the embeddings of ``tables``, which stay as they are.

    The layer is given features divided by ``scale``, which makes them as large as the embeddings when this is
    made. Training leaves them a hundred times larger, and a layer between the two would need weights smaller
    than a step of any usual learning rate.
    """

    def __init__(
        self, tower: nn.Module, head: DenseHead, linear: nn.Linear, tables: SymbolTables, data: TowerData
    ) -> None:
        super().__init__(tower, head, data)
        self.linear, self.tables = linear, tables
        self.scale = self._scale()
        letters = (tables.tables[half].get_parameter("weight").detach() for half in (0, 1))
        self._spread = sum(float(table.var(0).sum()) for table in letters)

    def parts(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        return {**super().parts(), "projector": dict(self.linear.named_parameters())}

    def loss(self, batch: Seen) -> Tensor:
        seen = features(self.tower, batch.pixels)
        reached = self.linear(seen / self.scale).float().flatten(0, 1)
        apart = (reached - self._wanted(batch.truth)).square().sum(-1) / self._spread
        held = (batch.truth[..., :2] != grids.BLANK).any(-1).flatten()
        return characters_loss(self.head(seen), batch.truth) + torch.where(held, apart, _EMPTY * apart).sum()

    @torch.no_grad()
    def _wanted(self, truth: Tensor) -> Tensor:
        """(n, patches, 6) -> (n * patches, width): the embeddings of what patches show."""
        return self.tables(truth.flatten(0, 1), 0.0)

    @torch.no_grad()
    def _scale(self) -> float:
        seen = show(self.data, range(self.data.batch))
        return float(features(self.tower, seen.pixels).std() / self._wanted(seen.truth).std())
