"""One linear layer in two: exact both ways."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from llavar.errors import ModelError
from llavar.models import projector
from llavar.models.projector import Linear, TwoLayer
from llavar.models.shape import ProjectorLayout


def linear(text: int, vision: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(text, vision, generator=generator).to(dtype)
    return Linear(weight=weight, bias=torch.randn(text, generator=generator).to(dtype))


def apply(two: TwoLayer, x: torch.Tensor, act: str) -> torch.Tensor:
    inner = functional.linear(x, two.weight_1, two.bias_1)
    inner = functional.gelu(inner) if act == "gelu" else inner
    return functional.linear(inner, two.weight_2, two.bias_2)


@settings(deadline=None, max_examples=40)
@given(vision=st.integers(1, 6), extra=st.integers(0, 5), seed=st.integers(0, 99))
def test_folding_is_the_layer_and_comes_back_bit_for_bit(vision: int, extra: int, seed: int):
    layer = linear(2 * vision + extra, vision, seed)
    folded = projector.fold(layer)
    x = torch.randn(7, vision, generator=torch.Generator().manual_seed(seed)) * 3
    wanted = functional.linear(x.double(), layer.weight.double(), layer.bias.double()).float()
    assert torch.allclose(apply(folded, x, "gelu"), wanted, atol=1e-4, rtol=1e-4)
    back = projector.unfold(folded)
    assert back is not None
    assert torch.equal(back.weight, layer.weight)
    assert torch.equal(back.bias, layer.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_error_of_folding_is_that_of_the_plain_layer(dtype: torch.dtype):
    layer = linear(256, 64, dtype=dtype)
    x = torch.randn(100, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact = functional.linear(x.double(), layer.weight.double(), layer.bias.double())

    def error(values: torch.Tensor) -> float:
        return ((values.double() - exact).norm() / exact.norm()).item()

    plain = error(functional.linear(x, layer.weight, layer.bias))
    assert error(apply(projector.fold(layer), x, "gelu")) < 3 * plain


def test_identity_is_exact_and_comes_back():
    layer = linear(6, 4)
    two = projector.identity(layer)
    x = torch.randn(5, 4)
    assert torch.equal(apply(two, x, "linear"), functional.linear(x, layer.weight, layer.bias))
    back = projector.from_identity(two)
    assert back is not None
    assert torch.equal(back.weight, layer.weight)


def test_layouts_are_recognised():
    layer = linear(9, 4)
    other = TwoLayer(weight_1=layer.weight, bias_1=layer.bias, weight_2=torch.randn(9, 9), bias_2=layer.bias)
    assert projector.layout_of(projector.identity(layer), "linear") is ProjectorLayout.IDENTITY
    assert projector.layout_of(projector.fold(layer), "gelu") is ProjectorLayout.FOLD
    assert projector.layout_of(other, "gelu") is ProjectorLayout.MLP
    assert projector.layout_of(other, "linear") is None
    assert projector.layout_of(other, "silu") is None
    narrow = linear(7, 4)
    assert projector.layout_of(projector.identity(narrow), "gelu") is ProjectorLayout.MLP


def test_a_decoder_that_is_too_narrow():
    with pytest.raises(ModelError, match=r"\(8\), and this one is 7 wide; use --layout identity"):
        projector.fold(linear(7, 4))
