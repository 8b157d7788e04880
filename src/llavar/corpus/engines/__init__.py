"""OCR engines behind one protocol, a module for each; the name of the module is its name in a recipe.

Adding an engine means adding a module here with a function ``factory(models, languages)`` that gives an
:class:`EngineFactory`. Nothing is downloaded by any of them: models travel in a wheel, are installed by the
system, or lie in a folder that the user names.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llavar.errors import ConfigError
from llavar.records import Line

if TYPE_CHECKING:
    from PIL import Image


class Engine(Protocol):
    """An OCR engine that has loaded its models."""

    @property
    def name(self) -> str:
        """Engine and version, recorded with every reading."""
        ...

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        """Lines of an RGB picture, boxes in its pixels, in any order."""
        ...


class EngineFactory(Protocol):
    """Makes an engine inside a worker process; has to pickle. An engine's class is one."""

    @property
    def name(self) -> str:
        """As the name of the engine that it makes: equal names read equal lines."""
        ...

    def __call__(self) -> Engine:
        """Load the models. Raises MissingExtraError or ModelError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """An engine of a recipe."""

    name: str
    models: Path | None = None
    """Folder of its models; ``paddleocr`` and ``easyocr`` need one, ``tesseract`` takes the system's."""
    languages: tuple[str, ...] = ()
    """In the engine's own codes (``eng`` for tesseract, ``en`` for easyocr); empty means English."""

    def __post_init__(self) -> None:
        if self.name not in known():
            raise ConfigError(f"the OCR engine is {self.name!r}; known are {', '.join(known())}")
        strange = [code for code in self.languages if not code.replace("_", "").isalnum()]
        if strange:
            raise ConfigError(f"the language {strange[0]!r} is no code of a language; give 'eng', say")


def known() -> tuple[str, ...]:
    """Names of all engines, installed or not."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(name for name in names if not name.startswith("_"))


def factory(choice: EngineChoice) -> EngineFactory:
    """What makes the engine of a choice.

    Raises:
        MissingExtraError: its package is not installed.
        ConfigError: it needs a folder of models, or can take none.
        NotFoundError: there is no such folder.
        ModelError: the folder does not hold what the engine needs.
    """
    module = importlib.import_module(f"{__name__}.{choice.name}")
    return module.factory(choice.models, choice.languages)
