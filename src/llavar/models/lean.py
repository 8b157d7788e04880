"""A Llava model in plain torch, for answers without the import of transformers.

Importing ``LlavaForConditionalGeneration`` takes two to three times as long as importing torch, for things
that reading one picture never uses. This module computes the same function from the same folder: a CLIP
tower, a two-layer projector and a Llama decoder with greedy decoding. It trains nothing. What it does not
cover (see :meth:`llavar.models.shape.LlavaShape.from_config`) it refuses with a
:class:`llavar.errors.ModelError`, and :func:`llavar.models._hf.load_llava` takes the stock classes then.
Tests hold its logits and its answers against the stock model's.

Module names are those of the hub layout, so that a checkpoint loads without a table of names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from llavar.errors import ModelError
from llavar.models import folder as folders
from llavar.models.packed import MOST, Packed
from llavar.models.past import Past
from llavar.models.shape import FeatureSelect, LlavaShape, ProjectorLayout, TextShape, VisionShape


class _Blank:
    """Leaves weights as they are: a file brings them, and drawing them first costs time and an import."""

    def reset_parameters(self) -> None:
        pass


class _Linear(_Blank, nn.Linear):
    pass


class _Embedding(_Blank, nn.Embedding):
    pass


class _LayerNorm(_Blank, nn.LayerNorm):
    pass


class _Conv2d(_Blank, nn.Conv2d):
    pass


class LeanLlava(nn.Module):
    """The model; see :func:`load`. Batch ``B``, tokens ``T``, pictures ``N``, vocabulary ``V``."""

    def __init__(self, shape: LlavaShape) -> None:
        super().__init__()
        self.shape = shape
        self.vision_tower = nn.ModuleDict({"vision_model": _Tower(shape.vision)})
        self.multi_modal_projector = _Projector(shape)
        decoder = _Decoder(shape.text)
        head = _Linear(shape.text.hidden, shape.text.vocab, bias=False)
        self.language_model = nn.ModuleDict({"model": decoder, "lm_head": head})
        self._packed: Packed | None = None

    def pack(self) -> None:
        """Let answers take :mod:`llavar.models.packed` where that is quicker: small models, on a CPU.

        Weights must not change afterwards. Moving the model undoes it.
        """
        weights = self.state_dict()
        fitting = self.device.type == "cpu" and self.dtype == torch.float32
        if fitting and sum(one.numel() for one in weights.values()) <= MOST and self._is_plain():
            self._packed = Packed(self.shape, weights)

    def _is_plain(self) -> bool:
        """Whether no linear layer has been replaced, as by a quantized one."""
        with torch.device("meta"):
            return self.state_dict().keys() == LeanLlava(self.shape).state_dict().keys()

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Self:
        self._packed = None
        return super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType]

    @property
    def dtype(self) -> torch.dtype:
        return self._decoder.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        return self._decoder.embed_tokens.weight.device

    @property
    def _decoder(self) -> _Decoder:
        return cast("_Decoder", self.language_model["model"])

    @torch.inference_mode()
    def forward(
        self, input_ids: Tensor, *, pixel_values: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Logits (B, T, V) for ids (B, T), pictures (N, 3, size, size), mask (B, T) of ones and zeros.

        Raises:
            ModelError: the ids do not hold as many image tokens as the pictures fill.
        """
        hidden = self._decoder(self._embed(input_ids, pixel_values), Past(mask=attention_mask))
        return self.language_model["lm_head"](hidden)

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Tensor,
        *,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        max_new_tokens: int,
        eos_token_id: int | Sequence[int] | None,
        pad_token_id: int,
        do_sample: bool = False,
    ) -> Tensor:
        """Ids (B, T + new): the prompt and the greedy answer, as ``generate`` of transformers gives them.

        Prompts of a batch are padded on the left, with zeros in ``attention_mask``. A row that has reached
        an end token goes on with ``pad_token_id`` until all have, or ``max_new_tokens`` are made. Without
        an end token every row gets as many.

        Raises:
            ModelError: sampling was asked for, or image tokens and pictures do not match.
        """
        if do_sample:
            raise ModelError("this model decodes greedily only; load it with lean=False to sample")
        ends = torch.as_tensor(() if eos_token_id is None else eos_token_id, device=input_ids.device)
        past = Past(mask=attention_mask)
        hidden = self._decoder(self._embed(input_ids, pixel_values), past)
        running = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for _ in range(max_new_tokens):
            logits = self.language_model["lm_head"](hidden[:, -1])
            token = torch.where(running, logits.argmax(-1), pad_token_id)
            input_ids = torch.cat([input_ids, token[:, None]], dim=1)
            running = running & ~torch.isin(token, ends.long())
            if not running.any():
                break
            hidden = self._decoder(self._embed(token[:, None], None), past)
        return input_ids

    @torch.inference_mode()
    def begin(
        self,
        input_ids: Tensor,
        *,
        features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        after: Past | None = None,
    ) -> tuple[Tensor, Past]:
        """Logits (B, V) after prompts (B, T), and what :meth:`go_on` needs to continue them.

        ``features`` (N, image tokens, text width) are those of the pictures, in the order of their prompts.
        ``after`` is what was computed of the same prompts before; the ids are then what follows it.

        Raises:
            ModelError: the ids do not hold as many image tokens as the pictures fill.
        """
        past = Past(mask=attention_mask) if after is None else after
        embedded = self._fill(input_ids, features)
        if self._packed is not None:
            return self._packed.read(embedded, past), past
        hidden = self._decoder(embedded, past, last=True)
        return self.language_model["lm_head"](hidden[:, -1]), past

    @torch.inference_mode()
    def go_on(self, tokens: Tensor, past: Past) -> Tensor:
        """Logits (B, V) after one more token (B,) in each row; ``past`` grows by it."""
        embedded = self._decoder.embed_tokens(tokens[:, None])
        if self._packed is not None:
            return self._packed.read(embedded, past)
        hidden = self._decoder(embedded, past)
        return self.language_model["lm_head"](hidden[:, -1])

    def features(self, pixel_values: Tensor) -> Tensor:
        """Projected features (N, image tokens, text width) of pictures (N, 3, size, size)."""
        if self._packed is not None:
            return self._packed.features(pixel_values.to(self.dtype))
        tower = cast("_Tower", self.vision_tower["vision_model"])
        hidden = tower(pixel_values.to(self.dtype), self.shape.vision_feature_layer)
        if self.shape.select is FeatureSelect.DEFAULT:
            hidden = hidden[:, 1:]
        return self.multi_modal_projector(hidden)

    def _embed(self, input_ids: Tensor, pixel_values: Tensor | None) -> Tensor:
        return self._fill(input_ids, None if pixel_values is None else self.features(pixel_values))

    def _fill(self, input_ids: Tensor, features: Tensor | None) -> Tensor:
        embedded = self._decoder.embed_tokens(input_ids)
        if features is None:
            return embedded
        places = input_ids == self.shape.image_token_id
        filled = len(features) * self.shape.image_tokens
        if int(places.sum()) != filled:
            raise ModelError(
                f"the prompt holds {int(places.sum())} image tokens, and its pictures fill {filled}; "
                f"put {self.shape.image_tokens} where each picture stands"
            )
        return embedded.masked_scatter(places[..., None], features)


