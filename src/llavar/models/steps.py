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
from llavar.models.past import Past


class Running(Protocol):
    """Prompts that are being continued. Rows ``B``, vocabulary ``V``."""

    logits: Tensor
    """(B, V), of the next token."""

    def step(self, tokens: Tensor) -> None:
        """Take one more token (B,) in each row."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (indices) only; the others are finished. A row may be named twice."""
        ...

    @property
    def joinable(self) -> bool:
        """Whether other rows can :meth:`join`: caches that keep a window of the tokens allow it not."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether a :meth:`step` that failed, as for lack of memory, may be taken again."""
        ...

    def join(self, other: Running) -> None:
        """Take the rows of ``other``, of the same model, in after these; ``other`` is of no use then."""
        ...

    def row(self, row: int) -> Past | None:
        """A copy of what was computed of one row, for :func:`begin`; None where the class gives none."""
        ...


def pack(model: nn.Module) -> None:
    """Let a model whose weights do not change any more answer in a quicker way, if it has one."""
    if isinstance(model, LeanLlava):
        model.pack()


def features(model: nn.Module, pixels: Tensor) -> Tensor:
    """What the decoder sees of pictures (N, 3, size, size): (N, image tokens, text width)."""
    if isinstance(model, LeanLlava):
        return model.features(pixels)
    stock: Any = model
    found = stock.get_image_features(pixel_values=pixels.to(stock.dtype), return_dict=True)
    found = getattr(found, "pooler_output", found)
    return found if isinstance(found, Tensor) else torch.stack(list(found))


def begin(
    model: nn.Module, ids: Tensor, mask: Tensor, seen: Tensor | None, after: Past | None = None
) -> Running:
    """Run prompts (B, T), padded on the left where ``mask`` is 0; ``seen`` are the pictures' features.

    ``after`` is what a row computed earlier (:meth:`Running.row`) of the same prompt: ids and pictures are
    then those that follow it.

    Raises:
        ModelError: the ids do not hold as many image tokens as the pictures fill.
    """
    if isinstance(model, LeanLlava):
        return _LeanRunning(model, ids, mask, seen, after)
    assert after is None, "the stock class gives no rows to go on from"
    return _StockRunning(model, ids, mask, seen)


class _LeanRunning:
    def __init__(
        self, model: LeanLlava, ids: Tensor, mask: Tensor, seen: Tensor | None, after: Past | None
    ) -> None:
        self._model = model
        padded = None if bool(mask.all()) else mask
        self.logits, self._past = model.begin(ids, features=seen, attention_mask=padded, after=after)

    def step(self, tokens: Tensor) -> None:
        self.logits = self._model.go_on(tokens, self._past)

    def keep(self, rows: Tensor) -> None:
        self.logits = self.logits[rows]
        self._past.keep(rows)

    @property
    def joinable(self) -> bool:
        return True

    @property
    def repeatable(self) -> bool:
        return True

    def join(self, other: Running) -> None:
        assert isinstance(other, _LeanRunning)
        self._past.join(other._past)
        self.logits = torch.cat([self.logits, other.logits])

    def row(self, row: int) -> Past | None:
        return self._past.row(row)


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
        empty = int(self._mask.any(0).int().argmax())
        if empty and _is_plain(cache, self._mask.shape[1]):  # else rows that join would make it ever longer
            self._mask = self._mask[:, empty:]
            _drop_columns(cache, empty)

    @property
    def joinable(self) -> bool:
        return _is_plain(self._cache, self._mask.shape[1])

    @property
    def repeatable(self) -> bool:
        return False

    def join(self, other: Running) -> None:
        assert isinstance(other, _StockRunning)
        length = max(self._mask.shape[1], other._mask.shape[1])
        _join_caches(self._cache, other._cache, length)
        masks = [functional.pad(mask, (length - mask.shape[1], 0)) for mask in (self._mask, other._mask)]
        self._mask = torch.cat(masks)
        self.logits = torch.cat([self.logits, other.logits])

    def row(self, row: int) -> Past | None:  # noqa: ARG002 - the protocol's
        return None

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


# All that is known here of the inside of transformers' caches, 5.17 to 5.23: ``layers``, each with ``keys``
# and ``values`` (B, heads, tokens, width). Where that is not so, rows are not joined and all else works.


def _join_caches(mine: Any, other: Any, length: int) -> None:
    """The rows of ``other`` after those of ``mine``, the shorter ones padded on the left."""
    for layer, come in zip(mine.layers, other.layers, strict=True):
        for name in ("keys", "values"):
            both = (getattr(layer, name), getattr(come, name))
            padded = [functional.pad(states, (0, 0, length - states.shape[2], 0)) for states in both]
            setattr(layer, name, torch.cat(padded))


def _drop_columns(cache: Any, count: int) -> None:
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, count:], layer.values[:, :, count:]


def _is_plain(cache: Any, seen: int) -> bool:
    layers = getattr(cache, "layers", None)
    return bool(layers) and all(
        not getattr(layer, "is_sliding", False)
        and all(
            isinstance(states, Tensor) and states.ndim == 4 and states.shape[2] == seen
            for states in (getattr(layer, "keys", None), getattr(layer, "values", None))
        )
        for layer in layers
    )
