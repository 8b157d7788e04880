"""EasyOCR, with models in a folder that the user names. One of the two engines of the paper's stage 2.

The adapter follows EasyOCR 1.7. Its models are not free to redistribute with a test suite, so it is tested
against a stand-in that gives results in EasyOCR's format.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llavar.corpus.engines import EngineFactory
from llavar.corpus.engines._shared import digest, hull, require, require_folder, share, version
from llavar.errors import ModelError
from llavar.records import Line

if TYPE_CHECKING:
    from PIL import Image


def factory(models: Path | None, languages: tuple[str, ...]) -> EngineFactory:
    """Raises MissingExtraError, ConfigError, NotFoundError, ModelError."""
    require("easyocr", "easyocr")
    folder = require_folder(models, "easyocr", "craft_mlt_25k.pth and english_g2.pth")
    files = list(folder.glob("*.pth"))
    if not files:
        raise ModelError(
            f"{folder} holds no *.pth: put EasyOCR's detector (craft_mlt_25k.pth) and a recogniser there"
        )
    languages = languages or ("en",)
    name = f"easyocr {version('easyocr')} {'+'.join(languages)} {digest(files)}"
    return EasyOcr(name=name, folder=folder, languages=languages)


@dataclass(frozen=True, slots=True, kw_only=True)
class EasyOcr:
    """Makes the engine; ``folder`` holds its ``.pth`` files, whose checksums EasyOCR checks by itself."""

    name: str
    folder: Path
    languages: tuple[str, ...]

    def __call__(self) -> EasyOcrEngine:
        return EasyOcrEngine(self)


class EasyOcrEngine:
    """EasyOCR on the CPU, with its defaults."""

    def __init__(self, made: EasyOcr) -> None:
        library: Any = importlib.import_module("easyocr")  # a package that brings no types
        self.name = made.name
        try:
            self._reader: Any = library.Reader(
                list(made.languages),
                gpu=False,
                model_storage_directory=str(made.folder),
                user_network_directory=str(made.folder),
                download_enabled=False,
                verbose=False,
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"EasyOCR cannot use the models in {made.folder}: {error}") from error

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        """Lines with boxes in pixels of ``image``, each the upright hull of the engine's quadrilateral."""
        import numpy as np

        found = self._reader.readtext(np.asarray(image.convert("RGB")))
        return tuple(
            Line(text=str(text), box=hull(quad, image.size), confidence=share(score))
            for quad, text, score in found
        )
