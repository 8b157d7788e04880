"""One linear projector in the two-layer projector of the stock architecture, both ways, exactly.

The original LLaVA projects with a single ``W x + b``; ``LlavaForConditionalGeneration`` has Linear ->
activation -> Linear. See :class:`llavar.models.shape.ProjectorLayout` for the two ways around that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from llavar.errors import ModelError
from llavar.models.shape import ProjectorLayout, fold_refusal

VLLM_OVERRIDES: Mapping[str, str] = MappingProxyType(
    {"projector_hidden_act": "torch.nn.modules.linear.Identity"}
)
"""What vLLM must be told of a folder in the identity layout: it does not know the activation ``linear``,
and transformers does not know it by this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """The single layer: ``weight`` (text width, vision width), ``bias`` (text width,)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoLayer:
    """The stock parameters: ``weight_1`` (text, vision), ``weight_2`` (text, text), biases (text,)."""

    weight_1: Tensor
    bias_1: Tensor
    weight_2: Tensor
    bias_2: Tensor


def identity(linear: Linear) -> TwoLayer:
    """The layer, then the identity; the activation between them must be ``linear``."""
    weight, bias = linear.weight, linear.bias
    eye = torch.eye(len(bias), dtype=weight.dtype, device=weight.device)
    return TwoLayer(weight_1=weight, bias_1=bias, weight_2=eye, bias_2=torch.zeros_like(bias))


def fold(linear: Linear) -> TwoLayer:
    """``linear_1 = [I; -I; 0]`` and ``linear_2 = [W, -W, 0]``, with GELU(x) - GELU(-x) = x between them.

    Raises:
        ModelError: the decoder is narrower than twice the tower.
    """
    text, vision = linear.weight.shape
    if text < 2 * vision:
        raise ModelError(fold_refusal(vision, text))
    first, second = torch.zeros_like(linear.weight), linear.weight.new_zeros(text, text)
    first[:vision].fill_diagonal_(1)
    first[vision : 2 * vision].fill_diagonal_(-1)
    second[:, :vision] = linear.weight
    second[:, vision : 2 * vision] = -linear.weight
    return TwoLayer(weight_1=first, bias_1=torch.zeros_like(linear.bias), weight_2=second, bias_2=linear.bias)


def unfold(two: TwoLayer) -> Linear | None:
    """The single layer of a folded projector; None if this is not one."""
    text, vision = two.weight_1.shape
    if text < 2 * vision:
        return None
    linear = Linear(weight=two.weight_2[:, :vision].clone(), bias=two.bias_2.clone())
    return linear if _same(fold(linear), two) else None


def from_identity(two: TwoLayer) -> Linear | None:
    """The single layer of an identity layout (activation ``linear``); None if the second one is not I."""
    linear = Linear(weight=two.weight_1, bias=two.bias_1)
    return linear if _same(identity(linear), two) else None


def layout_of(two: TwoLayer, act: str) -> ProjectorLayout | None:
    """Which layout these parameters are, given the activation's name; None if it is none of the three."""
    if act == "linear":
        return ProjectorLayout.IDENTITY if from_identity(two) else None
    if act == "gelu":
        return ProjectorLayout.FOLD if unfold(two) else ProjectorLayout.MLP
    return None


def _same(one: TwoLayer, other: TwoLayer) -> bool:
    return (
        torch.equal(one.weight_1, other.weight_1)
        and torch.equal(one.bias_1, other.bias_1)
        and torch.equal(one.weight_2, other.weight_2)
        and torch.equal(one.bias_2, other.bias_2)
    )
