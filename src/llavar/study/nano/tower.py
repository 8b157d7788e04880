"""Teach a CLIP vision tower to see letters, by dense supervision.

A linear head names the characters of both half-cells of every patch, the colour and the ornament there
(:mod:`llavar.render.grid`). The renderer knows all of it, so it costs nothing; it plays the part that
pre-training on the web plays for the real tower. The head is thrown away afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from llavar.render import grid as grids
from llavar.render.layouts import Style, page, scene
from llavar.study.nano.scenes import pixels, varied
from llavar.train.loop import Size

_SHARES = (1.0, 1.0, 0.1, 0.1, 0.05, 0.05)
"""How much each of a cell's six numbers counts in the loss."""


class Seen(NamedTuple):
    """Pictures and their truth. ``pixels``: fp32 (n, 3, size, size); ``truth``: int64 (n, patches, 6)."""

    pixels: Tensor
    truth: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerData:
    """What the tower is shown.

    ``pages`` is the share of pictures that are full of text; ``varied`` lets letters differ from the fonts'.
    """

    size: int = 96
    patches: int = 12
    batch: int = 32
    pages: float = 0.75
    varied: bool = True
    seed: str = "tower"


class DenseHead(nn.Module):
    """Names what each patch holds (two characters, colour, ornament) and where it is (row, column)."""

    def __init__(self, width: int, patches: int) -> None:
        super().__init__()
        self.widths = grids.widths(patches)
        self.linear = nn.Linear(width, sum(self.widths))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """``features`` (n, patches, width) -> six logits (n, patches, classes)."""
        return self.linear(features).split(self.widths, dim=-1)


class DenseObjective:
    """Tower and head, trained on scenes and pages drawn afresh in every step."""

    def __init__(self, tower: nn.Module, head: DenseHead, data: TowerData) -> None:
        self.tower, self.head, self.data = tower, head, data

    def parts(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        return {"tower": dict(self.tower.named_parameters()), "head": dict(self.head.named_parameters())}

    def batches(self, step: int) -> Sequence[Seen]:
        return (show(self.data, range(step * self.data.batch, (step + 1) * self.data.batch)),)

    def size(self, batch: Seen) -> Size:
        n, patches, _ = batch.truth.shape
        return Size(samples=n, tokens=n * patches, supervised=n * patches)

    def loss(self, batch: Seen) -> Tensor:
        return characters_loss(self.head(features(self.tower, batch.pixels)), batch.truth)


def characters_loss(logits: Sequence[Tensor], truth: Tensor) -> Tensor:
    """Sum of the losses of the head's six ``logits`` against ``truth``, int64 (n, patches, 6)."""
    # Empty half-cells are most of them, and easy.
    characters = torch.ones(grids.CLASSES)
    characters[grids.BLANK] = 0.15
    total = torch.zeros(())
    for i, (part, share) in enumerate(zip(logits, _SHARES, strict=True)):
        weight = characters if i < 2 else None
        wanted = truth[..., i].flatten()
        total = total + share * cross_entropy(part.float().flatten(0, 1), wanted, weight, reduction="sum")
    return total


def features(tower: nn.Module, seen: Tensor) -> Tensor:
    """(n, 3, size, size) -> (n, patches, width): the last layer's patches, without the class token."""
    return tower(seen, output_hidden_states=True).hidden_states[-1][:, 1:]


def show(data: TowerData, samples: Sequence[int]) -> Seen:
    """Draw ``samples``; each is a function of its number and the seed alone."""
    shown, truth = zip(*(_sample(data, index) for index in samples), strict=True)
    return Seen(torch.as_tensor(np.stack(shown)), torch.as_tensor(np.stack(truth)))


def _sample(data: TowerData, index: int) -> tuple[np.ndarray, np.ndarray]:
    style = Style(random_text=0.6, shapes=0.6, wild=0.3)
    seed = f"{data.seed}:{index}"
    drawn = page(seed, style) if index % 100 < 100 * data.pages else scene(seed, style)
    if data.varied:
        drawn = varied(drawn, seed)
    labels = grids.grid(drawn, data.patches).cells()
    return pixels(drawn, data.size, index), labels.reshape(-1, labels.shape[-1])


@torch.no_grad()
def accuracy(tower: nn.Module, head: DenseHead, seen: Seen) -> tuple[float, float, float]:
    """Share of characters (half-cells that hold one), colours and ornaments that are named rightly."""
    guess = [part.argmax(-1) for part in head(features(tower, seen.pixels))]
    letters = torch.stack(guess[:2], -1)
    held = seen.truth[..., :2] != grids.BLANK
    right = (letters == seen.truth[..., :2])[held].float().mean()
    colour = (guess[2] == seen.truth[..., 2]).float().mean()
    shapes = seen.truth[..., 3] != 0
    shape = (guess[3] == seen.truth[..., 3])[shapes].float().mean()
    return right.item(), colour.item(), shape.item()