def load(folder: Path, *, dtype: torch.dtype = torch.float32) -> LeanLlava:
    """Read a model folder, without transformers and without the network.

    Raises:
        ModelError: the folder is incomplete or damaged, or its architecture is not covered here.
        ConfigError: the numbers of its ``config.json`` do not fit together.
    """
    shape = LlavaShape.from_config(folders.read_document(folder, "config.json"))
    with torch.device("meta"):
        model = LeanLlava(shape)
    weights = folders.open_weights(folder)
    folders.check_weights(folder, weights, {k: tuple(v.shape) for k, v in model.state_dict().items()})
    model.load_state_dict(folders.read_tensors(weights, dtype), assign=True)
    return model.eval().requires_grad_(False)


# The tower: transformers/models/clip, pre-norm blocks around full attention.


class _Tower(nn.Module):
    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.embeddings = _PatchEmbedding(shape)
        self.pre_layrnorm = _LayerNorm(shape.hidden, eps=shape.eps)  # so spelt in every checkpoint
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(_TowerLayer(shape) for _ in range(shape.layers))}
        )
        self.post_layernorm = _LayerNorm(shape.hidden, eps=shape.eps)  # in the file, never reached

    def forward(self, pixels: Tensor, layer: int) -> Tensor:
        """The hidden state (N, 1 + patches, width) of index ``layer``; later layers are not computed."""
        layers = list(cast("nn.ModuleList", self.encoder["layers"]))
        hidden = self.pre_layrnorm(self.embeddings(pixels))
        for block in layers[: layer % (len(layers) + 1)]:
            hidden = block(hidden)
        return hidden


