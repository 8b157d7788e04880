"""A small thing to train, which takes milliseconds: two linear layers with dropout between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from llavar.train.metrics import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """``x`` (n, 3) and how many of its rows are supervised."""

    x: Tensor
    supervised: int


class Toy:
    """Learns the sum of three numbers; ``hurt`` is called with the step and micro-batch before each loss."""

    def __init__(self, hurt: Callable[[int, int], None] | None = None) -> None:
        torch.manual_seed(11)
        self.body, self.drop, self.head = nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1)
        self.spare = nn.Linear(2, 2)
        self.hurt = hurt
        self.asked: list[int] = []
        self._at = (-1, -1)

    def parts(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        modules = {"body": self.body, "head": self.head, "spare": self.spare}
        return {name: dict(module.named_parameters()) for name, module in modules.items()}

    def batches(self, step: int) -> Sequence[Sums]:
        self.asked.append(step)
        self._at = (step, -1)
        generator = torch.Generator().manual_seed(step)
        return [Sums(x=torch.randn(4, 3, generator=generator), supervised=n) for n in (4, 1)]

    def size(self, batch: Sums) -> Size:
        return Size(samples=4, tokens=12, supervised=batch.supervised)

    def loss(self, batch: Sums) -> Tensor:
        self._at = (self._at[0], self._at[1] + 1)
        if self.hurt:
            self.hurt(*self._at)
        x = batch.x[: batch.supervised]
        guess = self.head(self.drop(torch.tanh(self.body(x))))
        return (guess[:, 0] - x.sum(1)).square().sum()

    def state(self) -> dict[str, Tensor]:
        return {
            f"{part}/{name}": parameter.detach().clone()
            for part, parameters in self.parts().items()
            for name, parameter in parameters.items()
        }


@pytest.fixture
def toy() -> type[Toy]:
    return Toy
