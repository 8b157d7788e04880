"""Decoders in 8 or 4 bits, for memory: weights are kept small and widened layer by layer when they are used.

Plain torch, so that it runs on every device; bitsandbytes has kernels of its own for CUDA, another set of
results, and nothing for a CPU without them. Only weights are quantized, and only those of the decoder's
linear layers, where nearly all of the memory is: embeddings, head, projector and tower stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from llavar.errors import ModelError
from llavar.models import _hf as hf
from llavar.models import folder as folders
from llavar.models.lean import LeanLlava
from llavar.models.shape import LlavaShape

BLOCK = 64
"""Weights that share a scale in NF4."""

NF4_LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Quantiles of the normal distribution between -1 and 1, with an exact 0 (QLoRA, appendix E)."""

_CHUNK = 1 << 22
"""Weights that are quantized at a time, so that a wide layer is never there in fp32; whole blocks of NF4."""

_LEAN, _STOCK = "language_model.model", "model.language_model"


class Quantization(StrEnum):
    """How the decoder's linear weights are kept."""

    INT8 = "int8"
    """A byte each and a scale for each row (output): the largest of it becomes 127."""
    NF4 = "nf4"
    """Half a byte each, one of 16 levels, and a scale for each 64 of them."""


class Int8Linear(nn.Module):
    """A linear layer whose weights are bytes with a scale for each output."""

    values: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """From weights (outputs, inputs) of any floating-point type."""
        super().__init__()
        values = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        scale = torch.empty(len(weight), device=weight.device)
        rows = max(1, _CHUNK // weight.shape[1])
        for start in range(0, len(weight), rows):
            wide = weight.detach()[start : start + rows].float()
            largest = wide.abs().amax(1) / 127
            steps = wide / torch.where(largest > 0, largest, 1.0)[:, None]
            values[start : start + rows] = steps.round().to(torch.int8)
            scale[start : start + rows] = largest
        self.register_buffer("values", values)
        self.register_buffer("scale", scale)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def numel(self) -> int:
        return self.values.numel()

    def weight(self, dtype: torch.dtype) -> Tensor:
        """The widened weights (outputs, inputs)."""
        return self.values.to(dtype) * self.scale.to(dtype)[:, None]

    def forward(self, inputs: Tensor) -> Tensor:
        # The scale of a row can wait until its products are summed up.
        made = functional.linear(inputs, self.values.to(inputs.dtype)) * self.scale.to(inputs.dtype)
        return made if self.bias is None else made + self.bias


class NF4Linear(nn.Module):
    """A linear layer whose weights are levels of NF4, two to a byte, with a scale for each 64."""

    values: Tensor
    scale: Tensor
    pairs: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """From weights (outputs, inputs) of any floating-point type."""
        super().__init__()
        self.shape = weight.shape
        flat = weight.detach().flatten()
        count = -(-len(flat) // BLOCK)
        values = torch.empty(count * BLOCK // 2, dtype=torch.uint8, device=weight.device)
        scale = torch.empty(count, device=weight.device)
        levels = torch.tensor(NF4_LEVELS, device=weight.device)
        borders = (levels[1:] + levels[:-1]) / 2
        for start in range(0, len(flat), _CHUNK):
            part = flat[start : start + _CHUNK].float()
            blocks = functional.pad(part, (0, -len(part) % BLOCK)).view(-1, BLOCK)
            largest = blocks.abs().amax(1)
            shares = blocks / torch.where(largest > 0, largest, 1.0)[:, None]
            nearest = torch.bucketize(shares, borders, out_int32=True).to(torch.uint8)
            first, second = nearest.view(-1, 2).unbind(1)
            block = start // BLOCK
            scale[block : block + len(largest)] = largest
            values[start // 2 : start // 2 + len(first)] = first * 16 + second
        self.register_buffer("values", values)
        self.register_buffer("scale", scale)
        # Both levels of a byte at once: one look-up for two weights.
        pairs = torch.cartesian_prod(levels, levels)
        self.register_buffer("pairs", pairs, persistent=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def numel(self) -> int:
        return self.shape.numel()

    def weight(self, dtype: torch.dtype) -> Tensor:
        """The widened weights (outputs, inputs)."""
        wide = functional.embedding(self.values.int(), self.pairs.to(dtype)).view(-1, BLOCK)
        return (wide * self.scale.to(dtype)[:, None]).flatten()[: self.numel].view(self.shape)

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self.weight(inputs.dtype), self.bias)


def layer(kind: Quantization, weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    """A quantized layer that takes the place of a linear one."""
    return Int8Linear(weight, bias) if kind is Quantization.INT8 else NF4Linear(weight, bias)


def load(folder: Path, kind: Quantization, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """As :func:`llavar.models._hf.load_llava` with ``lean``, quantized; everything else is of ``dtype``.

    What :mod:`llavar.models.lean` covers is read layer by layer, and the whole is never in memory. Other
    decoders go through transformers, which reads them whole in ``dtype`` first.

    Raises:
        ModelError: incomplete, damaged, or another architecture.
    """
    document = folders.read_document(folder, "config.json")
    if not hf.is_covered(document):
        model = hf.load_llava(folder, dtype=dtype).requires_grad_(False)
        quantize(model, kind)
        return model
    with torch.device("meta"):
        model = LeanLlava(LlavaShape.from_config(document))
    weights = folders.open_weights(folder)
    folders.check_weights(folder, weights, {k: tuple(v.shape) for k, v in model.state_dict().items()})
    chosen = {f"{name}.weight": name for name in _linear_layers(model)}
    for key, stored in weights.items():
        (tensor,) = folders.read_tensors({key: stored}, dtype).values()
        if key in chosen:
            _put(model, chosen[key], layer(kind, tensor))
        else:
            _put(model, key, nn.Parameter(tensor, requires_grad=False))
    return model.eval().requires_grad_(False)


def quantize(model: nn.Module, kind: Quantization) -> None:
    """Quantize the decoder's linear layers of a Llava model in place, one after the other.

    Raises:
        ModelError: the model has no decoder where one is expected, or is quantized already.
    """
    names = _linear_layers(model)
    if not names:
        raise ModelError(
            "there are no linear layers of a decoder to quantize; load the model as it is stored"
        )
    for name in names:
        old = cast("nn.Linear", model.get_submodule(name))
        _put(model, name, layer(kind, old.weight, old.bias))


def _linear_layers(model: nn.Module) -> list[str]:
    """Names of the decoder's linear layers, the head not among them."""
    prefix = _LEAN if isinstance(model, LeanLlava) else _STOCK
    inner = cast("Iterator[tuple[str, nn.Module]]", model.get_submodule(prefix).named_modules())
    return [f"{prefix}.{name}" for name, one in inner if isinstance(one, nn.Linear)]


def _put(model: nn.Module, name: str, item: nn.Module | nn.Parameter) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, item)


def kind_of(model: nn.Module) -> Quantization | None:
    """How a model is quantized; None if it is not."""
    for module in model.modules():
        if isinstance(module, Int8Linear | NF4Linear):
            return Quantization.INT8 if isinstance(module, Int8Linear) else Quantization.NF4
    return None


def parameters_of(model: nn.Module) -> int:
    """How many numbers a model has, quantized ones counted singly."""
    quantized = sum(_quantized(module) for module in model.modules())
    return quantized + sum(parameter.numel() for parameter in model.parameters())


def _quantized(module: nn.Module) -> int:
    return module.numel if isinstance(module, Int8Linear | NF4Linear) else 0


def bytes_of(model: nn.Module) -> int:
    """Bytes that a model's parameters and buffers take; what two names share counts once."""
    tensors: list[Any] = [*model.parameters(), *model.buffers()]
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())