class _PatchEmbedding(nn.Module):
    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(shape.hidden))
        self.patch_embedding = _Conv2d(3, shape.hidden, shape.patch_size, stride=shape.patch_size, bias=False)
        self.position_embedding = _Embedding(shape.patches + 1, shape.hidden)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(pixels), 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


class _TowerLayer(nn.Module):
    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.layer_norm1 = _LayerNorm(shape.hidden, eps=shape.eps)
        self.self_attn = _TowerAttention(shape)
        self.layer_norm2 = _LayerNorm(shape.hidden, eps=shape.eps)
        self.mlp = _TowerMlp(shape)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.self_attn(self.layer_norm1(hidden))
        return hidden + self.mlp(self.layer_norm2(hidden))


class _TowerAttention(nn.Module):
    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = _Linear(shape.hidden, shape.hidden)
        self.k_proj = _Linear(shape.hidden, shape.hidden)
        self.v_proj = _Linear(shape.hidden, shape.hidden)
        self.out_proj = _Linear(shape.hidden, shape.hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        q, k, v = (_split(project(hidden), self.heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(_merge(functional.scaled_dot_product_attention(q, k, v)))


class _TowerMlp(nn.Module):
    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.quick = shape.act == "quick_gelu"
        self.fc1 = _Linear(shape.hidden, shape.mlp)
        self.fc2 = _Linear(shape.mlp, shape.hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.fc1(hidden)
        return self.fc2(inner * torch.sigmoid(1.702 * inner) if self.quick else functional.gelu(inner))


class _Projector(nn.Module):
    def __init__(self, shape: LlavaShape) -> None:
        super().__init__()
        self.linear = shape.projector is ProjectorLayout.IDENTITY
        self.linear_1 = _Linear(shape.vision.hidden, shape.text.hidden)
        self.linear_2 = _Linear(shape.text.hidden, shape.text.hidden)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.linear_1(features)
        return self.linear_2(inner if self.linear else functional.gelu(inner))


# The decoder: transformers/models/llama.


class _Decoder(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = _Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(_DecoderLayer(shape, index) for index in range(shape.layers))
        self.norm = _RmsNorm(shape)
        self.turns = _Turns(shape)

    def forward(self, embedded: Tensor, past: Past, *, last: bool = False) -> Tensor:
        """Hidden states (B, new, width) of ``new`` more tokens after ``past``, which grows by them.

        ``last`` gives those of the last token only, (B, 1, width): of the others the final layer then
        computes no more than keys and values.
        """
        new = embedded.shape[1]
        allowed = past.allowed(new, embedded.device)
        turn = self.turns(past, new, embedded)
        hidden = embedded
        for index, layer in enumerate(self.layers):
            only = 1 if last and index == len(self.layers) - 1 else new
            hidden = layer(hidden, turn, allowed, past, only)
        past.advance(new)
        return self.norm(hidden)


class _Turns:
    """Cosines and sines of the rotary positions, computed in float32 and kept for the positions so far.

    The sine of the first half of the width is negated, so that turning is ``x cos + swapped halves sin``.
    """

    def __init__(self, shape: TextShape) -> None:
        self._shape = shape
        self._table: tuple[Tensor, Tensor] | None = None

    def __call__(self, past: Past, new: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (B or 1, 1, new, head width) of the next ``new`` tokens."""
        cosine, sine = self._upto(past.length + new, like)
        places = past.places(new, like.device)
        if places is None:
            where = slice(past.length, past.length + new)
            return cosine[None, None, where], sine[None, None, where]
        return cosine[places][:, None], sine[places][:, None]

    def _upto(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        table = self._table
        wanted = (like.dtype, like.device)
        if table is None or len(table[0]) < length or (table[0].dtype, table[0].device) != wanted:
            table = self._table = self._made(max(256, 2 * length), like)
        return table

    def _made(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        shape, device = self._shape, like.device
        steps = torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim
        angles = torch.arange(length, device=device)[:, None].float() / shape.rope_theta**steps
        cosine, sine = angles.cos(), angles.sin()
        return (
            torch.cat([cosine, cosine], dim=-1).to(like.dtype),
            torch.cat([-sine, sine], dim=-1).to(like.dtype),
        )


class _DecoderLayer(nn.Module):
    def __init__(self, shape: TextShape, index: int) -> None:
        super().__init__()
        self.input_layernorm = _RmsNorm(shape)
        self.self_attn = _DecoderAttention(shape, index)
        self.post_attention_layernorm = _RmsNorm(shape)
        self.mlp = _GatedMlp(shape)

    def forward(
        self, hidden: Tensor, turn: tuple[Tensor, Tensor], allowed: Tensor | None, past: Past, only: int
    ) -> Tensor:
        """Of the last ``only`` tokens."""
        seen = self.self_attn(self.input_layernorm(hidden), turn, allowed, past, only)
        hidden = hidden[:, -only:] + seen
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class _DecoderAttention(nn.Module):
    def __init__(self, shape: TextShape, index: int) -> None:
        super().__init__()
        self.index, self.heads, self.kv_heads = index, shape.heads, shape.kv_heads
        self.q_proj = _Linear(shape.hidden, shape.heads * shape.head_dim, bias=False)
        self.k_proj = _Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.v_proj = _Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.o_proj = _Linear(shape.heads * shape.head_dim, shape.hidden, bias=False)

    def forward(
        self, hidden: Tensor, turn: tuple[Tensor, Tensor], allowed: Tensor | None, past: Past, only: int
    ) -> Tensor:
        asking = (turn[0][:, :, -only:], turn[1][:, :, -only:])
        query = _turned(_split(self.q_proj(hidden[:, -only:]), self.heads), asking)
        key = _turned(_split(self.k_proj(hidden), self.kv_heads), turn)
        key, value = past.extend(self.index, key, _split(self.v_proj(hidden), self.kv_heads))
        allowed = None if allowed is None else allowed[:, :, -only:]
        seen = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed, enable_gqa=self.heads != self.kv_heads
        )
        return self.o_proj(_merge(seen))


class _GatedMlp(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.gate_proj = _Linear(shape.hidden, shape.mlp, bias=False)
        self.up_proj = _Linear(shape.hidden, shape.mlp, bias=False)
        self.down_proj = _Linear(shape.mlp, shape.hidden, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class _RmsNorm(nn.Module):
    """Normalised in float32, scaled in the model's precision, as Llama does."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.eps = shape.eps
        self.weight = nn.Parameter(torch.empty(shape.hidden))

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(hidden.dtype)


def _turned(states: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions on (B, heads, T, width); the two halves of the width are the pairs."""
    cosine, sine = turn
    return states * cosine + states.roll(states.shape[-1] // 2, -1) * sine


def _split(states: Tensor, heads: int) -> Tensor:
    """(B, T, width) to (B, heads, T, width / heads)."""
    return states.view(*states.shape[:-1], heads, -1).transpose(1, 2)


def _merge(states: Tensor) -> Tensor:
    return states.transpose(1, 2).flatten(2)
