"""Ask a model about pictures, in two lines of Python."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llavar import images, net
from llavar.errors import ConfigError, ImageError, ModelError, NotFoundError
from llavar.generate.base import Request
from llavar.generate.hub import HubGenerator, load_any
from llavar.generate.local import LocalGenerator
from llavar.models.quantize import Quantization
from llavar.study.nano import weights

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said to one question, and how long it took in seconds (loading the model not included)."""

    text: str
    model: str
    seconds: float


class Reader:
    """A loaded model. Pictures are paths, URLs, bytes of a file, or PIL images."""

    def __init__(self, generator: LocalGenerator | HubGenerator) -> None:
        self._generator = generator

    @classmethod
    def load(cls, model: str = "nano", *, template: str = "", quantize: str = "") -> Reader:
        """``nano``, a folder, or the hub id of an image-text-to-text model.

        Of a Llava ``template`` names another conversation, and ``quantize`` keeps the decoder in 8 bits
        (``int8``) or in 4 (``nf4``); some answers change.

        Raises:
            LlavarError: there is no such model, or it cannot be used.
        """
        kind = _quantization(quantize) if quantize else None
        return cls(load_any(find(model), name=model, template=template, quantize=kind))

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return self._generator.parameters

    def ask(self, image: str | Path | bytes | Image, question: str, *, max_new_tokens: int = 128) -> str:
        """The answer as text.

        Raises:
            LlavarError: the picture cannot be opened or fetched, or the question is empty.
        """
        return self.answer(image, question, max_new_tokens=max_new_tokens).text

    def answer(
        self, image: str | Path | bytes | Image, question: str, *, max_new_tokens: int = 128
    ) -> Answer:
        """As :meth:`ask`, with the model's name and the time it took."""
        if not question.strip():
            raise ConfigError("the question is empty; ask something, for example 'What does it say?'")
        if max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {max_new_tokens}; an answer needs at least 1")
        started = time.perf_counter()
        request = Request(image=open_any(image), question=question, max_new_tokens=max_new_tokens)
        (text,) = self._generator.answer([request])
        return Answer(text=text, model=self._generator.name, seconds=time.perf_counter() - started)


def _quantization(name: str) -> Quantization:
    if name not in tuple(Quantization):
        raise ConfigError(f"quantize is {name!r:.40}; known are {', '.join(Quantization)}")
    return Quantization(name)


def find(model: str) -> str | Path:
    """What a user means by a model: a name, a folder, the folder of a finished demo or tuning, or a hub id.

    Raises:
        ModelError: the demo or the tuning in that folder is not finished.
        NotFoundError: the name cannot be that of a folder, or the folder may not be read.
    """
    if model in weights.NAMES:
        return weights.folder(model)
    folder = Path(model)
    try:
        is_demo, is_tuning = ((folder / name).is_file() for name in ("demo.json", "tune.json"))
    except OSError as error:  # the name is too long, or the folder is closed to us
        raise NotFoundError(f"there is no model folder {model!r:.200}: {error.strerror}") from error
    if is_demo:
        trained = folder / "with" / "model"
        if not (trained / weights.LAST_FILE).is_file():
            raise ModelError(
                f"the demo in {folder} has not trained its model yet; go on with llavar demo --out {folder}"
            )
        return trained
    if is_tuning:
        tuned = folder / "train" / "model"
        if not (tuned / "config.json").is_file():
            raise ModelError(
                f"the tuning in {folder} has not trained its model yet; go on with the llavar tune command "
                "that began it"
            )
        return tuned
    return model


def open_any(image: str | Path | bytes | Image) -> Image:
    """The picture behind a path, a URL, bytes or an open picture, as RGB.

    Raises:
        ImageError, NotFoundError: it cannot be opened; FetchError: it cannot or must not be fetched.
    """
    if isinstance(image, str) and net.is_url(image):
        return images.open_image(net.fetch(image).data)
    if isinstance(image, str | Path | bytes):
        return images.open_image(image)
    try:
        return images.to_rgb(image)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow decodes late
        raise ImageError(f"the open picture cannot be decoded ({error}); get its file again") from error
