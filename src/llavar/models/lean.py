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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from llavar.errors import ModelError
from llavar.models import folder as folders
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
        self, input_ids: Tensor, *, features: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Past]:
        """Logits (B, V) after prompts (B, T), and what :meth:`go_on` needs to continue them.

        ``features`` (N, image tokens, text width) are those of the pictures, in the order of their prompts.

        Raises:
            ModelError: the ids do not hold as many image tokens as the pictures fill.
        """
        past = Past(mask=attention_mask)
        hidden = self._decoder(self._fill(input_ids, features), past, last=True)
        return self.language_model["lm_head"](hidden[:, -1]), past

    @torch.inference_mode()
    def go_on(self, tokens: Tensor, past: Past) -> Tensor:
        """Logits (B, V) after one more token (B,) in each row; ``past`` grows by it."""
        hidden = self._decoder(self._decoder.embed_tokens(tokens[:, None]), past)
        return self.language_model["lm_head"](hidden[:, -1])

    def features(self, pixel_values: Tensor) -> Tensor:
        """Projected features (N, image tokens, text width) of pictures (N, 3, size, size)."""
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


@dataclass(slots=True, kw_only=True)
class Past:
    """What the decoder has seen: mask (B, T) or None for no padding, and per layer keys and values."""

    mask: Tensor | None
    length: int = 0
    layers: dict[int, tuple[Tensor, Tensor]] | None = None

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, heads, T, width) of new tokens; gives all of them."""
        self.layers = self.layers or {}
        if layer in self.layers:
            old_key, old_value = self.layers[layer]
            key, value = torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2)
        self.layers[layer] = key, value
        return key, value

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (indices) of the batch only."""
        self.mask = None if self.mask is None else self.mask[rows]
        self.layers = {i: (key[rows], value[rows]) for i, (key, value) in (self.layers or {}).items()}


class _Decoder(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = _Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(_DecoderLayer(shape, index) for index in range(shape.layers))
        self.norm = _RmsNorm(shape)

    def forward(self, embedded: Tensor, past: Past, *, last: bool = False) -> Tensor:
        """Hidden states (B, new, width) of ``new`` more tokens after ``past``, which grows by them.

        ``last`` gives those of the last token only, (B, 1, width): of the others the final layer then
        computes no more than keys and values.
        """
        new = embedded.shape[1]
        if past.mask is not None and past.length:
            past.mask = functional.pad(past.mask, (0, new), value=1)
        positions, allowed = _places(past, new, embedded.device)
        turn = _rotary(positions, self.shape, embedded.dtype)
        hidden = embedded
        for index, layer in enumerate(self.layers):
            only = 1 if last and index == len(self.layers) - 1 else new
            hidden = layer(hidden, turn, allowed, past, only)
        past.length += new
        return self.norm(hidden)


def _places(past: Past, new: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Positions (B or 1, new), and who may see whom (B or 1, 1, new, all) or None for everything so far."""
    total = past.length + new
    if past.mask is None:
        positions = torch.arange(past.length, total, device=device)[None]
        return positions, None if new == 1 else _causal(past.length, new, device)
    positions = (past.mask.cumsum(1) - 1).clamp(min=0)[:, -new:]
    itself = torch.eye(total, dtype=torch.bool, device=device)[-new:]  # else padding sees nothing: NaN
    return positions, _causal(past.length, new, device) & (past.mask[:, None, None, :].bool() | itself)


def _causal(before: int, new: int, device: torch.device) -> Tensor:
    return torch.ones(new, before + new, dtype=torch.bool, device=device).tril(before)[None, None]


def _rotary(positions: Tensor, shape: TextShape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, 1, new, head width), computed in float32."""
    steps = torch.arange(0, shape.head_dim, 2, device=positions.device).float() / shape.head_dim
    angles = positions[..., None].float() / shape.rope_theta**steps
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


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
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat([-second, first], dim=-1) * sine


def _split(states: Tensor, heads: int) -> Tensor:
    """(B, T, width) to (B, heads, T, width / heads)."""
    return states.view(*states.shape[:-1], heads, -1).transpose(1, 2)


def _merge(states: Tensor) -> Tensor:
    return states.transpose(1, 2).flatten(2)
