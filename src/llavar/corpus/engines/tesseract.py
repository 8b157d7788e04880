"""Tesseract through tesserocr: quick, good on flat text, poor on text in photographs.

Its wheel carries the program and no language data; the system's package does (Debian:
``tesseract-ocr-eng``), or a folder that the recipe names.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llavar.corpus.engines import EngineFactory
from llavar.corpus.engines._shared import digest, hull, require, require_folder, share, version
from llavar.errors import ModelError
from llavar.records import Line

if TYPE_CHECKING:
    from PIL import Image

_ENDING = ".traineddata"
_SYSTEM = ("/usr/share/tesseract-ocr/*/tessdata", "/usr/share/tessdata", "/usr/local/share/tessdata",
           "/opt/homebrew/share/tessdata")  # fmt: skip


def factory(models: Path | None, languages: tuple[str, ...]) -> EngineFactory:
    """Raises MissingExtraError, NotFoundError, ModelError: tesserocr, the folder or a language is missing."""
    require("tesserocr", "'llavar[tesseract]'")
    languages = languages or ("eng",)
    folder = _system(languages) if models is None else require_folder(models, "tesseract", f"*{_ENDING}")
    files = [folder / (code + _ENDING) for code in languages]
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise ModelError(
            f"Tesseract has no {missing.name} in {folder}: put it there, or install it "
            f"(Debian: apt-get install tesseract-ocr-{missing.name[:3]})"
        )
    name = f"tesseract {version('tesserocr')} {'+'.join(languages)} {digest(files)}"
    return Tesseract(name=name, folder=folder, languages=languages)


def _system(languages: tuple[str, ...]) -> Path:
    """Where the system keeps language data: the first folder that has all of it."""
    places = [Path(os.environ["TESSDATA_PREFIX"])] if "TESSDATA_PREFIX" in os.environ else []
    for pattern in _SYSTEM:
        places += sorted(Path("/").glob(pattern[1:]), reverse=True)
    for place in places:
        if all((place / (code + _ENDING)).is_file() for code in languages):
            return place
    raise ModelError(
        f"Tesseract's language data for {'+'.join(languages)} is in no usual place: install it (Debian: "
        "apt-get install tesseract-ocr-eng), or name its folder, as  {name: tesseract, models: DIR}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tesseract:
    """Makes the engine; ``folder`` holds the data of ``languages``."""

    name: str
    folder: Path
    languages: tuple[str, ...]

    def __call__(self) -> TesseractEngine:
        return TesseractEngine(self)


class TesseractEngine:
    """Tesseract on one thread. A picture is doubled in size first, for letters of 9 pixels."""

    scale = 2

    def __init__(self, made: Tesseract) -> None:
        os.environ["OMP_THREAD_LIMIT"] = "1"  # read when the library is loaded
        self.name = made.name
        self._lib: Any = importlib.import_module("tesserocr")  # by name: it is an extra, and has no types
        try:
            self._api: Any = self._lib.PyTessBaseAPI(
                path=str(made.folder), lang="+".join(made.languages), psm=self._lib.PSM.AUTO
            )
        except RuntimeError as error:
            raise ModelError(
                f"Tesseract cannot use its data in {made.folder} ({error}): install it again"
            ) from error
        self._api.SetVariable("debug_file", "/dev/null")  # it guesses resolutions aloud

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        """Lines with boxes in pixels of ``image``."""
        larger = (image.width * self.scale, image.height * self.scale)
        self._api.SetImage(image.convert("RGB").resize(larger))
        self._api.SetSourceResolution(150)
        if not self._api.Recognize():
            raise RuntimeError("Tesseract gave up")
        return tuple(self._lines(image.size))

    def _lines(self, size: tuple[int, int]) -> Iterator[Line]:
        level, found = self._lib.RIL.TEXTLINE, self._api.GetIterator()
        if found is None:
            return
        for place in self._lib.iterate_level(found, level):
            box = place.BoundingBox(level)
            if box is None or place.Empty(level):
                continue
            try:
                text = " ".join(place.GetUTF8Text(level).split())
            except RuntimeError:  # what it says of a line in which it read nothing
                continue
            left, top, right, bottom = (edge / self.scale for edge in box)
            if text:
                corners = ((left, top), (right, bottom))
                yield Line(
                    text=text, box=hull(corners, size), confidence=share(place.Confidence(level) / 100)
                )
