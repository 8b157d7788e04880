"""Answers from a checkpoint on this machine: nano, what a run has trained, or any Llava of the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from llavar import chat, images
from llavar.errors import DataError, ModelError
from llavar.generate.base import Request
from llavar.images import Transform
from llavar.models import folder as folders
from llavar.models._hf import load_llava, read_transform
from llavar.models.tokenizer import TextTokenizer, load_tokenizer
from llavar.records import IMAGE_TAG


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a checkpoint wants to be asked.

    ``image_tokens`` and ``size`` (pixels) are those of its tower; ``patch`` is the placeholder that stands
    for each image token; prompt and answer have at most ``max_positions`` tokens together.
    """

    template: chat.Template
    transform: Transform
    size: int
    image_tokens: int
    patch: str
    start_end: bool
    max_positions: int


class LocalGenerator:
    """Greedy answers of one model in memory.

    The picture comes after the question, as the original evaluates. Prompts of a batch are padded on the
    left.
    """

    def __init__(self, model: Any, tokenizer: TextTokenizer, setup: Setup, *, name: str) -> None:
        self._model, self._tokenizer, self.setup, self._name = model, tokenizer, setup, name

    @classmethod
    def load(
        cls, model: str | Path, *, dtype: torch.dtype = torch.float32, name: str = "", template: str = ""
    ) -> LocalGenerator:
        """From a model folder or a hub id.

        Args:
            template: name of a conversation; by default that of the tokenizer's own chat template.

        Raises:
            NotFoundError, FetchError, ModelError: the checkpoint is not there or cannot be used.
        """
        folder = folders.resolve(model)
        loaded = load_llava(folder, dtype=dtype, lean=True)
        tokenizer = load_tokenizer(folder)
        setup = setup_of(folder, tokenizer, template)
        if torch.cuda.is_available():
            loaded = loaded.cuda()
        return cls(loaded, tokenizer, setup, name=name or str(model))

    @property
    def name(self) -> str:
        return self._name

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """One answer for each request.

        Raises:
            ImageError, NotFoundError: a picture cannot be used.
            DataError: a question holds the image placeholder itself, or is longer than the model takes.
        """
        if not requests:
            return []
        prompts = [self._prompt(request) for request in requests]
        ids, mask = _left_padded(prompts, self._pad)
        pictures = [self._pixels(request.image) for request in requests if request.image is not None]
        device = next(self._model.parameters()).device
        pixels = torch.as_tensor(np.stack(pictures)).to(device) if pictures else None
        made = self._model.generate(
            input_ids=ids.to(device),
            pixel_values=pixels,
            attention_mask=mask.to(device),
            max_new_tokens=max(request.max_new_tokens for request in requests),
            eos_token_id=self._tokenizer.eos_id,
            pad_token_id=self._pad,
            do_sample=False,
        )
        answers = made[:, ids.shape[1] :].tolist()
        limits = (request.max_new_tokens for request in requests)
        return [self._text(new[:limit]) for new, limit in zip(answers, limits, strict=True)]

    @property
    def _pad(self) -> int:
        pad = self._tokenizer.pad_id
        return pad if pad is not None else (self._tokenizer.eos_id or 0)

    def _prompt(self, request: Request) -> list[int]:
        s, asked = self.setup, request.question
        wanted = 0 if request.image is None else s.image_tokens
        if wanted:
            asked = chat.with_image(asked, first=False)
        text = chat.expand_images(chat.prompt(asked, s.template), s.image_tokens, s.start_end, patch=s.patch)
        if not text.isprintable() and text != text.encode("utf-8", "replace").decode():
            raise DataError("the question holds broken characters (lone surrogates); write it in UTF-8")
        ids = self._tokenizer.encode(text)
        if ids.count(self._tokenizer.token_id(s.patch)) != wanted:
            raise DataError(
                f"the question holds {IMAGE_TAG} or {s.patch}, which stand for pictures; leave them out"
            )
        if len(ids) + request.max_new_tokens > s.max_positions:
            raise DataError(
                f"the question with its picture has {len(ids)} tokens, and with {request.max_new_tokens} for "
                f"the answer they exceed the {s.max_positions} that the model takes; shorten either"
            )
        return ids

    def _pixels(self, image: Any) -> np.ndarray:
        return images.pixels(image, transform=self.setup.transform, size=self.setup.size)

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
    counted = (size // patch_size) ** 2 + full
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
    )


def _number(where: Path, config: Mapping[str, object], section: str, key: str, default: int) -> int:
    """A whole number of a section of a ``config.json``; absent ones are the default of CLIP or Llama."""
    values = config.get(section)
    if not isinstance(values, Mapping):
        raise ModelError(f"{where} has no object {section!r}; name the folder of a Llava model")
    value = cast("Mapping[str, object]", values).get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(f"{where} has {key} = {value!r:.60} in {section}; it must be a whole number above 0")
    return value


def _left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """ids and mask, int64 (n, longest): zeros of the mask where there is only padding."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask
