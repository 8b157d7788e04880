"""Tensors by llama.cpp's names: what each is made of, in which type it is kept, and how far it may differ.

The decoder's queries and keys change places within each head, since llama.cpp turns neighbouring values where
transformers turn halves. The projector is written in two layers with GELU between them, which llama.cpp
always computes. A single layer becomes ``x + 128``, GELU, ``x - 128``: there GELU is the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llavar.errors import ModelError
from llavar.models.export.base import OutType
from llavar.models.export.source import EMBEDDING, HEAD, PROJECTOR, Source
from llavar.models.shape import LlavaShape

OFFSET = 128.0
"""Far enough from 0 for GELU to be the identity, near enough for fp32 to keep 1e-5 of what is added."""

_LARGEST_F16 = 65504.0
_BLOCK = 32
_DECODER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
_TOWER = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A tensor to write: its name there, its shape, the type it is kept in, and its values in fp32."""

    name: str
    shape: tuple[int, ...]
    kept: OutType
    make: Callable[[], Tensor]

    def array(self) -> Any:
        """The values as a numpy array in fp32, contiguous."""
        return self.make().detach().float().contiguous().numpy()

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        count = int(np.prod(self.shape))
        if self.kept is OutType.Q8_0:
            return count // _BLOCK * (_BLOCK + 2)
        return count * (2 if self.kept is OutType.F16 else 4)


def decoder(source: Source, shape: LlavaShape, outtype: OutType) -> Iterator[Part]:
    """Every tensor of the text model."""
    text = shape.text
    yield _part(source, EMBEDDING, "token_embd.weight", outtype)
    yield _part(source, "language_model.model.norm.weight", "output_norm.weight", outtype)
    yield _part(source, HEAD, "output.weight", outtype)
    heads = {"attn_q.weight": text.heads, "attn_k.weight": text.kv_heads}
    for layer in range(text.layers):
        for theirs, ours in _DECODER.items():
            key = f"language_model.model.layers.{layer}.{theirs}"
            yield _part(source, key, f"blk.{layer}.{ours}", outtype, heads=heads.get(ours))


def tower_and_projector(source: Source, shape: LlavaShape, outtype: OutType) -> Iterator[Part]:
    """Every tensor of the multimodal projector's file: CLIP, then the projector."""
    tower = "vision_tower.vision_model."
    small = OutType.F32
    yield _part(source, f"{tower}embeddings.class_embedding", "v.class_embd", small)
    yield _part(source, f"{tower}embeddings.position_embedding.weight", "v.position_embd.weight", small)
    conv = OutType.F32 if outtype is OutType.F32 else OutType.F16
    yield _part(source, f"{tower}embeddings.patch_embedding.weight", "v.patch_embd.weight", conv)
    for kind in ("weight", "bias"):
        yield _part(source, f"{tower}pre_layrnorm.{kind}", f"v.pre_ln.{kind}", small)
    # Where both layers are of one shape, llama.cpp takes the names for those of an old mistake.
    swapped = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"} if shape.vision.mlp == shape.vision.hidden else {}
    for layer in range(shape.vision.layers):
        for theirs, ours in _TOWER.items():
            for kind in ("weight", "bias"):
                key = f"{tower}encoder.layers.{layer}.{theirs}.{kind}"
                yield _part(source, key, f"v.blk.{layer}.{swapped.get(ours, ours)}.{kind}", outtype)
    yield from _projector(source, outtype)


def _projector(source: Source, outtype: OutType) -> Iterator[Part]:
    text, vision = source.tensors[f"{PROJECTOR}linear_1.weight"].shape
    linear = source.single_layer()
    if linear is None:
        for number, place in ((1, 0), (2, 2)):
            yield _part(source, f"{PROJECTOR}linear_{number}.weight", f"mm.{place}.weight", outtype)
            yield _part(source, f"{PROJECTOR}linear_{number}.bias", f"mm.{place}.bias", OutType.F32)
        return
    weight, bias = linear.weight, linear.bias.float()
    f32 = OutType.F32
    yield Part(name="mm.0.weight", shape=(text, vision), kept=f32, make=lambda: weight)
    yield Part(name="mm.0.bias", shape=(text,), kept=f32, make=lambda: bias + OFFSET)
    yield Part(name="mm.2.weight", shape=(text, text), kept=f32, make=lambda: torch.eye(text))
    yield Part(name="mm.2.bias", shape=(text,), kept=f32, make=lambda: torch.full((text,), -OFFSET))


def _part(source: Source, key: str, name: str, outtype: OutType, heads: int | None = None) -> Part:
    tensor = source.tensors[key]
    kept = outtype
    if len(tensor.shape) < 2:
        kept = OutType.F32
    elif outtype is OutType.Q8_0 and (tensor.shape[-1] % _BLOCK or len(tensor.shape) > 2):
        kept = OutType.F16

    def make() -> Tensor:
        values = tensor.load().float()
        if kept is OutType.F16 and not bool((values.abs() <= _LARGEST_F16).all()):
            raise ModelError(
                f"{source.folder} holds values in {key} that f16 cannot; export it with --outtype f32"
            )
        return values if heads is None else interleaved(values, heads)

    return Part(name=name, shape=tensor.shape, kept=kept, make=make)


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head from halves (transformers' rotary positions) to pairs (llama.cpp's)."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)
