"""RapidOCR: PP-OCRv6 on ONNX Runtime; its models travel in its wheel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llavar.corpus.engines import EngineFactory
from llavar.corpus.engines._shared import hull, require, share, version
from llavar.errors import ConfigError, ModelError
from llavar.records import Line

if TYPE_CHECKING:
    from PIL import Image


def factory(models: Path | None, languages: tuple[str, ...]) -> EngineFactory:
    """Raises ConfigError: it takes no folder of models and no languages."""
    if models is not None or languages:
        raise ConfigError(
            "the OCR engine 'rapidocr' has its models and languages in its wheel: give it by its name alone"
        )
    return RapidOcr


class RapidOcr:
    """PP-OCRv6 through RapidOCR and ONNX Runtime on one thread; nothing is downloaded.

    Raises MissingExtraError if RapidOCR is not installed, ModelError if its wheel brought no models.
    """

    name: ClassVar[str] = f"rapidocr {version('rapidocr')}"
    detector: ClassVar[str] = "PP-OCRv6_det_small.onnx"
    recognizer: ClassVar[str] = "PP-OCRv6_rec_small.onnx"

    def __init__(self) -> None:
        require("rapidocr", "'llavar[ocr]'")
        import cv2  # comes with rapidocr
        import rapidocr

        cv2.setNumThreads(1)
        models = Path(rapidocr.__file__).parent / "models"
        self._engine: Any = rapidocr.RapidOCR(params=self._params(models))

    @classmethod
    def _params(cls, models: Path) -> dict[str, Any]:
        """RapidOCR's settings: about 0.9 s a photograph on one core, where its own defaults take several."""
        for name in (cls.detector, cls.recognizer):
            if not (models / name).is_file():
                raise ModelError(
                    f"the installed rapidocr ({version('rapidocr')}) has no {name} in {models}: "
                    f"install rapidocr >= 3.9.2, whose wheel carries it"
                )
        return {
            "Global.use_cls": False,
            "Global.text_score": 0.0,  # RapidOCR would drop lines in silence; confidence is filtered later
            "Global.log_level": "critical",
            "Det.limit_type": "max",
            "Det.limit_side_len": 960,
            # Paths instead of model names: given a name, RapidOCR may go to the network.
            "Det.model_path": str(models / cls.detector),
            "Rec.model_path": str(models / cls.recognizer),
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        """Lines with boxes in pixels of ``image``, each the upright hull of the engine's quadrilateral."""
        import cv2
        import numpy as np

        rgb = image if image.mode == "RGB" else image.convert("RGB")
        found = self._engine(cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2BGR))
        texts = getattr(found, "txts", None)
        if texts is None:
            return ()
        return tuple(
            Line(text=str(text), box=hull(quad, image.size), confidence=share(score))
            for text, quad, score in zip(texts, found.boxes.tolist(), found.scores, strict=True)
        )
