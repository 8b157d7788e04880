# pyright: basic
"""One way to decode with either model class: encode pictures, take the prompts, go on token by token.

``generate`` of transformers cannot draw each row's tokens from a stream of its own, and encodes a picture
anew for every question about it. With these few calls a decoding loop does both, for the plain-torch model
and for the stock class alike, which is used by its public calls; transformers is not imported here.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from llavar.errors import ModelError
from llavar.models.lean import LeanLlava


class Running(Protocol):
    """Prompts that are being continued. Rows ``B``, vocabulary ``V``."""

    logits: Tensor
    """(B, V), of the next token."""

    def step(self, tokens: Tensor) -> None:
        """Take one more token (B,) in each row."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (indices), which are finished."""
        ...


def features(model: nn.Module, pixels: Tensor) -> Tensor:
    """What the decoder sees of pictures (N, 3, size, size): (N, image tokens, text width)."""
    if isinstance(model, LeanLlava):
        return model.features(pixels)
    stock: Any = model
    found = stock.get_image_features(pixel_values=pixels.to(stock.dtype), return_dict=True)
    found = getattr(found, "pooler_output", found)
    return found if isinstance(found, Tensor) else torch.stack(list(found))


def begin(model: nn.Module, ids: Tensor, mask: Tensor, seen: Tensor | None) -> Running:
    """Run prompts (B, T), padded on the left where ``mask`` is 0; ``seen`` are the pictures' features.

    Raises:
        ModelError: the ids do not hold as many image tokens as the pictures fill.
    """
    if isinstance(model, LeanLlava):
        return _LeanRunning(model, ids, mask, seen)
    return _StockRunning(model, ids, mask, seen)


class _LeanRunning:
    def __init__(self, model: LeanLlava, ids: Tensor, mask: Tensor, seen: Tensor | None) -> None:
        self._model = model
        padded = None if bool(mask.all()) else mask
        self.logits, self._past = model.begin(ids, features=seen, attention_mask=padded)

    def step(self, tokens: Tensor) -> None:
        self.logits = self._model.go_on(tokens, self._past)

    def keep(self, rows: Tensor) -> None:
        self.logits = self.logits[rows]
        self._past.keep(rows)


class _StockRunning:
    def __init__(self, model: nn.Module, ids: Tensor, mask: Tensor, seen: Tensor | None) -> None:
        self._model: Any = model
        self._mask, self._cache = mask, None
        self.logits = self._forward(self._embedded(ids, seen), (mask.cumsum(1) - 1).clamp(min=0))

    def step(self, tokens: Tensor) -> None:
        self._mask = functional.pad(self._mask, (0, 1), value=1)
        embedded = self._model.get_input_embeddings()(tokens[:, None])
        self.logits = self._forward(embedded, self._mask.sum(1, keepdim=True) - 1)

    def keep(self, rows: Tensor) -> None:
        self.logits, self._mask = self.logits[rows], self._mask[rows]
        cache: Any = self._cache
        cache.batch_select_indices(rows)

    def _embedded(self, ids: Tensor, seen: Tensor | None) -> Tensor:
        embedded = self._model.get_input_embeddings()(ids)
        if seen is None:
            return embedded
        config = self._model.config
        places = ids == getattr(config, "image_token_id", getattr(config, "image_token_index", None))
        if int(places.sum()) != seen.shape[0] * seen.shape[1]:
            raise ModelError(
                f"the prompts hold {int(places.sum())} image tokens, and their pictures fill "
                f"{seen.shape[0] * seen.shape[1]}; the image_seq_length of the checkpoint is wrong"
            )
        return embedded.masked_scatter(places[..., None], seen.to(embedded.dtype))

    def _forward(self, embedded: Tensor, positions: Tensor) -> Tensor:
        out = self._model(
            inputs_embeds=embedded,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = out.past_key_values
        return out.logits[:, -1]
