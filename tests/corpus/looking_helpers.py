"""Stand-ins for models that look at pictures, importable by name in worker processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from llavar.errors import ModelError


@dataclass(frozen=True)
class Redness:
    """A classifier: the share of red in a picture."""

    name: str = "redness 1"

    def __call__(self) -> Callable[[Image.Image], float]:
        return lambda image: float(np.asarray(image)[..., 0].mean() / 255)


@dataclass(frozen=True)
class MeanColour:
    """An encoder: the mean colour."""

    name: str = "mean colour 1"

    def __call__(self) -> Callable[[Image.Image], Any]:
        return lambda image: np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) / 255


@dataclass(frozen=True)
class Namer:
    """A captioner: says how dark the darkest pixel is, so that text that is left shows."""

    name: str = "namer 1"

    def __call__(self) -> Callable[[Image.Image], str]:
        return lambda image: f"  darkest\n{int(np.asarray(image).min())} "


class StandIns:
    """A sight that knows three models."""

    def classifier(self, model: str, label: str, device: str) -> Redness:
        if label != "red":
            raise ModelError(f"{model} has no label {label!r}; it has red")
        return Redness(name=f"{model} {label}")

    def encoder(self, model: str, device: str) -> MeanColour:
        return MeanColour(name=model)

    def captioner(self, model: str, device: str) -> Namer:
        return Namer(name=model)
