"""PaddleOCR, with models in a folder that the user names: the engine of the paper's stage 1.

The adapter follows PaddleOCR 3, whose models are folders with an ``inference.yml``; those of PaddleOCR 2 have
another layout and are refused. It is tested against a stand-in that gives results in PaddleOCR's format.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llavar.corpus.engines import EngineFactory
from llavar.corpus.engines._shared import digest, hull, require, require_folder, share, version
from llavar.errors import ConfigError, ModelError
from llavar.records import Line

if TYPE_CHECKING:
    from PIL import Image

_DETECTOR, _RECOGNISER, _ABOUT = "det", "rec", "inference.yml"


def factory(models: Path | None, languages: tuple[str, ...]) -> EngineFactory:
    """Raises MissingExtraError, ConfigError, NotFoundError, ModelError."""
    require("paddleocr", "paddleocr paddlepaddle")
    installed = version("paddleocr")
    if installed.partition(".")[0] in ("1", "2"):
        raise ModelError(f"PaddleOCR {installed} is installed and 3 or later is needed: install paddleocr>=3")
    folder = require_folder(models, "paddleocr", "the folders det and rec, each with an inference.yml")
    if languages:
        raise ConfigError("the languages of 'paddleocr' follow from its recognition model: leave them out")
    names = tuple(_model_name(folder / part) for part in (_DETECTOR, _RECOGNISER))
    files = [
        path for part in (_DETECTOR, _RECOGNISER) for path in (folder / part).iterdir() if path.is_file()
    ]
    name = f"paddleocr {installed} {'+'.join(names)} {digest(files)}"
    return PaddleOcr(name=name, folder=folder, models=names)


def _model_name(folder: Path) -> str:
    """What a model calls itself; PaddleOCR takes no folder without being told the name that stands in it."""
    import yaml

    path = folder / _ABOUT
    if not path.is_file():
        raise ModelError(f"there is no {path}: put an inference model of PaddleOCR 3 into {folder}")
    try:
        found: object = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        found = None
    about = cast("dict[str, object]", found).get("Global") if isinstance(found, dict) else None
    name = cast("dict[str, object]", about).get("model_name") if isinstance(about, dict) else None
    if not isinstance(name, str) or not name:
        raise ModelError(f"{path} does not say Global: model_name; get the model again")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddleOcr:
    """Makes the engine; ``models`` are the names of detector and recogniser in ``folder``."""

    name: str
    folder: Path
    models: tuple[str, ...]

    def __call__(self) -> PaddleOcrEngine:
        return PaddleOcrEngine(self)


class PaddleOcrEngine:
    """PaddleOCR on one CPU thread, without its stages that turn and unwarp documents."""

    def __init__(self, made: PaddleOcr) -> None:
        library: Any = importlib.import_module("paddleocr")  # a package that brings no types
        self.name = made.name
        try:
            self._engine: Any = library.PaddleOCR(
                text_detection_model_name=made.models[0],
                text_detection_model_dir=str(made.folder / _DETECTOR),
                text_recognition_model_name=made.models[1],
                text_recognition_model_dir=str(made.folder / _RECOGNISER),
                use_doc_orientation_classify=False,
                use_doc_unwarping=False,
                use_textline_orientation=False,
                text_rec_score_thresh=0.0,  # confidence is filtered later, and nothing dropped in silence
                device="cpu",
                cpu_threads=1,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"PaddleOCR cannot use the models in {made.folder}: {error}") from error

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        """Lines with boxes in pixels of ``image``, each the upright hull of the engine's quadrilateral."""
        import numpy as np

        bgr = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
        return tuple(line for page in self._engine.predict(bgr) for line in _lines(page, image.size))


def _lines(page: Any, size: tuple[int, int]) -> list[Line]:
    return [
        Line(text=str(text), box=hull(quad, size), confidence=share(score))
        for text, quad, score in zip(page["rec_texts"], page["rec_polys"], page["rec_scores"], strict=True)
    ]
