# pyright: basic
"""The forward passes of small models on a CPU, with as few calls as they can be made of.

A step of nano is some two hundred calls into torch, of which most take less time than it takes to call them.
This module computes what :mod:`llavar.models.lean` does from weights that are made ready once: projections of
the same states are one matrix, the weights of a norm are multiplied into the matrix behind it, a projector of
two linear layers is one, and the two halves of a rotary pair stand beside each other, so that turning is one
product of complex numbers. Results differ from those of the plain modules by rounding alone.

The weights are there twice then, which is why large models are left as they are: their time goes into the
products themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from llavar.models.past import Past
from llavar.models.shape import FeatureSelect, LlavaShape, ProjectorLayout

MOST = 50_000_000
"""Parameters of a model that is worth it, at most."""

_FEW, _USUAL = 4, 160
"""Rows below which the order of weights does not matter, and those that it is chosen for."""
_QUICK = 1.702
_TOWER = "vision_tower.vision_model."
_TEXT = "language_model.model."
_KINDS = ("weight", "bias")


class _Linear:
    """A linear layer of weights (out, in) and, maybe, a bias (out).

    oneDNN multiplies by weights that lie in its own order about a tenth faster than MKL, which brings them
    into its order at every call. torch has that as an operator of its compiler; without it nothing is lost.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight.detach(), bias
        self._ordered = _ordered(self.weight)

    def __call__(self, states: Tensor) -> Tensor:
        if self._ordered is None or states.numel() < _FEW * states.shape[-1]:
            return functional.linear(states, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(states, self._ordered, self.bias, "none", [], "")

    def then(self, other: _Linear) -> _Linear:
        """Both, one after the other."""
        assert self.bias is not None
        assert other.bias is not None
        outer = other.weight.double()
        bias = outer @ self.bias.double() + other.bias.double()
        return _Linear((outer @ self.weight.double()).float(), bias.float())


def _ordered(weight: Tensor) -> Tensor | None:
    """Weights in the order of oneDNN; None where this torch has no such thing."""
    try:
        made = torch.ops.mkldnn._reorder_linear_weight(weight.clone(), _USUAL)
        torch.ops.mkldnn._linear_pointwise(weight.new_zeros(1, weight.shape[1]), made, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):  # it is not promised to anyone
        return None
    return made


@dataclass(frozen=True, slots=True)
class _Norm:
    """The norm of a layer of the tower."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, states: Tensor) -> Tensor:
        return functional.layer_norm(states, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seeing:
    """A layer of the tower."""

    norm1: _Norm
    asked: _Linear
    """Queries, keys and values."""
    out: _Linear
    norm2: _Norm
    wide: _Linear
    narrow: _Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """A layer of the decoder."""

    asked: _Linear
    """Queries, keys and values."""
    out: _Linear
    wide: _Linear
    """Gate and up."""
    narrow: _Linear


class Packed:
    """Weights of a Llava model, and what is computed with them; float32, on a CPU.

    Batch ``B``, tokens ``new``, pictures ``N``.
    """

    def __init__(self, shape: LlavaShape, weights: Mapping[str, Tensor]) -> None:
        """From weights in the layout of :class:`llavar.models.lean.LeanLlava`."""
        self._shape = shape
        self._pack_tower(weights)
        self._pack_decoder(weights)
        self._table = torch.empty(0, 1, shape.text.head_dim // 2, dtype=torch.complex64)

    # --- the tower and the projector ----------------------------------------------------------------------

    def _pack_tower(self, weights: Mapping[str, Tensor]) -> None:
        def linear(name: str) -> _Linear:
            return _Linear(weights[f"{name}.weight"], weights[f"{name}.bias"])

        def norm(name: str) -> _Norm:
            return _Norm(weights[f"{name}.weight"], weights[f"{name}.bias"], vision.eps)

        vision = self._shape.vision
        places = weights[f"{_TOWER}embeddings.position_embedding.weight"]
        self._patches = weights[f"{_TOWER}embeddings.patch_embedding.weight"]
        self._first = places[0] + weights[f"{_TOWER}embeddings.class_embedding"]
        self._places = places[1:]
        self._before = norm(f"{_TOWER}pre_layrnorm")
        self._quick = vision.act == "quick_gelu"
        scale = _QUICK if self._quick else 1.0  # x sigmoid(1.702 x) = silu(1.702 x) / 1.702
        self._seeing: list[_Seeing] = []
        for index in range(self._shape.vision_feature_layer % (vision.layers + 1)):
            name = f"{_TOWER}encoder.layers.{index}"
            asked = [f"{name}.self_attn.{kind}_proj" for kind in "qkv"]
            wide, narrow = f"{name}.mlp.fc1", f"{name}.mlp.fc2"
            layer = _Seeing(
                norm1=norm(f"{name}.layer_norm1"),
                asked=_Linear(*(torch.cat([weights[f"{one}.{kind}"] for one in asked]) for kind in _KINDS)),
                out=linear(f"{name}.self_attn.out_proj"),
                norm2=norm(f"{name}.layer_norm2"),
                wide=_Linear(*(weights[f"{wide}.{kind}"] * scale for kind in _KINDS)),
                narrow=_Linear(weights[f"{narrow}.weight"] / scale, weights[f"{narrow}.bias"]),
            )
            self._seeing.append(layer)
        first, second = (linear(f"multi_modal_projector.linear_{number}") for number in (1, 2))
        composed = self._shape.projector is ProjectorLayout.IDENTITY
        self._projector = (first.then(second),) if composed else (first, second)

    def features(self, pixels: Tensor) -> Tensor:
        """Projected features (N, image tokens, text width) of pictures (N, 3, size, size)."""
        vision = self._shape.vision
        found = functional.conv2d(pixels, self._patches, stride=vision.patch_size).flatten(2)
        hidden = pixels.new_empty(len(pixels), 1 + len(self._places), vision.hidden)
        hidden[:, 0] = self._first
        torch.add(found.transpose(1, 2), self._places, out=hidden[:, 1:])
        hidden = self._before(hidden)
        for layer in self._seeing:
            self._see(layer, hidden)
        if self._shape.select is FeatureSelect.DEFAULT:
            hidden = hidden[:, 1:].contiguous()  # else each picture is a product of its own
        for index, one in enumerate(self._projector):
            hidden = one(functional.gelu(hidden) if index else hidden)
        return hidden

    def _see(self, layer: _Seeing, hidden: Tensor) -> None:
        """A layer, which changes ``hidden`` (N, 1 + patches, width)."""
        vision = self._shape.vision
        asked = layer.asked(layer.norm1(hidden))
        query, key, value = asked.view(*hidden.shape[:2], 3, vision.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        hidden += layer.out(seen.transpose(1, 2).flatten(2))
        inner = layer.wide(layer.norm2(hidden))
        inner = functional.silu(inner, inplace=True) if self._quick else functional.gelu(inner)
        hidden += layer.narrow(inner)

    # --- the decoder --------------------------------------------------------------------------------------

    def _pack_decoder(self, weights: Mapping[str, Tensor]) -> None:
        text = self._shape.text
        # Norms divide by the length instead of the root mean square.
        self._least = torch.tensor(math.sqrt(text.hidden * text.eps))
        root = math.sqrt(text.hidden)
        self._reading: list[_Reading] = []
        for index in range(text.layers):
            name = f"{_TEXT}layers.{index}"
            norm1 = weights[f"{name}.input_layernorm.weight"] * root
            norm2 = weights[f"{name}.post_attention_layernorm.weight"] * root
            query, key, value = (weights[f"{name}.self_attn.{kind}_proj.weight"] for kind in "qkv")
            wide = [weights[f"{name}.mlp.{kind}_proj.weight"] for kind in ("gate", "up")]
            layer = _Reading(
                asked=_Linear(torch.cat([self._paired(query), self._paired(key), value]) * norm1),
                out=_Linear(weights[f"{name}.self_attn.o_proj.weight"]),
                wide=_Linear(torch.cat(wide) * norm2),
                narrow=_Linear(weights[f"{name}.mlp.down_proj.weight"]),
            )
            self._reading.append(layer)
        head = weights["language_model.lm_head.weight"] * weights[f"{_TEXT}norm.weight"] * root
        self._head = _Linear(head)

    def _paired(self, weight: Tensor) -> Tensor:
        """Rows of queries or keys in the order 0, n / 2, 1, n / 2 + 1 ... of each head's n."""
        width = self._shape.text.head_dim
        return weight.view(-1, 2, width // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)

    def read(self, embedded: Tensor, past: Past) -> Tensor:
        """Logits (B, vocabulary) after ``new`` more tokens (B, new, width), which is overwritten.

        ``past`` grows by them. Its keys are in this module's order: it goes on here, not in the modules.
        """
        rows, new = embedded.shape[:2]
        turn = self._turn(past, new, embedded.device)
        allowed = self._allowed(past, new, embedded.device)
        hidden = embedded.view(rows * new, -1)
        for index, layer in enumerate(self._reading):
            only = 1 if index == len(self._reading) - 1 else new
            seen = self._read(layer, index, hidden, (rows, new, only), turn, allowed, past)
            if only < new:
                hidden = hidden.view(rows, new, -1)[:, -1].contiguous()
            hidden += layer.out(seen)
            gate, up = layer.wide(self._even(hidden)).chunk(2, -1)
            hidden += layer.narrow(functional.silu(gate).mul_(up))
        past.advance(new)
        return self._head(self._even(hidden))

    def _read(
        self,
        layer: _Reading,
        index: int,
        hidden: Tensor,
        sizes: tuple[int, int, int],
        turn: Tensor,
        allowed: Tensor | None,
        past: Past,
    ) -> Tensor:
        """What the last ``only`` tokens see, (B only, heads width)."""
        (rows, new, only), text = sizes, self._shape.text
        both, kv, width = text.heads + text.kv_heads, text.kv_heads, text.head_dim
        made = layer.asked(self._even(hidden)).view(rows, new, both + kv, width)
        torch.view_as_complex(made[:, :, :both].unflatten(-1, (width // 2, 2))).mul_(turn)
        query, key, value = made.split((text.heads, kv, kv), 2)
        keys, values = past.extend(index, key.transpose(1, 2), value.transpose(1, 2))
        if only == 1:  # the queries of a group see the same, as if they were tokens
            if allowed is not None:
                allowed = allowed[:, :, -1:]
            query = query[:, -1].reshape(rows, kv, text.heads // kv, width)
            seen = functional.scaled_dot_product_attention(query, keys, values, attn_mask=allowed)
            return seen.reshape(rows, -1)
        seen = functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            keys,
            values,
            attn_mask=allowed,
            is_causal=allowed is None,
            enable_gqa=text.heads != kv,
        )
        return seen.transpose(1, 2).reshape(rows * new, -1)

    def _even(self, hidden: Tensor) -> Tensor:
        """Rows of the length 1, but for what the norm adds to it."""
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        return hidden / torch.hypot(length, self._least)

    def _allowed(self, past: Past, new: int, device: torch.device) -> Tensor | None:
        """What is added to the scores; None for all tokens where there is one, else for those before."""
        if past.unpadded and (new == 1 or not past.length):
            return None
        allowed = past.allowed(new, device)
        assert allowed is not None
        return torch.zeros(allowed.shape, device=device).masked_fill_(~allowed, -math.inf)

    def _turn(self, past: Past, new: int, device: torch.device) -> Tensor:
        """The rotary turns of the next tokens (B or 1, new, 1, head width / 2)."""
        if len(self._table) < past.length + new:
            self._table = self._turns(max(256, 2 * (past.length + new)))
        places = past.places(new, device)
        if places is None:
            return self._table[None, past.length : past.length + new]
        return self._table[places]

    def _turns(self, length: int) -> Tensor:
        text = self._shape.text
        steps = torch.arange(0, text.head_dim, 2).float() / text.head_dim
        angles = torch.arange(length)[:, None].float() / text.rope_theta**steps
        return torch.complex(angles.cos(), angles.sin())[:, None]
