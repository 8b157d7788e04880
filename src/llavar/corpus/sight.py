"""What stages ask of models that look at pictures, without knowing who runs them.

This layer imports neither torch nor transformers: whoever runs a recipe that names models hands in a
:class:`Sight` (:mod:`llavar.models.sight` has the one of Hugging Face's models).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llavar.corpus.crew import Maker
from llavar.corpus.item import Item
from llavar.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Scorer = Callable[[Image], float]
    """A picture's probability, 0 to 1."""
    Encoder = Callable[[Image], NDArray[np.float32]]
    """A picture's features (D,), of unit length."""
    Captioner = Callable[[Image], str]
    """What a picture shows, in a sentence."""


class Sight(Protocol):
    """Models by their id on a hub or their folder. Makers load in worker processes; their names say which
    weights, so that other ones redo a stage.
    """

    def classifier(self, model: str, label: str, device: str) -> Maker[Scorer]: ...

    def encoder(self, model: str, device: str) -> Maker[Encoder]: ...

    def captioner(self, model: str, device: str) -> Maker[Captioner]: ...


def required(sight: Sight | None, model: str) -> Sight:
    """Raises ConfigError: a model is wanted and nobody runs one."""
    if sight is None:
        raise ConfigError(f"the recipe names the model {model!r}, and no models were handed in to run it")
    return sight


def device_of(model: object) -> str:
    """Where a model runs that its maker loads; makers without a device load what runs on the CPU.

    A stage that has a ``device`` gets a GPU for each of its processes on a cluster, if that is ``cuda``.
    """
    return str(getattr(model, "device", "cpu"))


def picture_of(item: Item, root: Path) -> Image:
    """The upright RGB picture of an item. Raises ImageError, NotFoundError, OSError."""
    from llavar.images import open_image

    name = item.file.path if item.file is not None else item.origin.path
    return open_image(root / name, called=name)  # a corpus in another place gives the same rejects
