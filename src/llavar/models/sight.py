# pyright: basic
"""Hugging Face models that look at pictures: classifiers, encoders, captioners.

Each is a small record that says what is to be loaded, travels to a worker process, and loads there when it is
called; torch and transformers are imported then, not before. Weights are read from safetensors alone, and no
code from a model's repository is ever run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llavar.errors import ConfigError, ModelError
from llavar.models.folder import resolve

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_CAPTION_TOKENS = 48


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """Finds models by a hub's id or a folder, and says how they are to be loaded.

    Every method raises NotFoundError, ModelError or FetchError where there is no such model; an id is
    fetched at once, so that no worker needs the network.
    """

    def classifier(self, model: str, label: str, device: str = "cpu") -> Classifier:
        labels = tuple(part.strip() for part in label.split(",") if part.strip())
        if not labels:
            raise ConfigError(f"no label of {model!r} is named; give the one that means text-rich")
        folder = resolve(model)
        name = f"{_called(model, folder)}: {', '.join(labels)}"
        return Classifier(name=name, folder=folder, labels=labels, device=device)

    def encoder(self, model: str, device: str = "cpu") -> ImageEncoder:
        folder = resolve(model)
        return ImageEncoder(name=_called(model, folder), folder=folder, device=device)

    def captioner(self, model: str, device: str = "cpu") -> ImageCaptioner:
        folder = resolve(model)
        return ImageCaptioner(name=_called(model, folder), folder=folder, device=device)


def _called(model: str, folder: Path) -> str:
    """A hub's id or the name of a folder, wherever that lies, with the digest of what it holds."""
    return f"{Path(model).name if Path(model).is_dir() else model} {_digest(folder)}"


def _digest(folder: Path) -> str:
    """Eight digits of the weights and documents of a folder."""
    held = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            held.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return held.hexdigest()[:8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """Loads an image classifier; it gives the summed probability of ``labels``."""

    name: str
    folder: Path
    labels: tuple[str, ...]
    device: str = "cpu"

    def __call__(self) -> Callable[[Image], float]:
        import torch

        processor, model, missing = _loaded("AutoImageProcessor", "AutoModelForImageClassification", self)
        _refuse(missing, "AutoModelForImageClassification", self.folder)
        places = _places(dict(model.config.id2label), self.labels, self.folder)
        several = model.config.problem_type == "multi_label_classification"

        def score(image: Image) -> float:
            with torch.inference_mode():
                inputs = processor(images=image, return_tensors="pt").to(self.device)
                logits = model(**inputs).logits[0].float()
            chances = logits.sigmoid() if several else logits.softmax(-1)
            return min(1.0, float(chances[places].sum()))

        return score


def _places(names: dict[Any, str], labels: tuple[str, ...], folder: Path) -> list[int]:
    by_name = {str(name).casefold(): int(place) for place, name in names.items()}
    missing = next((label for label in labels if label.casefold() not in by_name), None)
    if missing is not None:
        some = ", ".join(sorted(map(str, names.values()))[:20])
        raise ModelError(f"{folder} has no label {missing!r}; it has {some}")
    return [by_name[label.casefold()] for label in labels]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEncoder:
    """Loads an image encoder: of CLIP and its kin the projected features, of others the pooled ones."""

    name: str
    folder: Path
    device: str = "cpu"

    def __call__(self) -> Callable[[Image], NDArray[np.float32]]:
        import torch

        processor, model, missing = _loaded("AutoImageProcessor", "AutoModel", self)
        # Classifiers come without the layer that pools for others; the mean of their patches serves as well.
        _refuse([name for name in missing if not name.startswith("pooler.")], "AutoModel", self.folder)
        has_pooler = not missing

        def encode(image: Image) -> NDArray[np.float32]:
            with torch.inference_mode():
                inputs = processor(images=image, return_tensors="pt").to(self.device)
                two_towers = hasattr(model, "get_image_features")
                found = model.get_image_features(**inputs) if two_towers else model(**inputs)
                vector = _pooled(found, has_pooler=has_pooler)[0].float()
            return torch.nn.functional.normalize(vector, dim=0).cpu().numpy()

        return encode


def _pooled(found: Any, *, has_pooler: bool) -> Any:
    """(1, D) out of what a model gives: a tensor, an output with a pooled part, or a sequence."""
    if hasattr(found, "shape"):
        return found
    pooled = getattr(found, "pooler_output", None)
    if pooled is not None and has_pooler:
        return pooled.flatten(1)
    return found.last_hidden_state.mean(dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCaptioner:
    """Loads a captioner, which writes at most 48 tokens and takes the likeliest one each time."""

    name: str
    folder: Path
    device: str = "cpu"

    def __call__(self) -> Callable[[Image], str]:
        import torch

        processor, model, missing = _loaded("AutoProcessor", "AutoModelForImageTextToText", self)
        _refuse(missing, "AutoModelForImageTextToText", self.folder)
        if not hasattr(processor, "batch_decode"):
            raise ModelError(
                f"{self.folder} has no tokenizer beside its model; name a captioner that has one"
            )

        def describe(image: Image) -> str:
            with torch.inference_mode():
                inputs = processor(images=image, return_tensors="pt").to(self.device)
                ids = model.generate(**inputs, max_new_tokens=_CAPTION_TOKENS, do_sample=False)
            return processor.batch_decode(ids, skip_special_tokens=True)[0].strip()

        return describe


def _refuse(missing: Sequence[str], model: str, folder: Path) -> None:
    """Raises ModelError: a part of the model is not in its weights, and would be random numbers."""
    if missing:
        raise ModelError(
            f"{folder} has no weights for {missing[0]!r} ({len(missing)} in all), so that it is no trained "
            f"{model}; name another model"
        )


def _loaded(
    processor: str, model: str, made: Classifier | ImageEncoder | ImageCaptioner
) -> tuple[Any, Any, list[str]]:
    """Processor and model of a folder, by the names of transformers' classes for any of their kind.

    The third part names the weights that were not there.

    Raises:
        ModelError: the folder does not hold such a model, or the device does not.
    """
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(1)  # one process per core is quicker than several threads of each
    try:
        looks = getattr(transformers, processor).from_pretrained(made.folder, local_files_only=True)
        weights, report = getattr(transformers, model).from_pretrained(
            made.folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        return looks, weights.to(made.device).eval(), sorted(report["missing_keys"])
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{made.folder} cannot be loaded as a {model}: {reason}") from error
