"""What the decoder sees of pictures, kept for the questions that come soon after one another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from llavar.models import steps

Pixels = Callable[[], NDArray[np.float32]] | Tensor
"""Makes (views, 3, size, size) of a picture, or (3, size, size); called for those alone that are new. Or what
:meth:`Features.kept` gave of it, for a picture that may be forgotten by then."""


class Features:
    """Features of the last ``remember`` pictures, by their fingerprints. Of one thread at a time."""

    def __init__(self, model: nn.Module, device: torch.device, *, remember: int) -> None:
        self._model, self._device, self._remember = model, device, remember
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self.encoded = 0
        """How many pictures went through the tower."""
        self.reused = 0
        """How many more were asked for."""

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def clear(self) -> None:
        self._kept.clear()

    def kept(self, name: str) -> Tensor | None:
        """(views, image tokens, text width) of a picture that is remembered. From any thread."""
        return self._kept.get(name)

    def of(self, names: list[str], pixels: Mapping[str, Pixels]) -> Tensor | None:
        """(N, image tokens, text width) of N views, those of a picture one after the other.

        Pictures that are new are encoded together.
        """
        if not names:
            return None
        new: list[str] = []
        made: list[NDArray[np.float32]] = []
        for name in dict.fromkeys(name for name in names if name not in self._kept):
            source = pixels[name]
            if isinstance(source, Tensor):
                self._kept[name] = source
            else:
                new.append(name)
                made.append(source())
        if new:
            views = [one if one.ndim > 3 else one[None] for one in made]
            stacked = torch.as_tensor(np.concatenate(views)).to(self._device)
            found = steps.features(self._model, stacked)
            self.encoded += len(new)
            first = 0
            for name, one in zip(new, views, strict=True):
                self._kept[name] = found[first : first + len(one)]
                first += len(one)
        self.reused += len(names) - len(new)
        for name in names:
            self._kept.move_to_end(name)
        seen = torch.cat([self._kept[name] for name in names])
        while len(self._kept) > self._remember:
            self._kept.popitem(last=False)
        return seen
