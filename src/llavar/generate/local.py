"""Answers from a checkpoint on this machine: nano, what a run has trained, or any Llava of the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llavar import chat
from llavar.errors import DataError, ModelError
from llavar.generate.base import Request, fingerprint
from llavar.generate.decode import decode
from llavar.generate.features import Features
from llavar.generate.prompting import Setup, encode, pixels
from llavar.images import WHOLE, Transform
from llavar.models import folder as folders
from llavar.models import quantize as quantization
from llavar.models import steps
from llavar.models._hf import load_llava
from llavar.models.processor import has_class_token, read_norm, read_tiles, read_transform
from llavar.models.quantize import Quantization
from llavar.models.tokenizer import TextTokenizer, load_tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image

_REMEMBER = 64
"""Pictures whose features are kept: 576 tokens of a 13B model in 16 bits are 6 MB each."""

_STOP_TOKENS = 16
"""A stop string is looked for in as many last tokens."""

_WHOLE = 64 * 2**20
_STRIDE, _SAMPLE = 2**20, 4096


class LocalGenerator:
    """Answers of one model in memory, greedy or drawn as each request asks.

    Prompts of a batch are padded on the left. A picture goes through the tower and the projector once for all
    questions that come soon after one another: the features of the last ``remember`` pictures are kept.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: TextTokenizer,
        setup: Setup,
        *,
        name: str,
        folder: Path | None = None,
        remember: int = _REMEMBER,
    ) -> None:
        self._model, self._tokenizer, self.setup, self._name = model, tokenizer, setup, name
        self._folder, self._digest = folder, ""
        self._remember = remember
        self._features = Features(model, model.device, remember=remember)
        self._stops = _own_stops(tokenizer, setup.template)

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        name: str = "",
        template: str = "",
        transform: Transform | None = None,
        quantize: Quantization | None = None,
    ) -> LocalGenerator:
        """From a model folder or a hub id.

        Args:
            template: name of a conversation; by default that of the tokenizer's own chat template.
            transform: how pictures are made square; by default as the checkpoint records.
            quantize: keep the decoder's weights in 8 or 4 bits; ``dtype`` is what is computed in.

        Raises:
            NotFoundError, FetchError, ModelError: the checkpoint is not there or cannot be used.
        """
        folder = folders.resolve(model)
        if quantize is None:
            loaded = load_llava(folder, dtype=dtype, lean=True)
        else:
            loaded = quantization.load(folder, quantize, dtype=dtype)
        tokenizer = load_tokenizer(folder)
        setup = setup_of(folder, tokenizer, template)
        if torch.cuda.is_available():
            loaded = loaded.cuda()
        steps.pack(loaded)
        made = cls(loaded, tokenizer, setup, name=name or str(model), folder=folder)
        return made if transform is None else made.with_transform(transform)

    def with_transform(self, transform: Transform) -> LocalGenerator:
        """The same model in memory, which makes pictures square in another way."""
        setup = replace(self.setup, transform=transform)
        other = LocalGenerator(
            self._model,
            self._tokenizer,
            setup,
            name=self._name,
            folder=self._folder,
            remember=self._remember,
        )
        other._digest = self._digest
        return other

    @property
    def name(self) -> str:
        return self._name

    @property
    def about(self) -> Mapping[str, str]:
        """What else decides an answer: conversation, image transform, number format, digest of the files.

        A quantized model says so as well, and one that sees pictures in tiles; others say nothing of it.
        """
        if not self._digest and self._folder is not None:
            self._digest = digest_of(self._folder)
        kind = quantization.kind_of(self._model)
        return {
            "weights": self._digest,
            "conversation": self.setup.template.name,
            "transform": self.setup.transform.value,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            **({} if self.setup.tiles == WHOLE else {"tiles": str(self.setup.tiles)}),
            **({} if kind is None else {"quantization": kind.value}),
        }

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return quantization.parameters_of(self._model)

    @property
    def model(self) -> Any:
        """The model itself, of either class, for :mod:`llavar.models.steps`."""
        return self._model

    @property
    def tokenizer(self) -> TextTokenizer:
        return self._tokenizer

    def forget(self) -> None:
        """Drop the features of earlier pictures: the next question about one encodes it anew."""
        self._features.clear()

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """One answer for each request.

        Raises:
            ImageError, NotFoundError: a picture cannot be used.
            DataError: a question holds the image placeholder itself, or is longer than the model takes.
            ModelError: the memory of the device does not hold the batch.
        """
        if not requests:
            return []
        prompts = [self._prompt(request) for request in requests]
        try:
            made = self._decode(requests, prompts)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"the device has not enough memory for {len(requests)} questions at a time; "
                "give a smaller batch size"
            ) from error
        return [self._text(ids) for ids in made]

    def room(self, request: Request) -> int:
        """How many tokens the model takes after the prompt of ``request``; 0 or less where it is too long.

        Raises:
            DataError: the question holds the image placeholder itself.
        """
        return self.setup.max_positions - len(self._prompt(request, whole=False))

    @torch.inference_mode()
    def _decode(self, requests: Sequence[Request], prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        ids, mask = left_padded(prompts, self._pad)
        seen = self._seen([request.image for request in requests if request.image is not None])
        device = self._model.device
        running = steps.begin(self._model, ids.to(device), mask.to(device), seen)
        return decode(
            running,
            requests,
            end=self._tokenizer.eos_id,
            stopped=self._stopped if self._stops else None,
        )

    def _seen(self, pictures: Sequence[str | Path | Image]) -> Tensor | None:
        """Features (N, image tokens, text width) of N pictures; those that are new are encoded together."""
        names = [fingerprint(picture) for picture in pictures]
        made = {name: partial(self._pixels, it) for name, it in zip(names, pictures, strict=True)}
        return self._features.of(names, made)

    def _stopped(self, made: Sequence[int]) -> bool:
        """Whether a stop string that is no token of its own (``###``) has come."""
        tail = self._tokenizer.decode(made[-_STOP_TOKENS:])
        return any(stop in tail for stop in self._stops)

    @property
    def _pad(self) -> int:
        pad = self._tokenizer.pad_id
        return pad if pad is not None else (self._tokenizer.eos_id or 0)

    def _prompt(self, request: Request, *, whole: bool = True) -> list[int]:
        """The prompt's ids; refused if it and the answer exceed what the model takes, where ``whole``."""
        s, asked = self.setup, request.question
        wanted = request.image is not None
        if wanted:
            asked = chat.with_image(asked, first=request.image_first)
        ids = encode(chat.prompt(asked, s.template), int(wanted), s, self._tokenizer)
        if whole and len(ids) + request.max_new_tokens > s.max_positions:
            raise DataError(
                f"the question with its picture has {len(ids)} tokens, and with {request.max_new_tokens} for "
                f"the answer they exceed the {s.max_positions} that the model takes; shorten either"
            )
        return ids

    def _pixels(self, image: Any) -> NDArray[np.float32]:
        return pixels(image, self.setup)

    def _text(self, ids: Sequence[int]) -> str:
        return chat.clean_answer(self._tokenizer.decode(ids), self.setup.template)


def setup_of(folder: Path, tokenizer: TextTokenizer, template: str = "") -> Setup:
    """Read from a model folder how it wants to be asked.

    Raises:
        ModelError: the folder does not say, or contradicts itself.
    """
    config = folders.read_document(folder, "config.json")
    where = folder / "config.json"
    size = _number(where, config, "vision_config", "image_size", 224)
    patch_size = _number(where, config, "vision_config", "patch_size", 32)
    token = config.get("image_token_index", config.get("image_token_id"))
    patch = tokenizer.backend.id_to_token(token) if isinstance(token, int) else None
    if patch is None:
        raise ModelError(f"the image token {token!r:.60} of {where} is not in its tokenizer")
    tokens = config.get("image_seq_length")
    full = config.get("vision_feature_select_strategy") == "full"
    counted = (size // patch_size) ** 2 + (full and _sees_class(config))
    if isinstance(tokens, int) and tokens != counted:
        raise ModelError(f"{where} says {tokens} image tokens, and its tower gives {counted}; repair it")
    return Setup(
        template=chat.get(template) if template else tokenizer.template(),
        transform=read_transform(folder),
        size=size,
        image_tokens=counted,
        patch=patch,
        start_end=tokenizer.has_start_end,
        max_positions=_number(where, config, "text_config", "max_position_embeddings", 2048),
        norm=read_norm(folder),
        tiles=read_tiles(folder),
    )


def _sees_class(config: Mapping[str, object]) -> bool:
    vision = cast("Mapping[str, object]", config["vision_config"])
    return has_class_token(str(vision.get("model_type")))


def digest_of(folder: Path) -> str:
    """A digest of the files of a model folder: which model gave an answer.

    Files above 64 MiB go in with their size and with 4 KiB of every MiB, so that 26 GB take a second or two:
    training, merging and converting change nearly every number, and each tensor of a large model is longer
    than a MiB.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix not in (".json", ".safetensors", ".jinja", ".model"):
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if size <= _WHOLE:
                digest.update(file.read())
                continue
            for start in range(0, size, _STRIDE):
                file.seek(start)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]


def _own_stops(tokenizer: TextTokenizer, template: chat.Template) -> tuple[str, ...]:
    """The stop strings of a conversation that are not the end token, which ends an answer anyhow."""
    end = tokenizer.eos_id
    return tuple(stop for stop in chat.stop_strings(template) if end is None or tokenizer.lookup(stop) != end)


def _number(where: Path, config: Mapping[str, object], section: str, key: str, default: int) -> int:
    """A whole number of a section of a ``config.json``; absent ones are the default of CLIP or Llama."""
    values = config.get(section)
    if not isinstance(values, Mapping):
        raise ModelError(f"{where} has no object {section!r}; name the folder of a Llava model")
    value = cast("Mapping[str, object]", values).get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(f"{where} has {key} = {value!r:.60} in {section}; it must be a whole number above 0")
    return value


def left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """ids and mask, int64 (n, longest): zeros of the mask where there is only padding."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask
