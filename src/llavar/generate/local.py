"""Answers from a checkpoint on this machine: nano, what a run has trained, or any Llava of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llavar import chat, images
from llavar.errors import ModelError
from llavar.generate.base import Request
from llavar.images import Transform
from llavar.models import folder as folders
from llavar.models._hf import load_llava, read_transform
from llavar.models.tokenizer import TextTokenizer, load_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a checkpoint wants to be asked. ``image_tokens`` and ``size`` (pixels) are those of its tower."""

    template: chat.Template
    transform: Transform
    size: int
    image_tokens: int
    patch: str
    start_end: bool


class LocalGenerator:
    """Greedy answers of one model in memory.

    The picture comes after the question, as the original evaluates. Prompts of a batch are padded on the left.
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
            ImageError, NotFoundError: a picture cannot be used; ModelError: the prompt is longer than the model takes.
        """
        if not requests:
            return []
        prompts = [self._prompt(request) for request in requests]
        ids, mask = _left_padded(prompts, self._pad)
        pictures = [self._pixels(request.image) for request in requests if request.image is not None]
        device = next(self._model.parameters()).device
        pixels = torch.from_numpy(np.stack(pictures)).to(device) if pictures else None
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
        question = request.question if request.image is None else chat.with_image(request.question, first=False)
        text = chat.prompt(question, self.setup.template)
        s = self.setup
        return self._tokenizer.encode(chat.expand_images(text, s.image_tokens, s.start_end, patch=s.patch))

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
    vision = config.get("vision_config")
    if not isinstance(vision, dict) or not isinstance(vision.get("image_size", 336), int):
        raise ModelError(f"{folder / 'config.json'} has no vision_config with an image size; is it a Llava model?")
    size, patch_size = int(vision.get("image_size", 336)), int(vision.get("patch_size", 14))
    token = config.get("image_token_index", config.get("image_token_id"))
    patch = tokenizer.backend.id_to_token(token) if isinstance(token, int) else None
    if patch is None:
        raise ModelError(f"the image token {token!r} of {folder / 'config.json'} is not in its tokenizer")
    tokens = config.get("image_seq_length")
    full = config.get("vision_feature_select_strategy") == "full"
    counted = (size // patch_size) ** 2 + full
    if isinstance(tokens, int) and tokens != counted:
        raise ModelError(f"{folder / 'config.json'} says {tokens} image tokens, and its tower gives {counted}")
    return Setup(
        template=chat.get(template) if template else tokenizer.template(),
        transform=read_transform(folder),
        size=size,
        image_tokens=counted,
        patch=patch,
        start_end=tokenizer.has_start_end,
    )


def _left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """ids and mask, int64 (n, longest): zeros of the mask where there is only padding."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask
